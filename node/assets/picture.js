// The ring as a picture. Positions run clockwise from the top; each node's pieces are arcs on one circle.

const FULL = 2 * Math.PI;
const TOP = -Math.PI / 2;
const SCALE = 2n ** 32n;

/** Where a position of 32 hexadecimal digits is on the circle, from 0 to 1. */
export const fraction = (hex) => Number(BigInt(`0x${hex}`) >> 96n) / Number(SCALE);

/** The arcs of all pieces: { from, to, node, live, slot } with from and to in parts of the circle. */
export function arcsOf(ring) {
  const r = ring.replication_factor;
  return ring.pieces.map((p) => ({
    from: p.slot / r + fraction(p.first_offset),
    to: p.slot / r + fraction(p.last_offset) + 1 / Number(SCALE),
    lo: fraction(p.first_offset), hi: fraction(p.last_offset), slot: p.slot, node: p.node, live: p.live,
    address: p.overlay_address,
  }));
}

/** Nodes that hold another replica of something that `node` holds. */
export function partnersOf(arcs, node) {
  const own = arcs.filter((a) => a.node === node);
  const found = new Set();
  for (const a of arcs) {
    if (a.node !== node && own.some((o) => o.slot !== a.slot && o.lo <= a.hi && a.lo <= o.hi)) found.add(a.node);
  }
  return found;
}

/** Draws onto a canvas. `look` has: arcs, states (by node), chosen, partners, marks, colour(node), scale(node). */
export function draw(canvas, look) {
  const size = canvas.clientWidth;
  const dots = window.devicePixelRatio || 1;
  if (canvas.width !== Math.round(size * dots)) canvas.width = canvas.height = Math.round(size * dots);
  const c = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colourOf = (name) => style.getPropertyValue(name).trim();
  const palette = Array.from({ length: 12 }, (_, i) => colourOf(`--c${i}`));
  const [bad, soft, text, line, card] = ["--bad", "--soft", "--text", "--line", "--card"].map(colourOf);
  c.setTransform(dots, 0, 0, dots, 0, 0);
  c.clearRect(0, 0, size, size);
  const middle = size / 2, outer = size * 0.385, width = size * 0.085;
  const inner = outer - width;

  const gap = look.arcs.length > 150 ? 0 : 0.004;
  for (const a of look.arcs) {
    const isMuted = look.chosen && a.node !== look.chosen && !look.partners.has(a.node);
    const thick = width * look.scale(a.node);
    const from = TOP + a.from * FULL + gap, to = Math.max(TOP + a.to * FULL - gap, TOP + a.from * FULL + 0.0008);
    const state = look.states.get(a.node);
    const isWell = a.live && (state === "alive" || state === "leaving");
    c.globalAlpha = isMuted ? 0.16 : 1;
    c.lineWidth = thick;
    c.strokeStyle = isWell ? palette[look.colour(a.node)] ?? soft : a.node === "-" ? line : bad;
    c.beginPath();
    c.arc(middle, middle, inner + thick / 2, from, to);
    if (!isWell) c.setLineDash([size / 120, size / 160]);
    c.stroke();
    c.setLineDash([]);
    if (a.node === look.chosen) {
      c.lineWidth = 2.5;
      c.strokeStyle = text;
      c.beginPath();
      c.arc(middle, middle, outer + size * 0.016, from, to);
      c.stroke();
    }
  }
  c.globalAlpha = 1;

  const r = look.replicas;
  c.font = `${Math.max(11, size / 44)}px system-ui, "DejaVu Sans", sans-serif`;
  c.textAlign = "center";
  c.textBaseline = "middle";
  for (let slot = 0; slot < r; slot += 1) {
    const at = TOP + slot / r * FULL;
    c.strokeStyle = soft;
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(middle + Math.cos(at) * (inner - 6), middle + Math.sin(at) * (inner - 6));
    c.lineTo(middle + Math.cos(at) * (outer + size * 0.035), middle + Math.sin(at) * (outer + size * 0.035));
    c.stroke();
    const half = at + FULL / r / 2;
    c.fillStyle = soft;
    const [dx, dy] = [Math.cos(half), Math.sin(half)];
    c.textAlign = dx > 0.3 ? "left" : dx < -0.3 ? "right" : "center";
    c.fillText(`replica ${slot}`, middle + dx * size * 0.412, middle + dy * size * (0.412 + 0.02 * Math.abs(dy)));
  }

  c.textAlign = "center";

  const spots = look.marks.map((m) => {
    const at = TOP + m.at * FULL;
    return { ...m, x: middle + Math.cos(at) * (inner - size * 0.03), y: middle + Math.sin(at) * (inner - size * 0.03) };
  });
  const home = spots.find((s) => s.isHome);
  const start = look.start === null ? null : {
    x: middle + Math.cos(TOP + look.start * FULL) * inner, y: middle + Math.sin(TOP + look.start * FULL) * inner,
  };
  const stroke = (from, to, dash) => {
    c.setLineDash(dash);
    c.beginPath();
    c.moveTo(from.x, from.y);
    c.quadraticCurveTo(middle, middle, to.x, to.y);
    c.stroke();
    c.setLineDash([]);
  };
  c.strokeStyle = text;
  c.lineWidth = 2;
  if (home && start) stroke(start, home, []);
  c.lineWidth = 1.5;
  for (const spot of spots) {
    if (home && spot !== home) stroke(home, spot, [6, 5]);
  }
  for (const spot of spots) {
    c.fillStyle = spot.isHome ? text : card;
    c.strokeStyle = text;
    c.lineWidth = 2.5;
    c.beginPath();
    c.arc(spot.x, spot.y, size * 0.014 + 2, 0, FULL);
    c.fill();
    c.stroke();
  }
  if (!spots.length) {
    c.fillStyle = text;
    c.font = `600 ${size / 19}px system-ui, "DejaVu Sans", sans-serif`;
    c.fillText(look.title, middle, middle - size * 0.022);
    c.fillStyle = soft;
    c.font = `${Math.max(11, size / 38)}px system-ui, "DejaVu Sans", sans-serif`;
    c.fillText(look.subtitle, middle, middle + size * 0.035);
  }
}

/** The arc under a point of the canvas, if there is one. */
export function arcAt(canvas, arcs, x, y) {
  const size = canvas.clientWidth, dx = x - size / 2, dy = y - size / 2;
  const distance = Math.hypot(dx, dy);
  if (distance < size * 0.28 || distance > size * 0.41) return null;
  const at = ((Math.atan2(dy, dx) - TOP) / FULL + 1) % 1;
  return arcs.find((a) => a.from <= at && at < a.to) ?? null;
}
