// Line charts of the last hour.

import { bytes, clock, h, rate, s } from "./dom.js";

const WIDTH_MIN = 240, WIDTH_USUAL = 560, HEIGHT = 170, LEFT = 58, RIGHT = 8, TOP = 10, BOTTOM = 22;
const GAP_SPANS = 4;

/** A top of the axis that can be written well, as its half can. */
function niceMax(max, unit) {
  if (unit === bytes) return 2 ** Math.max(1, Math.ceil(Math.log2(max)));
  if (unit === whole) max = Math.max(max, 2);
  if (!(max > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(max));
  return [1, 2, 4, 6, 10].map((n) => n * power).find((n) => n >= max && (unit !== whole || n % 2 === 0));
}

/** A number of the axis: a rate there has no place to be rounded away. */
const axis = (unit, v) => (unit === rate && v < 10 ? String(Number(v.toPrecision(2))) : unit(v));

/** Writes what is counted. */
export const whole = (n) => (n === null ? "–" : Math.round(n).toLocaleString("en"));

/** A chart of series [label, field] of the history's points. `unit` writes a value. */
export function chart(title, series, unit) {
  const svg = s("svg", { role: "img", "aria-label": `${title}: no data yet` });
  const values = series.map(() => h("b"));
  const legend = h("div", { class: "legend" }, series.map(([label], i) =>
    h("span", {}, h("i", { class: `k${i}` }), `${label} `, values[i])));
  const tip = h("div", { class: "tip", hidden: true });
  const element = h("div", { class: "chart" }, svg, legend, tip);
  const cross = s("line", { class: "cross", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" });
  let points = [], from = 0, to = 1, width = WIDTH_USUAL;

  const x = (at) => LEFT + (at - from) / (to - from) * (width - LEFT - RIGHT);

  function update(all) {
    points = all;
    // One unit is one pixel, so that numbers can be read on a small screen, too.
    width = Math.max(WIDTH_MIN, svg.clientWidth || WIDTH_USUAL);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    to = all.length ? all[all.length - 1].at : Date.now();
    from = Math.min(all.length ? all[0].at : to, to - 60000);
    const max = niceMax(Math.max(0, ...all.flatMap((p) => series.map(([, f]) => p[f] ?? 0))), unit);
    const y = (v) => HEIGHT - BOTTOM - v / max * (HEIGHT - TOP - BOTTOM);
    const lines = [0, 0.5, 1].map((part) => [
      s("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y(max * part), y2: y(max * part) }),
      s("text", { x: LEFT - 8, y: y(max * part) + 4, "text-anchor": "end" }, axis(unit, max * part)),
    ]);
    const times = [0, 0.5, 1].map((part) => s("text", {
      x: LEFT + part * (width - LEFT - RIGHT), y: HEIGHT - 5, "text-anchor": ["start", "middle", "end"][part * 2],
    }, clock(from + part * (to - from))));
    const paths = series.map(([, field], i) => {
      let d = "", last = null;
      for (const p of all) {
        const v = p[field];
        if (v === null || v === undefined) { last = null; continue; }
        const isGap = last === null || p.at - last > GAP_SPANS * 5000;
        d += `${isGap ? "M" : "L"}${x(p.at).toFixed(1)} ${y(v).toFixed(1)}${isGap ? "h1.5" : ""}`;
        last = p.at;
      }
      return s("path", { d, class: `k${i}` });
    });
    svg.replaceChildren(...lines.flat(), ...times, ...paths, cross);
    const latest = all[all.length - 1] ?? {};
    series.forEach(([, field], i) => { values[i].textContent = unit(latest[field] ?? null); });
    const said = series.map(([label, field]) => `${label} ${unit(latest[field] ?? null)}`).join(", ");
    svg.setAttribute("aria-label", `${title}, latest: ${said}`);
  }

  svg.addEventListener("pointermove", (e) => {
    if (!points.length) return;
    const box = svg.getBoundingClientRect();
    const at = from + ((e.clientX - box.left) / box.width * width - LEFT) / (width - LEFT - RIGHT) * (to - from);
    const p = points.reduce((best, q) => (Math.abs(q.at - at) < Math.abs(best.at - at) ? q : best));
    cross.setAttribute("x1", x(p.at));
    cross.setAttribute("x2", x(p.at));
    cross.setAttribute("visibility", "visible");
    tip.replaceChildren(clock(p.at), ...series.flatMap(([label, f]) => [h("br"), `${label} ${unit(p[f] ?? null)}`]));
    tip.hidden = false;
    const left = x(p.at) / width * box.width;
    tip.style.left = `${left > box.width / 2 ? Math.max(0, left - tip.offsetWidth - 10) : left + 10}px`;
    tip.style.top = "8px";
  });
  svg.addEventListener("pointerleave", () => {
    tip.hidden = true;
    cross.setAttribute("visibility", "hidden");
  });
  update([]);
  // It ends with the element.
  new ResizeObserver(() => {
    if (svg.clientWidth && Math.max(WIDTH_MIN, svg.clientWidth) !== width) update(points);
  }).observe(element);
  return { element, update };
}
