"""The dashboard in Chromium. Arguments: a folder for screenshots, the program, a free address, a node of a large ring, three nodes as ADDRESS=PID."""

import math
import os
import re
import signal
import subprocess
import sys
import time

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

SORTS = ["Node", "State", "Share", "Keys", "Data", "Round trip"]
PAGES = ["overview", "ring", "keys", "transactions", "node", "metrics"]
SIZES = {"wide": (1280, 860), "small": (420, 860)}
HOSTILE = "\"'><img src=x onerror=window.owned=1><script>window.owned=1</script>{{7*7}}\u202e"
# Times are printed; a test fails only where they are this many times what they should be: machines are noisy.
NOISE = 5
DRAW_MILLISECONDS_MAX = 200 * NOISE
# While the pointer moves: half of the frames, and 95 of 100.
FRAME_MILLISECONDS_MAX = (34 * NOISE, 150 * NOISE)

screens, program, spare, large, *given = sys.argv[1:]
nodes = [(n.split("=")[0], int(n.split("=")[1])) for n in given]
problems = []
started = []


def is_bad(message):
    # A conflict is an answer of its own, which Chromium reports as a resource that failed.
    return message.type == "error" and "status of 409" not in message.text


def watched(context, address, page="overview"):
    tab = context.new_page()
    tab.on("pageerror", lambda e: problems.append(f"page error: {e}"))
    tab.on("console", lambda m: problems.append(f"console: {m.text}") if is_bad(m) else None)
    # Requests must not leave the node.
    tab.on("request", lambda r: None if r.url.startswith(f"http://{address}/") else problems.append(f"request {r.url}"))
    tab.goto(f"http://{address}/#{page}")
    expect(tab.locator("#connection")).to_have_text("live")
    return tab


def go(tab, page):
    tab.click(f"nav a[href='#{page}']")
    expect(tab.locator(f"nav a[href='#{page}']")).to_have_attribute("aria-current", "page")


def look_up(tab, key):
    tab.fill("#key", key)
    tab.get_by_role("button", name="Look up").click()


def add(tab, key, value, kind="string"):
    form = tab.locator("form", has=tab.locator("#add-key"))
    form.locator("#add-key").fill(key)
    form.locator("select").select_option(kind)
    form.locator("textarea").fill(value)
    form.get_by_role("button", name="Add").click()


def keys_on_two_nodes(context):
    a, b = watched(context, nodes[0][0], "keys"), watched(context, nodes[1][0], "keys")
    add(a, "greeting", "hello")
    expect(a.get_by_text("Added")).to_be_visible()
    look_up(b, "greeting")
    expect(b.locator("section.card pre.value").first).to_have_text("hello")
    rows = b.get_by_role("table", name="Replicas").locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.filter(has_text="the value").first).to_be_visible()
    # Adding it again shows what is there and writes nothing.
    add(b, "greeting", "mine")
    expect(b.get_by_text("Conflict: nothing was written.")).to_be_visible()
    # A number beyond what a browser can count.
    add(a, "big", "123456789012345678901234567890", "integer")
    look_up(b, "big")
    expect(b.locator("section.card pre.value").first).to_have_text("123456789012345678901234567890")
    print("keys: added on one node's page, read on another's")
    return a, b


def conflict(a, b):
    for tab in (a, b):
        look_up(tab, "greeting")
        expect(tab.locator("form textarea").nth(1)).to_have_value("hello")
    a.locator("form textarea").nth(1).fill("from a")
    a.get_by_role("button", name="Save if unchanged").click()
    expect(a.get_by_text("Saved.")).to_be_visible()
    b.locator("form textarea").nth(1).fill("from b")
    b.get_by_role("button", name="Save if unchanged").click()
    box = b.locator("section.card .conflict")
    expect(box).to_contain_text("from a")
    expect(box).to_contain_text("from b")
    b.screenshot(path=os.path.join(screens, "conflict.png"), full_page=True)
    look_up(a, "greeting")
    expect(a.locator("section.card pre.value").first).to_have_text("from a")
    box.get_by_role("button", name="Take what is there").click()
    expect(b.locator("form textarea").nth(1)).to_have_value("from a")
    b.get_by_role("button", name="Delete if unchanged").click()
    expect(b.get_by_text("Deleted.")).to_be_visible()
    expect(b.get_by_text("The key is not there.")).to_be_visible()
    print("conflict: shown in the second tab, nothing written over")


