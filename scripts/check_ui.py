#!/usr/bin/env python3
"""Opens the page of `palinode ui` in Chromium and uses it as a reader would, with the keyboard alone.

    python3 scripts/check_ui.py target/release/palinode STORE pipelines/demo.yaml [screenshots/]

STORE is one in which the pipeline ran; its stage `moments` runs again, to be watched. It needs a `chromium` on the path and nothing else, as check_report.py does.
Checked are: that the link opens the page once and leaves nothing in the address; no error, and no request to anyone else; nothing wider
than the window at 390 and 1280 pixels; that all that can be pressed has a name and a role, that headings, landmarks and captions are there, and
that changes are said; that the table sorts and filters, that runs are put side by side, that a stage opens, that a model answers, and that a run is watched as it goes. With a
folder, screenshots are left there for a person to look at: each view at both widths, light and dark.
"""

import pathlib
import subprocess
import sys
import tempfile
import time

import check_report
from check_report import Browser, PageLeft, expect

check_report.WIDTHS[390] = 844
WIDTHS = [390, 1280]


def wait(browser, expression, seconds=60):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if browser.js(expression):
                return True
        except PageLeft:
            # The link of the start leads on to the page itself: the next question goes to that one.
            pass
        time.sleep(0.05)
    return False


def key(browser, name, code, text="", modifiers=0):
    virtual = {"Tab": 9, "Enter": 13, " ": 32, "Escape": 27}[name]
    press = {"key": name, "code": code, "windowsVirtualKeyCode": virtual, "modifiers": modifiers}
    browser.call("Input.dispatchKeyEvent", type="keyDown", text=text, **press)
    browser.call("Input.dispatchKeyEvent", type="keyUp", **press)


def tab(browser):
    key(browser, "Tab", "Tab")


def enter(browser):
    key(browser, "Enter", "Enter", "\r")


def tab_to(browser, identity, most=80):
    for _ in range(most):
        tab(browser)
        if browser.js("document.activeElement?.id") == identity:
            return True
    return False


def type_in(browser, text):
    browser.call("Input.insertText", text=text)


def check_quiet(browser, origin, where):
    def trouble(event):
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            return params["exceptionDetails"].get("exception", {}).get("description") or params["exceptionDetails"].get("text")
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            return params["entry"]["text"]
        if event.get("method") == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith((origin, "data:")):
                return "asks for " + url
        return None

    found = [text for text in map(trouble, browser.events) if text]
    expect(f"{where}: no error, and nobody else is asked", not found, found)
    browser.events.clear()


def check_widths(browser, where):
    for width in WIDTHS:
        browser.window(width)
        wide = browser.js("document.documentElement.scrollWidth")
        expect(f"{where}: fits into {width} pixels", wide <= width, f"{wide} wide")
    browser.window(1280)


def check_names(browser, where):
    """What a screen reader is told."""
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    value = lambda node, field: (node.get(field) or {}).get("value") or ""
    seen = [node for node in nodes if not node.get("ignored")]
    pressed = {"button", "link", "checkbox", "textbox", "searchbox", "combobox", "spinbutton", "progressbar", "region", "image", "img"}
    nameless = [value(node, "role") for node in seen if value(node, "role") in pressed and not value(node, "name")]
    expect(f"{where}: all that can be pressed or seen has a name", not nameless, nameless)
    roles = {value(node, "role") for node in seen}
    expect(f"{where}: landmarks", {"banner", "main", "navigation", "heading"} <= roles, sorted(roles))
    levels = browser.js("[...document.querySelectorAll('main h1, main h2, main h3, main h4')].map((h) => Number(h.tagName[1]))")
    jumps = [(a, b) for a, b in zip(levels, levels[1:]) if b > a + 1]
    expect(f"{where}: one first heading, and none left out", levels[:1] == [1] and levels.count(1) == 1 and not jumps, levels)
    tables = browser.js("[...document.querySelectorAll('main table')].every((t) => t.caption || t.closest('details'))")
    expect(f"{where}: tables have captions", tables)
    contrast = browser.js(CONTRAST)
    expect(f"{where}: texts stand out from their ground (4.5 to 1)", not contrast, contrast)


CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (/^rgb\\(/.test(c)) return parse(c); } return [255, 255, 255]; };
  const low = [];
  document.getAnimations().forEach((a) => a.cancel());
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.getClientRects().length || e.closest('svg, :disabled')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(e.textContent.trim().slice(0, 20) + ' ' + ratio.toFixed(2));
  }
  return low.slice(0, 5).join('; ');
})()"""


def check_start(browser, link):
    browser.window(1280)
    browser.open(link)
    there = wait(browser, "location.pathname === '/' && !!document.querySelector('main h1')")
    expect("the link opens the page", there, browser.js("document.body.innerText"))
    expect("the address keeps nothing of it", browser.js("!location.href.includes('start') && !document.cookie"))


def check_used(browser, link):
    browser.open("about:blank")
    browser.open(link)
    again = wait(browser, "document.body.innerText.includes('used already')", 10)
    expect("a link that was used opens nothing", again, browser.js("document.body.innerText"))


def go(browser, link, hash, ready):
    browser.js(f"location.hash = {hash!r}")
    return wait(browser, ready)


def check_runs(browser):
    expect("runs are listed", wait(browser, "document.querySelectorAll('table.runs tbody tr').length > 1"))
    tab(browser)
    expect("the first stop is the way past the header", browser.js("document.activeElement.id") == "skip")
    expect("the filter is reached by the keyboard", tab_to(browser, "q"))
    rows = browser.js("document.querySelectorAll('table.runs tbody tr').length")
    type_in(browser, "nothingofthekind")
    expect("words filter", browser.js("document.querySelectorAll('table.runs tbody tr').length") == 0)
    browser.js("q.value = ''; q.dispatchEvent(new Event('input'))")
    type_in(browser, "took>=0 state=done")
    expect("comparisons filter", 0 < browser.js("document.querySelectorAll('table.runs tbody tr').length") <= rows)
    expect("the address keeps the filter", "took" in browser.js("location.hash"))
    browser.js("q.value = ''; q.dispatchEvent(new Event('input'))")
    type_in(browser, "nosuch>1")
    expect("a column that is not there is told", "no column nosuch" in browser.js("document.querySelector('#list').innerText"))
    browser.js("q.value = ''; q.dispatchEvent(new Event('input'))")
    expect("a heading is reached by the keyboard", tab_to(browser, "sort-took"))
    enter(browser)
    sorted_ = browser.js("document.activeElement.id === 'sort-took' && document.activeElement.closest('th').getAttribute('aria-sort')")
    expect("a heading sorts, is told, and keeps the focus", sorted_ == "descending", sorted_)
    expect("that is said", "sorted by took" in browser.js("said.textContent"))
    boxes = browser.js("[...document.querySelectorAll('table.runs input')].slice(0, 3).map((box) => box.id)")
    for box in boxes:
        expect(f"{box} is reached by the keyboard", tab_to(browser, box))
        key(browser, " ", "Space", " ")
    browser.js("document.getElementById('side').focus()")
    enter(browser)
    expect("runs stand side by side", wait(browser, "!!document.querySelector('#beside table')"))


def check_run(browser):
    browser.js("document.querySelector('table.runs tbody a').focus()")
    enter(browser)
    expect("a run opens", wait(browser, "location.hash.startsWith('#/run/') && !!document.querySelector('[id=stage-0]')"))
    expect("the focus is at its beginning", browser.js("document.activeElement.id") == "main")
    expect("a stage is reached by the keyboard", tab_to(browser, "stage-0"))
    enter(browser)
    opened = wait(browser, "document.activeElement.getAttribute('aria-expanded') === 'true' && !!document.getElementById('stage-title')")
    expect("a stage opens, and the focus stays", opened)
    expect("there is a report", browser.js("(async () => (await fetch(document.querySelector('a[href$=\"/report\"]').href)).status)()") == 200)


def check_ask(browser):
    go(browser, None, "#/ask", "!!document.getElementById('prompts')")
    expect("the prompts are reached by the keyboard", tab_to(browser, "prompts"))
    type_in(browser, "Finland is located in the continent of\nNorway is located in the continent of")
    expect("the button is reached by the keyboard", tab_to(browser, "ask"))
    enter(browser)
    answered = wait(browser, "document.querySelectorAll('#answers .said').length >= 2", 120)
    expect("a model answers, before and after", answered, browser.js("document.getElementById('main').innerText"))
    expect("that is said", wait(browser, "said.textContent.includes('answers are there')", 10), browser.js("said.textContent"))


SIDE = """(async () => {
  const { arms } = await (await fetch('/api/runs')).json();
  const boxes = arms.slice(0, 4).map((arm, at) => arm.run + '.' + arms.slice(0, at).filter((other) => other.run === arm.run).length);
  return '#/runs?side=1&chosen=' + boxes.join(',');
})()"""


def check_live(browser, program, store, pipeline):
    """A run that goes on while the page is open."""
    before = browser.js("(async () => (await (await fetch('/api/runs')).json()).runs[0].run)()")
    # Long enough to be looked at, on any machine.
    longer = ["--set", "stages.targets.with.steps=300", "--set", "stages.targets.with.stop_loss=0"]
    command = [program, "run", pipeline, "--store", store, "--until", "targets", "--no-preflight", "--quiet", *longer]
    run = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        go(browser, None, "#/runs", "!!document.querySelector('#work a')")
        expect("a run that begins is shown by itself", browser.js("!!document.querySelector('#work a')"))
        name = browser.js("document.querySelector('#work a').getAttribute('href')")
        expect("it is another run", before not in name, name)
        go(browser, None, name, "!!document.querySelector('#bars progress')")
        expect("what it counts is drawn", browser.js("!!document.querySelector('#bars progress')?.getAttribute('aria-label')"))
        moved = "Number(document.querySelector('#bars progress')?.value)"
        first = browser.js(moved) or 0
        expect("and moves", wait(browser, f"{moved} > {first} || !document.querySelector('#bars progress')"))
    finally:
        run.wait(timeout=300)
    expect("its end is said", wait(browser, "said.textContent === 'the run is done'", 20), browser.js("said.textContent"))


def views(browser):
    run = browser.js("(async () => (await (await fetch('/api/runs')).json()).arms.find((arm) => arm.values.some((v) => typeof v === 'number'))?.run)()")
    return {
        "runs": ("#/runs", "!!document.querySelector('table.runs, #list p')"),
        "side": (browser.js(SIDE), "!!document.querySelector('#beside table')"),
        "run": (f"#/run/{run}", "!!document.getElementById('stage-0')"),
        "ask": ("#/ask", "!!document.getElementById('prompts')"),
    }


def screenshots(browser, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (hash, ready) in views(browser).items():
        for width in WIDTHS:
            for theme in ["light", "dark"]:
                browser.window(width, theme)
                browser.js("location.hash = '#/ask'" if name != "ask" else "location.hash = '#/runs'")
                time.sleep(0.3)
                go(browser, None, hash, ready)
                time.sleep(0.4)
                browser.screenshot(folder / f"{name}-{width}-{theme}.png")
                print(f"      {folder / name}-{width}-{theme}.png")


def main():
    program, store, pipeline = sys.argv[1:4]
    folder = pathlib.Path(sys.argv[4]) if len(sys.argv) > 4 else None
    page = subprocess.Popen([program, "ui", "--store", store, "--port", "0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        link = page.stdout.readline().split(": ", 1)[1].strip()
        origin = link.split("/start")[0]
        with tempfile.TemporaryDirectory() as profile:
            browser = Browser(profile)
            try:
                browser.call("Accessibility.enable")
                check_start(browser, link)
                check_quiet(browser, origin, "start")
                check_runs(browser)
                check_names(browser, "runs")
                check_widths(browser, "runs")
                check_quiet(browser, origin, "runs")
                check_run(browser)
                check_names(browser, "run")
                check_widths(browser, "run")
                check_quiet(browser, origin, "run")
                check_ask(browser)
                check_names(browser, "ask")
                check_widths(browser, "ask")
                check_quiet(browser, origin, "ask")
                browser.window(1280, "dark")
                check_names(browser, "ask, dark")
                browser.window(1280)
                check_live(browser, program, store, pipeline)
                check_quiet(browser, origin, "live")
                if folder:
                    screenshots(browser, folder)
                check_used(browser, link)
            finally:
                browser.close()
    finally:
        page.terminate()
        code = page.wait(timeout=20)
    expect("the program ends when it is told to", code == 0, code)
    sys.exit(1 if expect.failed else 0)


if __name__ == "__main__":
    main()
