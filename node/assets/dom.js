// Small helpers for building pages. Text always goes in as text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.setAttribute("class", value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** An HTML element: properties that begin with "on" are listeners, all else are attributes. */
export const h = (tag, props, ...children) => fill(document.createElement(tag), props, children);

/** The same for SVG. */
export const s = (tag, props, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/** Changes the text only where it differs, so that selections and screen readers are left alone. */
export function text(element, value) {
  const shown = String(value);
  if (element.textContent !== shown) element.textContent = shown;
}

/** A table with a caption for screen readers. Columns are [title, class]. */
export function table(caption, columns) {
  const body = h("tbody");
  const head = h("tr", {}, columns.map(([title, cls]) => h("th", { scope: "col", class: cls }, title)));
  const element = h("table", { "aria-label": caption }, h("thead", {}, head), body);
  return { element, head, body };
}

/** Brings a cell up to date: { text, href, dot, badge, cls, title } or only its text. */
export function patchCell(td, cell) {
  const { text: value, href, dot, badge, cls, title, make, mark: made } = typeof cell === "object" ? cell : { text: cell };
  const mark = JSON.stringify([value, href, dot, badge, cls, title, made]);
  if (td.dataset.mark === mark) return;
  td.dataset.mark = mark;
  td.className = cls ?? "";
  td.title = title ?? "";
  const inner = make ? make() : badge ? h("span", { class: `badge ${badge}` }, value) : href ? h("a", { href }, value) : value;
  td.replaceChildren(...(dot === undefined ? [] : [h("span", { class: `dot ${dot}` })]), inner);
}

/** Brings the rows of a table up to date: rows are { key, cells, ...listeners }; those that stay keep the focus. */
export function patchRows(body, rows) {
  const old = new Map([...body.children].map((tr) => [tr.dataset.key, tr]));
  rows.forEach((row, i) => {
    let tr = old.get(row.key);
    old.delete(row.key);
    if (!tr) {
      tr = h("tr", { "data-key": row.key });
      row.made?.(tr);
    }
    if (tr.className !== (row.cls ?? "")) tr.className = row.cls ?? "";
    while (tr.children.length < row.cells.length) tr.append(h("td"));
    row.cells.forEach((cell, j) => patchCell(tr.children[j], cell));
    if (body.children[i] !== tr) body.insertBefore(tr, body.children[i] ?? null);
  });
  old.forEach((tr) => tr.remove());
}

// What is invisible, or turns the writing around it: as the node's own messages show it.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A key as it can be read without doubt. */
export const shown = (key) => key.replace(UNSEEN, (c) => `\\u{${c.charCodeAt(0).toString(16)}}`);

export const plural = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (n >= 1024 && i < units.length - 1) { n /= 1024; i += 1; }
  return `${i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

export function micros(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return `${us} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e4 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(1)} s`;
}

export function rate(n) {
  if (n === null || n === undefined) return "–";
  if (n >= 1000) return Math.round(n).toLocaleString("en");
  if (n > 0 && n < 0.05) return "< 0.1";
  return n === 0 || n >= 10 ? String(Math.round(n)) : n.toFixed(1);
}

export function span(seconds) {
  const days = Math.floor(seconds / 86400), hours = Math.floor(seconds / 3600) % 24;
  const minutes = Math.floor(seconds / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

/** Whether nobody is there any more. */
export const isGone = (m) => m.state === "dead" || m.state === "left";

export const TONES = { alive: "good", leaving: "note", left: "", suspected: "bad", dead: "bad" };

/** Does one thing of a form at a time, and says so where it takes long. */
export async function during(form, out, words, work) {
  if (form.ariaBusy === "true") return;
  form.ariaBusy = "true";
  const timer = setTimeout(() => out.replaceChildren(h("p", { class: "soft" }, words)), 300);
  try {
    await work();
  } finally {
    clearTimeout(timer);
    form.ariaBusy = "false";
  }
}

/** Asks this node. Errors of the node come back as { error }, as does not reaching it. */
export async function ask(verb, body) {
  try {
    const options = body === undefined ? {} : {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
    };
    return await (await fetch(`/ui/api/${verb}`, options)).json();
  } catch (e) {
    const cause = String(e.message ?? e);
    return { error: { message: "this node does not answer", cause, fix: "open another node's dashboard" } };
  }
}

/** An error of the node, as a message with its cause and fix. */
export function errorBox(e) {
  return h("div", { class: "said bad", role: "alert" }, h("strong", {}, `${e.code ? `${e.code}: ` : ""}${e.message}`),
    h("p", {}, e.cause), h("p", {}, `What to do: ${e.fix}`));
}
