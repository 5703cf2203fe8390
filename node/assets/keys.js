// Keys: add, look up, change if unchanged, delete if unchanged. A conflict is shown and never written over.

import { ask, during, errorBox, h, patchRows, shown, table } from "./dom.js";
import { colour } from "./live.js";
import { transact } from "./transact.js";
import { said, valueBox, valueFields } from "./value.js";

/** Versions per replica, each as the replica itself says. */
async function replicas(key) {
  const [copies, location] = await Promise.all([ask("inspect", { key }), ask("locate", { key })]);
  if (copies.error) return errorBox(copies.error);
  const t = table("Replicas", [["Replica"], ["Position"], ["Node"], ["Has"], ["Version", "num"], ["Known as decided"]]);
  const words = { value: "the value", removed: "a removal", nothing: "nothing", silent: "no answer", refused: "does not vote now" };
  patchRows(t.body, copies.replicas.map((r) => {
    const place = location.replicas?.find((x) => x.slot === r.slot);
    return {
      key: String(r.slot),
      cells: [
        `${r.slot}${place?.home ? " (home)" : ""}`,
        { text: place ? `${place.position.slice(0, 8)}…` : "–", cls: "mono", title: place?.position },
        { text: r.overlay_address ?? "nobody", dot: r.node ? colour(r.node) : undefined },
        words[r.sight],
        { text: r.version ?? "–", cls: "num" },
        r.settled === undefined ? "–" : r.settled ? "yes" : "not yet",
      ],
    };
  }));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Replicas" }, t.element);
}

export function keys() {
  const result = h("div", { class: "stack", "aria-live": "polite" });
  const key = h("input", { id: "key", autocomplete: "off", spellcheck: "false", required: true });
  const addKey = h("input", { id: "add-key", autocomplete: "off", spellcheck: "false", required: true });
  const addValue = valueFields("string", "");
  const addSaid = h("div", { "aria-live": "polite" });
  let looks = 0;

  async function look(name, ...notes) {
    looks += 1;
    const turn = looks;
    const answer = await ask("get", { key: name });
    // Another key was asked for meanwhile.
    if (turn !== looks) return;
    if (answer.error) return result.replaceChildren(...notes, errorBox(answer.error));
    result.replaceChildren(...notes, entry(name, answer));
  }

  function entry(name, { version, value }) {
    const copies = h("div", {}, h("p", { class: "soft" }, "Asking the replicas…"));
    replicas(name).then((t) => copies.replaceChildren(t));
    const head = h("h2", {}, "Key ", h("code", {}, shown(name)));
    const parts = [head, valueBox(value), h("p", { class: "soft small" }, `Version ${version}`)];
    if (value) parts.push(editor(name, version, value));
    parts.push(h("h3", { class: "small soft" }, "What each replica has"), copies);
    return h("section", { class: "card stack" }, parts);
  }

  function editor(name, version, value) {
    const fields = valueFields(value.type, value.text);
    const out = h("div", { "aria-live": "polite" });
    const ends = value.text.includes("\r") && h("p", { class: "soft small" },
      "This text has carriage returns, which the field cannot hold: saving replaces them by line feeds.");
    const save = h("button", { class: "main", type: "submit" }, "Save if unchanged");
    const remove = h("button", { class: "danger", type: "button" }, "Delete if unchanged");
    async function act(verb, body, done) {
      const answer = await ask(verb, { key: name, if: version, ...body });
      if (answer.present) return out.replaceChildren(conflict(name, answer, verb === "put" ? body.value : null));
      if (answer.error) return out.replaceChildren(errorBox(answer.error));
      await look(name, said("", `${done} It is version ${answer.version}.`));
    }
    remove.addEventListener("click", () => during(form, out, "Deleting…", () => act("delete", {}, "Deleted.")));
    // Of a value that is shown in part, saving would keep that part only.
    const parts = value.whole ? [fields.element, ends, h("div", { class: "row" }, save, remove)]
      : [h("p", { class: "soft small" }, "Too long to be edited here: kvnode put --file writes such a value."), h("div", { class: "row" }, remove)];
    const form = h("form", {
      class: "stack",
      onsubmit: (e) => {
        e.preventDefault();
        if (value.whole) during(form, out, "Saving…", () => act("put", { value: fields.read() }, "Saved."));
      },
    }, parts, out);
    return form;
  }

  function conflict(name, { present, error }, mine) {
    const doing = h("div");
    const take = h("button", { type: "button", onclick: () => look(name) }, "Take what is there");
    const over = mine && h("button", {
      class: "danger", type: "button",
      onclick: () => during(box, doing, "Saving…", async () => {
        const answer = await ask("put", { key: name, value: mine, if: present.value ? present.version : "absent" });
        if (answer.present) return box.replaceWith(conflict(name, answer, mine));
        if (answer.error) return box.replaceWith(errorBox(answer.error));
        box.replaceWith(said("", `Saved as version ${answer.version}.`));
        await look(name, said("", `Saved. It is version ${answer.version}.`));
      }),
    }, `Replace version ${present.version} by mine`);
    const box = h("div", { class: "conflict stack", role: "alert" },
      h("strong", {}, "Conflict: nothing was written."), h("p", {}, `${error.message}: ${error.cause}.`),
      h("div", { class: "grid two" },
        h("div", {}, h("h3", { class: "small" }, "Yours"), mine ? h("pre", { class: "value" }, mine.text) : h("p", {}, "a deletion")),
        h("div", {}, h("h3", { class: "small" }, `Now in the ring, version ${present.version}`), valueBox(present.value))),
      h("div", { class: "row" }, take, over), doing);
    return box;
  }

  async function add() {
    const name = addKey.value, value = addValue.read();
    const answer = await ask("put", { key: name, value, if: "absent" });
    if (answer.present) return addSaid.replaceChildren(conflict(name, answer, value));
    if (answer.error) return addSaid.replaceChildren(errorBox(answer.error));
    addSaid.replaceChildren(said("", "Added ", h("code", {}, shown(name)), ` as version ${answer.version}.`));
    key.value = name;
    await look(name);
  }

  const element = h("div", { class: "stack" }, h("h1", {}, "Keys"),
    h("div", { class: "grid two" },
      h("form", { class: "card stack", onsubmit: (e) => { e.preventDefault(); during(e.target, result, "Asking the ring…", () => look(key.value)); } },
        h("h2", {}, "Look up"),
        h("div", { class: "row" }, h("div", { class: "grow" }, h("label", { for: "key" }, "Key"), key),
          h("button", { class: "main", type: "submit" }, "Look up")),
        h("p", { class: "soft small" }, "The newest value, confirmed by a quorum, whichever node you ask.")),
      h("form", { class: "card stack", onsubmit: (e) => { e.preventDefault(); during(e.target, addSaid, "Adding…", add); } },
        h("h2", {}, "Add"),
        h("div", {}, h("label", { for: "add-key" }, "New key"), addKey), addValue.element,
        h("div", { class: "row" }, h("button", { class: "main", type: "submit" }, "Add")), addSaid)),
    result, transact());
  return { element, close: () => {} };
}
keys.title = "Keys";
