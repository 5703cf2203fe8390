// Ring: the picture, where a key is, and the table beside it.

import { ask, bytes, errorBox, h, isGone, patchCell, patchRows, plural, table, text, TONES } from "./dom.js";
import { arcAt, arcsOf, draw, fraction, partnersOf } from "./picture.js";
import { colour, live, watch } from "./live.js";

// Addresses in the order of their numbers, .9 before .10.
const inOrder = (address) => address.replace(/\d+/g, (digits) => digits.padStart(5, "0"));
const COLUMNS = [
  ["Node", (m) => inOrder(m.overlay_address), ""], ["State", (m) => m.state, ""], ["Share", (m) => m.share, "num"],
  ["Keys", (m) => m.keys, "num"], ["Data", (m) => m.bytes, "num"], ["Round trip", (m) => m.round_trip_microseconds ?? -1, "num"],
];
// Above this, twelve colours would be a blur: one colour for all, and others for what is pointed at.
const COLOURED_MAX = 60;
const LOADS = { none: () => 1, keys: (m) => m.keys, bytes: (m) => m.bytes };

export function ring() {
  const canvas = h("canvas", { role: "img", "aria-label": "The ring", id: "picture" });
  const tip = h("div", { class: "tip", hidden: true });
  const key = h("input", { id: "find", autocomplete: "off", spellcheck: "false" });
  const load = h("select", { id: "load" }, h("option", { value: "none" }, "the same for all"),
    h("option", { value: "keys" }, "keys"), h("option", { value: "bytes" }, "bytes"));
  const found = h("div", { "aria-live": "polite" });
  const t = table("Nodes of the ring", COLUMNS.map(([name, , cls]) => [name, cls]));
  const note = h("p", { class: "soft small" });
  let arcs = [], shares = new Map(), chosen = null, partners = new Set(), marks = [], sort = [0, 1];
  let isDrawing = false, willList = false, listed = null;

  [...t.head.children].forEach((th, i) => {
    const name = th.textContent;
    th.replaceChildren(h("button", {
      type: "button", onclick: () => { sort = [i, sort[0] === i ? -sort[1] : 1]; rows(); },
    }, name));
  });

  const members = () => live.state?.members ?? [];

  /** Draws in the next frame, and fills the table after it: laying out a thousand rows takes longer than the picture. */
  function paint({ began = performance.now(), isListing = false } = {}) {
    willList ||= isListing;
    if (isDrawing) return;
    isDrawing = true;
    requestAnimationFrame(() => {
      isDrawing = false;
      if (willList) {
        willList = false;
        setTimeout(rows);
      }
      if (!live.state || !live.ring || !canvas.isConnected) return;
      const of = LOADS[load.value];
      const loads = new Map(members().map((m) => [m.node, of(m)]));
      const most = Math.max(1, ...loads.values());
      const self = members().find((m) => m.is_self);
      const isLarge = members().length > COLOURED_MAX;
      const own = arcs.find((a) => a.node === self?.node);
      draw(canvas, {
        arcs, replicas: live.ring.replication_factor, states: new Map(members().map((m) => [m.node, m.state])),
        chosen, partners, marks,
        // Where the request enters the ring, unless this node is the home itself.
        start: own && marks.some((m) => m.isHome && m.node !== self.node) ? (own.from + own.to) / 2 : null,
        colour: (node) => (isLarge ? (node === chosen ? 2 : partners.has(node) ? 1 : 0) : Number(colour(node).slice(1))),
        scale: (node) => (load.value === "none" ? 1 : 0.15 + 0.85 * (loads.get(node) ?? 0) / most),
        title: plural(live.state.status.members_alive, "node"),
        subtitle: plural(live.ring.pieces.length, "piece"),
      });
      canvas.dataset.took = String(performance.now() - began);
      canvas.dataset.first ??= canvas.dataset.took;
      canvas.setAttribute("aria-label",
        `The ring: ${live.state.status.sentence}; ${plural(live.ring.pieces.length, "piece")}. The table has the same facts.`);
    });
  }

  const nameOf = (m) => {
    const notes = [m.is_self && "this node", partners.has(m.node) && "partner"].filter(Boolean);
    return { text: m.overlay_address + (notes.length ? ` (${notes.join(", ")})` : ""), dot: colour(m.node) };
  };

  /** Who is pointed at, and its partners, in the table: the other rows of a large ring are left alone. */
  function point(before) {
    const changed = new Set([...before, ...partners]);
    const byNode = new Map(members().filter((m) => changed.has(m.node)).map((m) => [m.node, m]));
    for (const tr of t.body.children) {
      const cls = tr.dataset.key === chosen ? "chosen" : "";
      if (tr.className !== cls) tr.className = cls;
      const m = byNode.get(tr.dataset.key);
      if (m) patchCell(tr.children[0], nameOf(m));
    }
  }

  function rows() {
    const of = COLUMNS[sort[0]][1];
    const all = members().map((m) => ({ ...m, share: shares.get(m.node) ?? 0 })).map((m) => ({ ...m, by: of(m) }));
    all.sort((a, b) => (a.by < b.by ? -sort[1] : a.by > b.by ? sort[1] : 0));
    listed = members();
    [...t.head.children].forEach((th, i) => {
      const order = i === sort[0] ? (sort[1] > 0 ? "ascending" : "descending") : "none";
      th.setAttribute("aria-sort", order);
    });
    patchRows(t.body, all.map((m) => ({
      key: m.node,
      cls: m.node === chosen ? "chosen" : "",
      made: (tr) => {
        tr.tabIndex = -1;
        for (const e of ["focus", "pointerenter"]) tr.addEventListener(e, () => choose(m.node));
        tr.addEventListener("focus", () => enter(tr));
        for (const e of ["blur", "pointerleave"]) tr.addEventListener(e, () => choose(null));
      },
      cells: [
        nameOf(m),
        { text: m.state, badge: TONES[m.state] || "x" }, { text: `${(m.share * 100).toFixed(1)} %`, cls: "num" },
        { text: m.keys.toLocaleString("en"), cls: "num" }, { text: bytes(m.bytes), cls: "num" },
        { text: isGone(m) || m.is_self || m.round_trip_microseconds === null ? "–" : `${(m.round_trip_microseconds / 1000).toFixed(2)} ms`, cls: "num" },
      ],
    })));
    if (t.body.firstChild && ![...t.body.children].some((tr) => tr.tabIndex === 0)) t.body.firstChild.tabIndex = 0;
  }

  /** One row is a stop of the tab key, and the arrow keys go on from it: a thousand stops would be a wall. */
  function enter(tr) {
    for (const other of t.body.children) {
      if (other.tabIndex === 0 && other !== tr) other.tabIndex = -1;
    }
    tr.tabIndex = 0;
  }

  t.body.addEventListener("keydown", (e) => {
    const all = t.body.children, at = [...all].indexOf(e.target.closest("tr"));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1, PageDown: at + 10, PageUp: at - 10 }[e.key];
    if (to === undefined) return;
    e.preventDefault();
    all[Math.min(Math.max(to, 0), all.length - 1)]?.focus();
  });

  function choose(node) {
    if (node === chosen) return;
    chosen = node;
    const before = partners;
    partners = node ? partnersOf(arcs, node) : new Set();
    paint();
    point(before);
  }

  function update(what) {
    const began = performance.now();
    if ((what === "ring" || what === "all") && live.ring) {
      arcs = arcsOf(live.ring);
      shares = new Map();
      if (chosen) partners = partnersOf(arcs, chosen);
      for (const a of arcs) shares.set(a.node, (shares.get(a.node) ?? 0) + a.to - a.from);
      const lost = live.ring.pieces.filter((p) => !p.live).length;
      text(note, lost ? `${plural(lost, "piece")} without a live owner (dashed).` : "Every piece has a live owner.");
      if (key.value) locate();
    }
    if (what === "feed") return;
    // The members of a large ring come less often than the rest.
    paint({ began, isListing: what !== "state" || members() !== listed });
  }

  async function locate() {
    const name = key.value;
    const answer = name ? await ask("locate", { key: name }) : null;
    if (name !== key.value) return;
    if (!answer || answer.error) {
      marks = [];
      found.replaceChildren(...(answer ? [errorBox(answer.error)] : []));
      return paint();
    }
    marks = answer.replicas.map((r) => ({ at: fraction(r.position), isHome: r.home, node: r.node }));
    const home = answer.replicas.find((r) => r.home);
    const self = members().find((m) => m.is_self);
    const route = home.node === self?.node ? "This node is its home, and asks the replicas."
      : `Route: this node → home ${home.overlay_address} → the replicas.`;
    found.replaceChildren(h("p", {}, route),
      h("p", { class: "soft small" }, "In the picture: the home is filled, the way to it solid, and from there to the replicas dashed."), h("ul", { class: "small" }, answer.replicas.map((r) => h("li", {},
      `replica ${r.slot}${r.home ? " (home)" : ""} at ${r.position.slice(0, 8)}… on ${r.overlay_address}`))));
    paint();
  }

  canvas.addEventListener("pointermove", (e) => {
    const arc = arcAt(canvas, arcs, e.offsetX, e.offsetY);
    choose(arc?.node ?? null);
    tip.hidden = !arc;
    if (!arc) return;
    const m = members().find((x) => x.node === arc.node);
    tip.replaceChildren(h("strong", {}, arc.address), h("br"), `replica ${arc.slot}, ${((arc.to - arc.from) * 100).toFixed(1)} % of the ring`,
      h("br"), m ? `${m.state}, ${plural(m.keys, "key")}, ${bytes(m.bytes)}` : "unknown");
    tip.style.left = `${Math.min(e.offsetX + 14, Math.max(0, canvas.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${e.offsetY + 14}px`;
  });
  canvas.addEventListener("pointerleave", () => { tip.hidden = true; choose(null); });
  key.addEventListener("input", locate);
  const repaint = () => paint();
  load.addEventListener("change", repaint);
  window.addEventListener("resize", repaint);
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", repaint);

  const stop = watch(update);
  const element = h("div", {}, h("div", { class: "grid wide-left" },
    h("section", { class: "card" }, h("h1", {}, "Ring"), note, h("div", { class: "picture" }, canvas, tip)),
    h("div", {}, h("section", { class: "card stack" },
      h("div", { class: "row" }, h("div", { class: "grow" }, h("label", { for: "find" }, "Where is this key?"), key),
        h("div", {}, h("label", { for: "load" }, "Thickness shows"), load)), found),
    h("section", { class: "card" }, h("h2", {}, "Nodes"),
      h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Nodes" }, t.element)))));
  queueMicrotask(() => update("all"));
  return {
    element,
    close: () => { stop(); window.removeEventListener("resize", repaint); scheme.removeEventListener("change", repaint); },
  };
}
ring.title = "Ring";
