// Metrics: the last hour of all nodes, added up or one by one.

import { ask, bytes, h, micros, rate } from "./dom.js";
import { chart, whole } from "./chart.js";

const CHARTS = [
  ["Operations per second", [["reads", "gets"], ["changes", "changes"]], rate],
  ["Latency (slowest node)", [["p50", "p50"], ["p99", "p99"]], (us) => (us === null ? "–" : micros(Math.round(us)))],
  ["Conflicts and operations without answer, per second", [["conflicts", "refused"], ["no answer", "failed"]], rate],
  ["Bytes sent between nodes per second", [["sent", "sent"]], bytes],
  ["Memory for data", [["bytes", "bytes"]], bytes],
  ["Keys held, every replica counted", [["keys", "keys"]], whole],
  ["Nodes that may fail (lowest view)", [["nodes", "tolerated"]], whole],
];

export function metrics() {
  const choice = h("select", { id: "of-node" }, h("option", { value: "" }, "All nodes, added up"));
  const charts = CHARTS.map(([title, series, unit]) => ({ title, ...chart(title, series, unit) }));

  async function refresh() {
    const history = await ask(choice.value ? `history?node=${choice.value}` : "history");
    if (!history.points) return;
    for (const c of charts) c.update(history.points);
    for (const n of history.nodes) {
      if (![...choice.options].some((o) => o.value === n.node)) {
        choice.append(h("option", { value: n.node }, `${n.overlay_address} (${n.node})`));
      }
    }
  }

  choice.addEventListener("change", refresh);
  refresh();
  const timer = setInterval(refresh, 5000);
  const element = h("div", {}, h("div", { class: "card row" },
    h("div", { class: "grow" }, h("h1", {}, "The last hour"),
      h("p", { class: "soft" }, "Kept in the nodes: each remembers what it and the others did, also of a node that has gone. " +
        "For longer, let Prometheus read ", h("a", { href: "/metrics" }, "/metrics"), ".")),
    h("div", {}, h("label", { for: "of-node" }, "Show"), choice)),
  h("div", { class: "grid two" }, charts.map((c) => h("section", { class: "card" }, h("h2", {}, c.title), c.element))));
  return { element, close: () => clearInterval(timer) };
}
metrics.title = "Metrics";
