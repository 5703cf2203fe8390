// What the node tells: the latest of everything, and whoever wants to hear of it.

export const live = { state: null, ring: null, feed: [], isConnected: false };

const listeners = new Set();

/** Calls f now and whenever something changes, until the returned function is called. */
export function watch(f) {
  listeners.add(f);
  return () => listeners.delete(f);
}

function tell(what) {
  for (const f of listeners) f(what);
}

// A browser keeps few connections to one node, and each stream takes one: tabs that nobody sees let theirs go.
const HIDDEN_TIME = 2000;
let source = null, hiding = 0;

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (!document.hidden) {
    if (!source) connect();
    return;
  }
  hiding = setTimeout(() => {
    source?.close();
    source = null;
  }, HIDDEN_TIME);
});

function connect() {
  const opened = new EventSource("/events");
  source = opened;
  opened.addEventListener("state", (e) => {
    // The members of a large ring come less often than the rest.
    live.state = { ...live.state, ...JSON.parse(e.data) };
    live.isConnected = true;
    tell("state");
  });
  opened.addEventListener("ring", (e) => {
    live.ring = JSON.parse(e.data);
    tell("ring");
  });
  opened.addEventListener("feed", (e) => {
    const known = live.feed.length ? live.feed[live.feed.length - 1].number : 0;
    live.feed = [...live.feed, ...JSON.parse(e.data).filter((x) => x.number > known)].slice(-200);
    tell("feed");
  });
  opened.addEventListener("error", () => {
    live.isConnected = false;
    tell("connection");
    // A browser gives up where the node answered with an error, as one that is full of viewers does.
    if (opened.readyState === EventSource.CLOSED) setTimeout(() => { if (source === opened) connect(); }, 2000);
  });
  opened.addEventListener("open", () => {
    // Another process at the same address counts its events anew.
    live.feed = [];
  });
}

connect();

const colours = new Map();

/** A node's colour, a class from k0 to k11: the same on all pages for as long as the page is open. */
export function colour(node) {
  if (!node || node === "-") return "";
  if (!colours.has(node)) colours.set(node, colours.size % 12);
  return `k${colours.get(node)}`;
}