def hostile(a, b):
    add(a, HOSTILE, HOSTILE)
    expect(a.get_by_text("Added")).to_be_visible()
    # What turns the writing around is written out, so that no key looks like another.
    expect(a.locator("section.card h2 code")).to_contain_text("{{7*7}}\\u{202e}")
    look_up(b, HOSTILE)
    expect(b.locator("section.card pre.value").first).to_contain_text("onerror")
    go(b, "ring")
    b.fill("#find", HOSTILE)
    expect(b.get_by_text(re.compile("home")).first).to_be_visible()
    for tab in (a, b):
        assert tab.evaluate("window.owned") is None, "a hostile value ran a script"
        assert tab.locator("main img").count() == 0, "a hostile value became an element"
    go(b, "keys")
    print("hostile keys and values: no script ran")


def held_by_all(context):
    """Three nodes hold three replicas: each node's page tells the same number of keys for all of them, not its own only."""
    tab = watched(context, nodes[0][0], "ring")
    cells = tab.get_by_role("table", name="Nodes of the ring").locator("tbody td:nth-child(4)")
    expect(cells).to_have_count(3)
    own = tab.evaluate("import('/ui/live.js').then(m => m.live.state.status.keys)")
    assert own > 3, f"only {own} keys"
    expect(cells).to_have_text([str(own)] * 3, timeout=20000)
    tab.close()
    print(f"each of three nodes is shown with all {own} keys")


def alive(context):
    """What a node sees is shown within a second."""
    tab = watched(context, nodes[0][0])
    gaps = tab.evaluate(
        """async () => {
        const { watch } = await import('/ui/live.js');
        const times = [];
        const stop = watch((what) => { if (what === 'state') times.push(performance.now()); });
        await new Promise((done) => setTimeout(done, 6000));
        stop();
        return times.slice(1).map((t, i) => t - times[i]);
      }"""
    )
    assert len(gaps) > 1, f"{len(gaps)} states in six seconds"
    assert max(gaps) < 1000 * NOISE, f"a state came after {max(gaps):.0f} ms"
    tab.goto(f"http://{nodes[0][0]}/ring.yaws")
    expect(tab.locator("h1")).to_have_text("Ring")
    tab.close()
    print(f"live: a state at least every {max(gaps):.0f} ms; Scalaris' /ring.yaws leads to the ring")


def part(form, number, key, verb, value=None, kind=None):
    row = form.locator(".part").nth(number)
    row.get_by_label("Key", exact=True).fill(key)
    row.get_by_label("What to do").select_option(verb)
    if kind:
        row.get_by_label("Type").select_option(kind)
    if value is not None:
        row.get_by_role("textbox", name="Value").fill(value)


