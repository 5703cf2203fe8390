// Overview: health in one sentence, rates, what happened.

import { ask, bytes, clock, h, micros, rate, text } from "./dom.js";
import { chart } from "./chart.js";
import { live, watch } from "./live.js";

const TILES = [
  ["Reads", (x) => [rate(x.rates.gets), " /s"]],
  ["Changes", (x) => [rate(x.rates.changes), " /s"]],
  ["Latency p50", (x) => [micros(x.rates.p50), ""]],
  ["Latency p99", (x) => [micros(x.rates.p99), ""]],
  ["Conflicts", (x) => [rate(x.rates.refused), " /s"]],
  ["No answer", (x) => [rate(x.rates.failed), " /s"]],
  ["Intervals short of replicas", (x) => [String(x.inside.intervals_under_replicated), ` of ${x.inside.intervals}`]],
  ["Memory of all nodes", (x) => [bytes(x.members.filter(isIn).reduce((sum, m) => sum + m.bytes, 0)), ""]],
];

const isIn = (m) => m.state === "alive" || m.state === "leaving";

/** How the ring is, as good, note or bad, and the sentences that say so. */
function health(state) {
  const s = state.status;
  const isSilent = state.members.some((m) => m.state === "suspected");
  if (s.phase !== "member" || !s.fully_replicated || isSilent) return ["bad", s.findings];
  if (s.findings.length) return ["note", s.findings];
  if (s.tolerated_failures > 0) return ["good", ["Every key has all its replicas on live nodes.", ...s.notes]];
  const missing = s.replication_factor === 1 ? "keys have one replica only" : "a third node would make the ring survive a loss";
  return ["note", [`No node may be lost: ${missing}.`]];
}

export function overview() {
  const sentence = h("h1", { id: "sentence" }, "…");
  const reasons = h("ul");
  const box = h("section", { class: "card health", "aria-labelledby": "sentence" }, h("div", {}, sentence, reasons));
  const values = TILES.map(([name]) => {
    const number = h("span"), unit = h("small");
    return { number, unit, element: h("dl", { class: "tile" }, h("dt", {}, name), h("dd", {}, number, unit)) };
  });
  const feed = h("ol", { class: "feed", "aria-label": "Events, newest first", tabindex: "0" });
  const operations = chart("Operations per second", [["reads", "gets"], ["changes", "changes"]], rate);
  const latency = chart("Latency", [["p50", "p50"], ["p99", "p99"]], micros);

  function update(what) {
    const state = live.state;
    if (state && what !== "feed") {
      text(sentence, state.status.sentence);
      const [tone, lines] = health(state);
      box.className = `card health ${tone}`;
      const now = [...reasons.children].map((li) => li.textContent);
      if (now.join("\n") !== lines.join("\n")) reasons.replaceChildren(...lines.map((l) => h("li", {}, l)));
      TILES.forEach(([, of], i) => {
        const [number, unit] = of(state);
        text(values[i].number, number);
        text(values[i].unit, unit);
      });
    }
    if (what === "feed" || what === "all") {
      const items = live.feed.slice().reverse().map((e) => h("li", {},
        h("time", { datetime: new Date(e.at).toISOString() }, clock(e.at)), h("span", { class: e.tone }, e.text)));
      feed.replaceChildren(...(items.length ? items : [h("li", { class: "soft" }, "Nothing has happened yet.")]));
    }
  }

  async function refresh() {
    const history = await ask("history");
    if (history.points) {
      operations.update(history.points);
      latency.update(history.points);
    }
  }

  update("all");
  refresh();
  const stop = watch(update);
  const timer = setInterval(refresh, 5000);
  const element = h("div", {}, box, h("div", { class: "tiles" }, values.map((v) => v.element)),
    h("div", { class: "grid two" },
      h("div", {}, h("section", { class: "card" }, h("h2", {}, "Operations per second, all nodes"), operations.element),
        h("section", { class: "card" }, h("h2", {}, "Latency, slowest node"), latency.element)),
      h("section", { class: "card" }, h("h2", {}, "What this node saw"), feed)));
  return { element, close: () => { stop(); clearInterval(timer); } };
}
overview.title = "Overview";
