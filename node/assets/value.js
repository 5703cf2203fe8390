// Typed values: fields to enter one, and how one is shown.

import { h } from "./dom.js";

const TYPES = [
  ["string", "text"], ["integer", "integer"], ["double", "double"], ["bool", "true / false"],
  ["json", "list or object (JSON)"], ["bytes", "bytes (base64)"], ["null", "null"],
];

let count = 0;

/** Fields for a typed value. */
export function valueFields(kind, value) {
  count += 1;
  const type = h("select", { id: `type-${count}` }, TYPES.map(([v, name]) => h("option", { value: v }, name)));
  const area = h("textarea", { id: `value-${count}`, spellcheck: "false" });
  const box = h("div", { class: "grow" }, h("label", { for: area.id }, "Value"), area);
  const fit = () => { box.hidden = type.value === "null"; };
  const setType = (kind) => { type.value = kind; fit(); };
  type.addEventListener("change", fit);
  area.value = value;
  setType(kind);
  return {
    element: h("div", { class: "row top" }, h("div", { class: "type" }, h("label", { for: type.id }, "Type"), type), box),
    setType,
    fill: (v) => { area.value = v.text; setType(v.type); },
    read: () => ({ type: type.value, text: type.value === "null" ? "null" : area.value }),
  };
}

export const valueBox = (v) => (v === null
  ? h("p", { class: "soft" }, "The key is not there.")
  : h("div", {}, h("p", { class: "soft small" }, `${v.type}, ${v.bytes.toLocaleString("en")} bytes encoded`),
    h("pre", { class: "value", tabindex: "0", "aria-label": "Value" }, v.text),
    v.whole ? null : h("p", { class: "soft small" }, "Shown in part: too long for a page.")));

export const said = (tone, ...words) => h("div", { class: `said ${tone}`, role: "status" }, ...words);