def several_at_once(a, b):
    """A transfer between two keys, a conflict of two tabs, and the page that tells of both."""
    form = a.locator("#transact")
    part(form, 0, "from", "put", "100", "integer")
    part(form, 1, "to", "put", "0", "integer")
    form.get_by_role("button", name="Commit").click()
    expect(form.get_by_text("Committed: 2 operations")).to_be_visible()
    part(form, 0, "from", "add", "-30")
    part(form, 1, "to", "add", "30")
    form.get_by_role("button", name="Commit").click()
    expect(form.get_by_text("Committed: 2 operations")).to_be_visible()
    look_up(b, "to")
    expect(b.locator("section.card pre.value").first).to_have_text("30")
    # What was read is changed by another tab before it is committed.
    part(form, 0, "from", "get")
    part(form, 1, "to", "get")
    form.get_by_role("button", name="Read", exact=True).click()
    expect(form.locator(".seen pre.value")).to_have_text(["70", "30"])
    form.locator(".part").nth(1).get_by_label("What to do").select_option("put")
    form.locator(".part").nth(1).get_by_role("textbox", name="Value").fill("1000")
    b.locator("form textarea").nth(1).fill("31")
    b.get_by_role("button", name="Save if unchanged").click()
    expect(b.get_by_text("Saved.")).to_be_visible()
    form.get_by_role("button", name="Commit").click()
    box = form.locator(".conflict")
    expect(box).to_contain_text("nothing was written")
    expect(box.locator("code")).to_have_text("to")
    look_up(b, "to")
    expect(b.locator("section.card pre.value").first).to_have_text("31")
    box.get_by_role("button", name="Read again").click()
    expect(form.locator(".seen pre.value")).to_have_text(["70", "31"])
    # A sum with what is no number fails as a whole.
    add(b, "words", "hello")
    expect(b.get_by_text("Added")).to_be_visible()
    part(form, 0, "from", "put", "0", "integer")
    part(form, 1, "words", "add", "5")
    form.get_by_role("button", name="Commit").click()
    expect(form.get_by_text("Not committed")).to_be_visible()
    look_up(b, "from")
    expect(b.locator("section.card pre.value").first).to_have_text("70")
    go(a, "transactions")
    table = a.get_by_role("table", name="Transactions, newest first").locator("tbody tr")
    expect(table.filter(has_text="committed").filter(has_text="writes from, to").first).to_contain_text("decide")
    expect(table.filter(has_text="conflict").first).to_contain_text("others changed or held its keys: to")
    expect(table.filter(has_text="the operation on words failed").first).to_be_visible()
    hot = a.get_by_role("table", name="Hot keys").locator("tbody tr")
    expect(hot.filter(has_text="from").first).to_be_visible()
    a.get_by_label("Show").select_option("troubled")
    expect(table.filter(has_text="decide")).to_have_count(0)
    # Another node tells of it some seconds later.
    go(b, "transactions")
    rows = b.get_by_role("table", name="Transactions, newest first").locator("tbody tr")
    expect(rows.filter(has_text="others changed or held its keys").first).to_be_visible(timeout=20000)
    for tab in (a, b):
        go(tab, "keys")
    print("transactions: committed, a conflict and a failure, nothing in part; shown on two nodes' pages")


def look_at_all(browser):
    findings = 0
    for scheme in ("light", "dark"):
        for size, (width, height) in SIZES.items():
            context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
            for page in PAGES:
                tab = watched(context, nodes[0][0], page)
                tab.wait_for_timeout(300)
                if page == "keys":
                    look_up(tab, "big")
                    expect(tab.get_by_role("table", name="Replicas")).to_be_visible()
                if page == "ring":
                    tab.fill("#find", "big")
                    expect(tab.get_by_text(re.compile("replica 2")).first).to_be_visible()
                wide = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
                if wide > 0:
                    problems.append(f"{page} {size} {scheme}: {wide} px wider than the window")
                tab.screenshot(path=os.path.join(screens, f"{page}-{scheme}-{size}.png"), full_page=True)
                for v in Axe().run(tab).response["violations"]:
                    findings += 1
                    at = v["nodes"][0]
                    problems.append(f"axe: {page} {size} {scheme}: {v['id']}: {at['html'][:150]}: {at['failureSummary'][:200]}")
                tab.close()
            context.close()
    print(f"accessibility: {findings} findings on {len(PAGES)} pages at two sizes, light and dark")


