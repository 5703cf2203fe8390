// Node: what this node holds and does, its peers, its settings, and the way out.

import { ask, bytes, errorBox, h, isGone, micros, patchRows, span, table, text, TONES } from "./dom.js";
import { colour, live, watch } from "./live.js";
import { arcsOf } from "./picture.js";

function facts(pairs) {
  const values = pairs.map(() => h("dd"));
  const element = h("dl", { class: "facts" }, pairs.flatMap(([name], i) => [h("dt", {}, name), values[i]]));
  return { element, update: (x) => pairs.forEach(([, of], i) => text(values[i], of(x))) };
}

function drain() {
  const said = h("div", { "aria-live": "polite" });
  const go = h("button", { class: "danger", type: "button" }, "Hand over and leave");
  const stay = h("button", { type: "button" }, "Stay");
  const dialog = h("dialog", { "aria-labelledby": "drain-title" }, h("h2", { id: "drain-title" }, "Drain this node?"),
    h("p", {}, "It hands all its data to the other nodes and leaves the ring. Nothing is lost, and operations go on. ",
      "The process stays; start it anew to join again."),
    h("div", { class: "row" }, stay, go));
  const open = h("button", { class: "danger", type: "button", onclick: () => dialog.showModal() }, "Drain this node…");
  stay.addEventListener("click", () => dialog.close());
  go.addEventListener("click", async () => {
    dialog.close();
    open.disabled = true;
    said.replaceChildren(h("div", { class: "said note" }, "Handing over…"));
    const answer = await ask("leave", {});
    if (answer.error) {
      open.disabled = false;
      return said.replaceChildren(errorBox(answer.error));
    }
    const words = answer.clean ? "The node has handed over everything and left the ring."
      : "The node has left, but not all of its data found a new owner.";
    said.replaceChildren(h("div", { class: `said ${answer.clean ? "" : "note"}` }, words));
  });
  return h("section", { class: "card stack" }, h("h2", {}, "Leave the ring"),
    h("p", { class: "soft" }, "Before maintenance, or for good."), open, dialog, said);
}

export function node() {
  const title = h("h1", {}, "…");
  const who = facts([
    ["Node", (x) => x.status.node], ["Overlay address", (x) => x.status.address],
    ["State", (x) => x.status.phase], ["Ring", (x) => x.status.ring || "none"],
    ["Version", (x) => x.status.version], ["Up", (x) => span(x.status.uptime_seconds)],
    ["Keys held", (x) => x.status.keys.toLocaleString("en")],
    ["Memory for data", (x) => `${bytes(x.status.bytes)} of ${bytes(x.status.bytes_max)}`],
    ["Memory of the process", (x) => bytes(x.inside.resident_bytes)],
  ]);
  const work = facts([
    ["Pieces that vote", (x) => x.inside.pieces.active], ["Pieces being refilled", (x) => x.inside.pieces.incomplete],
    ["Pieces being handed over", (x) => x.inside.pieces.frozen], ["Pieces kept for latecomers", (x) => x.inside.pieces.stopped],
    ["Intervals it is home of", (x) => x.inside.reigns], ["Operations open here", (x) => x.inside.operations_open],
    ["Operations waiting at homes here", (x) => x.inside.operations_waiting],
    ["Records being voted on", (x) => x.inside.records_in_flight], ["Messages waiting for peers", (x) => x.inside.messages_waiting],
    ["Handovers running", (x) => x.inside.handovers_running], ["Replacements running", (x) => x.inside.replacements_running],
    ["Disagreements about owners", (x) => x.inside.view_disagreements],
    ["Rounds begun", (x) => Object.entries(x.inside.rounds).map(([k, n]) => `${k} ${n.toLocaleString("en")}`).join(", ")],
  ]);
  const peers = table("Peers", [["Peer"], ["Clients"], ["State"], ["Round trip", "num"], ["Heard", "num"], ["Keys", "num"], ["Data", "num"]]);
  const pieces = table("Pieces", [["Replica"], ["First offset"], ["Last offset"], ["Of the ring", "num"]]);
  const noPieces = h("p", { class: "empty" }, "It holds nothing.");
  const checks = table("Readiness", [["Check"], ["State"], ["Reason"]]);
  const settings = table("Settings", [["Setting"], ["Value"], ["From"]]);

  const ends = (offset) => ({ text: `${offset.slice(0, 12)}…`, cls: "mono", title: offset });

  function update(what) {
    const state = live.state;
    if (!state || what === "feed") return;
    if (what !== "state" && live.ring) {
      const own = live.ring.pieces.filter((p) => p.node === state.status.node);
      const arcs = arcsOf({ ...live.ring, pieces: own });
      noPieces.hidden = own.length > 0;
      patchRows(pieces.body, own.map((p, i) => ({
        key: `${p.slot} ${p.first_offset}`,
        cells: [
          p.slot, ends(p.first_offset), ends(p.last_offset),
          { text: `${((arcs[i].to - arcs[i].from) * 100).toFixed(2)} %`, cls: "num" },
        ],
      })));
    }
    text(title, `Node ${state.status.address}`);
    who.update(state);
    work.update(state);
    patchRows(checks.body, state.ready.map((c) => ({
      key: c.name, cells: [c.name, { text: c.ok ? "ok" : "not ok", badge: c.ok ? "good" : "bad" }, { text: c.reason, cls: "wrap" }],
    })));
    patchRows(peers.body, state.members.map((m) => ({
      key: m.node,
      cells: [
        { text: m.overlay_address + (m.is_self ? " (this node)" : ""), dot: colour(m.node) },
        m.client_address ? { text: m.client_address, href: `http:${"//"}${m.client_address}/#node` } : "–",
        { text: m.state, badge: TONES[m.state] || "x" },
        { text: m.is_self || isGone(m) ? "–" : micros(m.round_trip_microseconds), cls: "num" },
        { text: m.is_self ? "–" : `${(m.heard_ago_milliseconds / 1000).toFixed(1)} s ago`, cls: "num" },
        { text: m.keys.toLocaleString("en"), cls: "num" }, { text: bytes(m.bytes), cls: "num" },
      ],
    })));
  }

  ask("settings").then((answer) => patchRows(settings.body, (answer.settings ?? []).map((x) => ({
    key: x.name, cells: [
      { text: "", cls: "wrap", mark: x.name, make: () => h("div", {}, h("code", {}, x.name), h("div", { class: "soft small" }, x.help)) },
      { text: x.value || "–", cls: "value-of" }, x.origin,
    ],
  }))));
  update("all");
  const stop = watch(update);
  const scroll = (t, label, tall = " tall") => h("div", { class: `scroll${tall}`, tabindex: "0", role: "region", "aria-label": label }, t.element);
  const element = h("div", {}, h("div", { class: "card" }, title, h("p", { class: "soft" },
    "Command line: ", h("code", {}, `kvnode status --endpoint ${location.host}`))),
  h("div", { class: "grid two" }, h("section", { class: "card" }, h("h2", {}, "This node"), who.element),
    h("section", { class: "card" }, h("h2", {}, "Inside"), work.element)),
  h("section", { class: "card" }, h("h2", {}, "Peers"), scroll(peers, "Peers")),
  h("section", { class: "card" }, h("h2", {}, "What it owns"), scroll(pieces, "Pieces"), noPieces),
  h("div", { class: "grid two" }, h("section", { class: "card" }, h("h2", {}, "Ready?"), scroll(checks, "Readiness")), drain()),
  h("section", { class: "card" }, h("h2", {}, "Settings"), scroll(settings, "Settings", "")));
  return { element, close: stop };
}
node.title = "Node";
