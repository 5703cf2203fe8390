// The frame: which page is shown, and whether the node still talks.

import { h, text } from "./dom.js";
import { colour, live, watch } from "./live.js";
import { overview } from "./overview.js";
import { ring } from "./ring.js";
import { keys } from "./keys.js";
import { node } from "./node.js";
import { metrics } from "./metrics.js";
import { transactions } from "./transactions.js";

const PAGES = { overview, ring, keys, transactions, node, metrics };
const main = document.getElementById("main");
const connection = document.getElementById("connection");
const banner = document.getElementById("banner");
let close = null;

function show(isFirst) {
  const name = location.hash.slice(1).split("/")[0];
  const page = PAGES[name] ?? overview;
  if (name && !PAGES[name]) {
    if (name === "main") return main.focus();
  }
  close?.();
  const shown = page();
  close = shown.close;
  main.replaceChildren(shown.element);
  for (const a of document.querySelectorAll("nav a")) {
    if (PAGES[a.hash.slice(1)] === page) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  document.title = `${page.title} – kvnode`;
  if (!isFirst) main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function otherNodes() {
  const others = (live.state?.members ?? []).filter((m) => !m.is_self && m.state === "alive" && m.client_address);
  return others.slice(0, 5).flatMap((m) => [" ", h("a", { href: `http:${"//"}${m.client_address}/` }, m.client_address)]);
}

function connectionChanged() {
  const status = live.state?.status;
  const isGone = !live.isConnected && live.state !== null;
  text(connection, live.isConnected ? "live" : isGone ? "no answer" : "connecting");
  connection.className = live.isConnected ? "good" : isGone ? "bad" : "";
  if (status) text(document.getElementById("address"), status.address);
  if (isGone && banner.hidden) {
    const others = otherNodes();
    banner.replaceChildren("This node does not answer; what you see is what it said last.", ...(others.length ? [" Other nodes:", ...others] : []));
  }
  if (banner.hidden === isGone) banner.hidden = !isGone;
}

watch((what) => {
  for (const m of live.state?.members ?? []) colour(m.node);
  if (what === "state" || what === "connection") connectionChanged();
});
window.addEventListener("hashchange", () => show(false));
show(true);