def by_keyboard(context):
    tab = watched(context, nodes[0][0])
    tab.keyboard.press("Tab")
    expect(tab.locator(".skip")).to_be_focused()
    for _ in range(3):
        tab.keyboard.press("Tab")
    expect(tab.locator("nav a[href='#keys']")).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("h1")).to_have_text("Keys")
    tab.focus("#key")
    tab.keyboard.type("big")
    tab.keyboard.press("Enter")
    expect(tab.locator("section.card pre.value").first).to_have_text("123456789012345678901234567890")
    tab.keyboard.press("Control+Home")
    tab.locator("nav a[href='#ring']").focus()
    tab.keyboard.press("Enter")
    # The table of the nodes is one stop; the arrow keys go through it, and the picture shows who is meant.
    rows = tab.get_by_role("table", name="Nodes of the ring").locator("tbody tr")
    expect(rows).to_have_count(3)
    tab.get_by_role("region", name="Nodes").focus()
    for _ in range(len(SORTS) + 1):
        tab.keyboard.press("Tab")
    expect(rows.nth(0)).to_be_focused()
    tab.keyboard.press("ArrowDown")
    expect(rows.nth(1)).to_be_focused()
    expect(rows.nth(1)).to_have_class("chosen")
    expect(rows.nth(0)).to_contain_text("partner")
    tab.keyboard.press("Tab")
    expect(rows.nth(2)).not_to_be_focused()
    tab.close()
    print("keyboard: from the first page to a key's value, and through the ring")


