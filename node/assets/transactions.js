// Transactions: the latest of all nodes with their phases and why they were not committed, and hot keys.

import { ask, clock, h, micros, patchRows, plural, rate, s, shown as readable, table, text } from "./dom.js";

const ENDS = {
  committed: ["committed", "good"], failed: ["not committed", "note"], conflict: ["conflict", "note"],
  not_done: ["not done", "bad"], unknown: ["not known", "bad"],
};
const PHASES = ["read", "install", "open", "lock", "validate", "decide", "look_up", "pause"];
const BAR = 140;

const TILES = [
  ["Ended lately", (all) => all.length],
  ["Committed", (all) => all.filter((t) => t.end === "committed").length],
  ["Given up after conflicts", (all) => all.filter((t) => t.end === "conflict").length],
  ["Begun anew", (all) => all.reduce((sum, t) => sum + t.conflicts, 0)],
  ["Median time", (all) => micros(all.map((t) => t.took).sort((a, b) => a - b)[Math.floor(all.length / 2)])],
];

/** Each phase with how long it took. */
const spans = (t) => t.phases.map((p, i) => ({
  name: p.name.replace("_", " "), kind: PHASES.indexOf(p.name), took: (t.phases[i + 1]?.after ?? t.took) - p.after,
}));

/** The phases as a bar, and as words for those who do not see it. */
function phases(t) {
  const all = spans(t), total = Math.max(1, t.took);
  let x = 0;
  const bars = all.map((p) => {
    const width = Math.max(1, p.took / total * BAR);
    const bar = s("rect", { x, y: 0, width, height: 8, class: `k${p.kind}` });
    x += width;
    return bar;
  });
  return h("div", {}, s("svg", { class: "bar-of", viewBox: `0 0 ${Math.max(BAR, x)} 8`, preserveAspectRatio: "none", "aria-hidden": "true" }, bars),
    h("span", { class: "small soft" }, all.map((p) => `${p.name} ${micros(p.took)}`).join(", ")));
}

function keysOf(t) {
  const part = (isWritten) => t.keys.filter((k) => k.written === isWritten).map((k) => readable(k.key));
  const [written, read] = [part(true), part(false)];
  const said = [];
  if (written.length) said.push(`writes ${written.join(", ")}`);
  if (read.length) said.push(`reads ${read.join(", ")}`);
  const rest = t.keys_count - t.keys.length;
  if (rest > 0) said.push(`and ${plural(rest, "more key")}`);
  return said.join("; ") || "none";
}

function why(t) {
  const met = t.conflict_keys.length ? `${t.reason ? ": " : "met others at "}${t.conflict_keys.map(readable).join(", ")}` : "";
  return `${readable(t.reason)}${met}` || "–";
}

export function transactions() {
  const which = h("select", { id: "which" }, h("option", { value: "" }, "all"), h("option", { value: "troubled" }, "those that met others or failed"));
  const tiles = TILES.map(([name]) => {
    const number = h("span");
    return { number, element: h("dl", { class: "tile" }, h("dt", {}, name), h("dd", {}, number)) };
  });
  const list = table("Transactions, newest first",
    [["Ended"], ["Node"], ["Outcome"], ["Took", "num"], ["Tries", "num"], ["Phases"], ["Keys"], ["Why"]]);
  const hot = table("Hot keys", [["Key"], ["Operations /s", "num"], ["Conflicts in a minute", "num"], ["Through"]]);
  const empty = h("p", { class: "empty" }, "No transaction has ended yet.");
  const cold = h("p", { class: "empty" }, "No key is used now.");
  let shown = [];

  function update() {
    TILES.forEach(([, of], i) => text(tiles[i].number, of(shown)));
    const chosen = which.value ? shown.filter((t) => t.end !== "committed" || t.conflicts) : shown;
    empty.hidden = chosen.length > 0;
    patchRows(list.body, chosen.map((t) => {
      const [word, badge] = ENDS[t.end] ?? [t.end, "x"];
      return {
        key: `${t.node} ${t.number}`,
        cells: [
          clock(t.at), t.overlay_address, { text: word, badge }, { text: micros(t.took), cls: "num" },
          { text: t.conflicts + 1, cls: "num" }, { text: "", make: () => phases(t), mark: t.number },
          { text: keysOf(t), cls: "wrap" }, { text: why(t), cls: "wrap" },
        ],
      };
    }));
  }

  async function refresh() {
    const answer = await ask("transactions");
    if (!answer.transactions) return;
    shown = answer.transactions;
    update();
    cold.hidden = answer.hot_keys.length > 0;
    patchRows(hot.body, answer.hot_keys.map((k) => ({
      key: k.key,
      cells: [{ text: readable(k.key), cls: "wrap mono" }, { text: rate(k.operations), cls: "num" },
        { text: Math.round(k.conflicts).toLocaleString("en"), cls: "num" }, { text: plural(k.nodes.length, "node"), title: k.nodes.join(", ") }],
    })));
  }

  which.addEventListener("change", update);
  refresh();
  const timer = setInterval(refresh, 1000);
  const scroll = (t, label) => h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": label }, t.element);
  const legend = h("div", { class: "legend" }, PHASES.map((p, i) => h("span", {}, h("i", { class: `k${i}` }), p.replace("_", " "))));
  const element = h("div", {}, h("div", { class: "card row" },
    h("div", { class: "grow" }, h("h1", {}, "Transactions"),
      h("p", { class: "soft" }, "The latest of this node's clients as they end, and of all other nodes some seconds later. ",
        "To begin one, go to ", h("a", { href: "#keys" }, "Keys"), ".")),
    h("div", {}, h("label", { for: "which" }, "Show"), which)),
  h("div", { class: "tiles" }, tiles.map((t) => t.element)),
  h("section", { class: "card" }, h("h2", {}, "What each went through"), legend, scroll(list, "Transactions"), empty),
  h("section", { class: "card" }, h("h2", {}, "Hot keys"), h("p", { class: "soft small" },
    "Used most by clients in about the last minute, or where transactions met each other; estimated."), scroll(hot, "Hot keys"), cold));
  return { element, close: () => clearInterval(timer) };
}
transactions.title = "Transactions";
