// A transaction over several keys: read, change, commit all or nothing.

import { ask, during, errorBox, h, plural, shown } from "./dom.js";
import { said, valueBox, valueFields } from "./value.js";

const VERBS = [["get", "read"], ["put", "write"], ["add", "add to number"], ["delete", "delete"]];
const ROWS_MAX = 50;

let count = 0;

function row(removed) {
  count += 1;
  const key = h("input", { id: `tx-key-${count}`, autocomplete: "off", spellcheck: "false", required: true });
  const verb = h("select", { id: `tx-do-${count}` }, VERBS.map(([v, name]) => h("option", { value: v }, name)));
  const fields = valueFields("string", "");
  const seen = h("div", { class: "seen" });
  const remove = h("button", { type: "button", "aria-label": `Take key ${count} out`, onclick: () => removed(self) }, "Remove");
  const fit = () => {
    fields.element.hidden = verb.value !== "put" && verb.value !== "add";
    if (verb.value === "add") fields.setType("integer");
  };
  verb.addEventListener("change", fit);
  fit();
  const element = h("div", { class: "part stack" }, h("div", { class: "row" },
    h("div", { class: "grow" }, h("label", { for: key.id }, "Key"), key),
    h("div", { class: "type" }, h("label", { for: verb.id }, "What to do"), verb), remove), fields.element, seen);
  const self = {
    element, key, seen, fields,
    read: () => ({ do: "get", key: key.value }),
    operation: () => {
      const operation = { do: verb.value, key: key.value };
      if (!fields.element.hidden) operation.value = fields.read();
      return operation;
    },
  };
  return self;
}

export function transact() {
  const parts = h("div", { class: "stack" });
  const out = h("div", { "aria-live": "polite" });
  let rows = [], log = "", conflicts = 0;

  function add() {
    if (rows.length >= ROWS_MAX) return;
    const made = row((gone) => {
      if (rows.length < 2) return;
      rows = rows.filter((r) => r !== gone);
      gone.element.remove();
    });
    // Another key makes it another transaction.
    made.key.addEventListener("input", () => { forget(); conflicts = 0; });
    rows.push(made);
    parts.append(made.element);
  }

  function forget() {
    log = "";
    for (const r of rows) r.seen.replaceChildren();
  }

  async function read() {
    const operations = rows.map((r) => r.read());
    const answer = await ask("transact", { operations, log: "", commit: false });
    forget();
    if (answer.error) return out.replaceChildren(errorBox(answer.error));
    if (answer.state !== "open") return out.replaceChildren(conflict(answer));
    log = answer.log;
    rows.forEach((r, i) => {
      const one = answer.results[i];
      if (one.error) return r.seen.replaceChildren(errorBox(one.error));
      r.seen.replaceChildren(h("p", { class: "soft small" }, `Read at version ${one.version}`), valueBox(one.value));
      if (one.value?.whole) r.fields.fill(one.value);
    });
    out.replaceChildren(said("", `${plural(rows.length, "key")} read. Commit, and it is done only if none has changed since.`));
  }

  async function commit() {
    const isWhole = !log;
    const answer = await ask("transact", { operations: rows.map((r) => r.operation()), log, commit: true, conflicts });
    if (answer.error) return out.replaceChildren(errorBox(answer.error));
    if (answer.state === "committed") {
      forget();
      conflicts = 0;
      const words = isWhole ? "all at once" : "and nothing it had read was changed by others";
      return out.replaceChildren(said("", `Committed: ${plural(rows.length, "operation")}, ${words}.`));
    }
    if (answer.state === "conflict") return out.replaceChildren(conflict(answer));
    conflicts = 0;
    const wrong = answer.results.find((r) => r.error && r.key === answer.failed_key);
    const box = h("div", { class: "conflict stack", role: "alert" }, h("strong", {}, "Not committed: nothing was written."));
    if (wrong) box.append(errorBox(wrong.error));
    else box.append(h("p", {}, `The operation on ${shown(answer.failed_key)} failed.`));
    out.replaceChildren(box);
  }

  function conflict({ conflict_keys: keys }) {
    conflicts += 1;
    return h("div", { class: "conflict stack", role: "alert" }, h("strong", {}, "Conflict: nothing was written."),
      h("p", {}, keys.length ? "Others have changed or hold: " : "Others took this node for dead and aborted it.",
        keys.flatMap((k, i) => [i ? ", " : "", h("code", {}, shown(k))])),
      h("p", {}, "Read again to see what is there now; your values stay in the fields above until then."),
      h("div", { class: "row" }, h("button", { type: "button", onclick: (e) => during(e.target.closest("form"), out, "Reading…", read) }, "Read again")));
  }

  add();
  add();
  return h("form", { class: "card stack", id: "transact", onsubmit: (e) => { e.preventDefault(); during(e.target, out, "Committing…", commit); } },
    h("h2", {}, "Several keys at once"),
    h("p", { class: "soft small" }, "A transaction: all of it is done, or nothing. Read first, and it is done only if what was read still holds."),
    parts,
    h("div", { class: "row" }, h("button", { type: "button", onclick: add }, "Another key"),
      h("button", { type: "button", onclick: (e) => { if (e.target.form.reportValidity()) during(e.target.form, out, "Reading…", read); } }, "Read"),
      h("button", { class: "main", type: "submit" }, "Commit")), out);
}