def large_ring(context):
    """The page of a node that sees 1 000 members, by its own stream of events."""
    firsts = []
    for _ in range(3):
        tab = watched(context, large, "ring")
        expect(tab.get_by_role("table", name="Nodes of the ring").locator("tbody tr")).to_have_count(1000)
        firsts.append(tab.evaluate("Number(document.getElementById('picture').dataset.first)"))
        if len(firsts) < 3:
            tab.close()
    canvas = tab.locator("#picture")
    # From the ring and its members as text to the last stroke, a dozen times.
    took = tab.evaluate(
        """async () => {
        const { live } = await import('/ui/live.js');
        const { arcsOf } = await import('/ui/picture.js');
        const canvas = document.getElementById('picture');
        const told = [JSON.stringify(live.ring), JSON.stringify(live.state)];
        const times = [];
        for (let i = 0; i < 12; i += 1) {
          const began = performance.now();
          arcsOf(JSON.parse(told[0]));
          JSON.parse(told[1]);
          const read = performance.now() - began;
          delete canvas.dataset.took;
          window.dispatchEvent(new Event('resize'));
          while (!canvas.dataset.took) await new Promise(requestAnimationFrame);
          times.push(read + Number(canvas.dataset.took));
        }
        return times;
      }"""
    )
    box = canvas.bounding_box()
    middle, radius = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), box["width"] * 0.34
    # Moving over the ring, and the events of some seconds: no frame may wait long.
    frames = tab.evaluate_handle(
        """() => { const all = []; let last = performance.now();
        const next = (now) => { all.push(now - last); last = now; requestAnimationFrame(next); };
        requestAnimationFrame(next); return all; }"""
    )
    for i in range(90):
        angle = i / 90 * 6.283
        tab.mouse.move(middle[0] + radius * math.cos(angle), middle[1] + radius * math.sin(angle))
        tab.wait_for_timeout(20)
    waits = sorted(frames.evaluate("all => all.slice(1)"))
    tab.screenshot(path=os.path.join(screens, "ring-1000.png"))
    first, usual = sorted(firsts)[1], sorted(took)[len(took) // 2]
    slow, half = waits[int(len(waits) * 0.95)], waits[len(waits) // 2]
    print(f"a ring of 1 000 nodes: drawn in {usual:.0f} ms, when its page is opened in {', '.join(f'{f:.0f}' for f in firsts)} ms; "
          f"frames while the pointer moves: half within {half:.0f} ms, 95 of 100 within {slow:.0f} ms")
    assert max(first, usual) < DRAW_MILLISECONDS_MAX, f"1 000 nodes took {first:.0f} ms at first and {usual:.0f} ms then"
    assert half < FRAME_MILLISECONDS_MAX[0], f"half of the frames waited {half:.0f} ms"
    assert slow < FRAME_MILLISECONDS_MAX[1], f"5 of 100 frames waited {slow:.0f} ms"
    tab.close()


def one_dies(context):
    tab = watched(context, nodes[0][0])
    expect(tab.locator("#sentence")).to_have_text("3 nodes, 3 replicas, can lose 1 node")
    began = time.monotonic()
    os.kill(nodes[2][1], signal.SIGKILL)
    expect(tab.locator(".health.bad")).to_be_visible(timeout=8000)
    seen = time.monotonic() - began
    tab.screenshot(path=os.path.join(screens, "overview-node-dead.png"), full_page=True)
    go(tab, "ring")
    tab.screenshot(path=os.path.join(screens, "ring-node-dead.png"), full_page=True)
    go(tab, "overview")
    expect(tab.locator("#sentence")).to_have_text("2 nodes, 3 replicas, can lose 0 nodes", timeout=20000)
    feed = tab.get_by_role("list", name="Events, newest first")
    expect(feed.get_by_text("counts as dead").first).to_be_visible(timeout=20000)
    began = time.monotonic()
    join = nodes[0][0].split(":")[0]
    quiet = subprocess.DEVNULL
    started.append(subprocess.Popen([program, "--listen", spare, "--join", join], stdout=quiet, stderr=quiet))
    expect(tab.locator("#sentence")).to_have_text("3 nodes, 3 replicas, can lose 1 node", timeout=20000)
    expect(tab.locator(".health.bad")).to_have_count(0)
    healed = time.monotonic() - began
    # The hour of the one that has gone is still there.
    go(tab, "metrics")
    choice = tab.locator("#of-node")
    expect(choice.locator("option", has_text=nodes[2][0].split(":")[0])).not_to_have_count(0)
    choice.select_option(index=[nodes[2][0].split(":")[0] in t for t in choice.locator("option").all_inner_texts()].index(True))
    expect(tab.locator(".chart svg").last).to_have_attribute("aria-label", re.compile("latest: nodes [01]"))
    print(f"a node dies: shown after {seen:.1f} s; another starts: healed after {healed:.1f} s, without reload")
    go(tab, "keys")
    look_up(tab, "big")
    expect(tab.locator("section.card pre.value").first).to_have_text("123456789012345678901234567890")
    tab.close()


def drain(context):
    other, tab = watched(context, nodes[0][0]), watched(context, nodes[1][0], "node")
    tab.get_by_role("button", name="Drain this node").click()
    tab.screenshot(path=os.path.join(screens, "drain.png"))
    tab.get_by_role("button", name="Stay").click()
    tab.get_by_role("button", name="Drain this node").click()
    tab.get_by_role("button", name="Hand over and leave").click()
    expect(tab.get_by_text("has handed over everything")).to_be_visible(timeout=20000)
    expect(other.locator("#sentence")).to_contain_text("2 nodes,", timeout=20000)
    go(other, "keys")
    look_up(other, "big")
    expect(other.locator("section.card pre.value").first).to_have_text("123456789012345678901234567890")
    print("a node is drained from its page; nothing is lost")


def main():
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1280, "height": 860})
        context.set_default_timeout(10000)
        expect.set_options(timeout=10000)
        a, b = keys_on_two_nodes(context)
        conflict(a, b)
        several_at_once(a, b)
        hostile(a, b)
        a.close()
        b.close()
        held_by_all(context)
        alive(context)
        by_keyboard(context)
        look_at_all(browser)
        large_ring(context)
        one_dies(context)
        drain(context)
        browser.close()
    if problems:
        sys.exit("\n".join(dict.fromkeys(problems)))


try:
    main()
finally:
    for process in started:
        process.kill()
        process.wait()
