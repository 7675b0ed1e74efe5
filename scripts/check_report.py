#!/usr/bin/env python3
"""Opens a page of `palinode report` in Chromium and uses it as a reader would.

    python3 scripts/check_report.py report.html [screenshots/]

It needs a `chromium` on the path and nothing else: the browser is driven over its own debugging pipe. Checked are: no error and
no request on opening; nothing wider than the window at 360, 390 and 1280 pixels; that tables of results hide columns and group rows; that the
table of edits sorts, filters and goes back; that figures are saved as pictures; the theme's button; that the page is readable without scripts. With a folder, screenshots
are left there for a person to look at: at both widths, light and dark, and the page as it prints.
"""

import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

WIDTHS = {360: 780, 390: 844, 1280: 900}


# What Chromium says where a page went on to another one while an expression was at work in it.
LEFT = ["navigated or closed", "context was destroyed", "Cannot find context"]


class PageLeft(RuntimeError):
    """The page went on to another one before it had answered."""


class Browser:
    """Chromium without a window, spoken to over a pipe (file descriptors 3 and 4, messages ended by a zero byte)."""

    def __init__(self, profile):
        program = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
        if program is None:
            sys.exit("chromium is missing: apt-get install chromium")
        to_read, self.to_write = os.pipe()
        self.from_read, from_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu", f"--user-data-dir={profile}"]

        def wire():
            # The ends may lie on each other's numbers: move them out of the way first.
            one, other = os.dup(to_read), os.dup(from_write)
            os.dup2(one, 3)
            os.dup2(other, 4)

        self.process = subprocess.Popen(
            [program, *flags], preexec_fn=wire, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(from_write)
        self.number, self.rest, self.events, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.next()
            if answer.get("id") == self.number:
                if "error" in answer:
                    if any(sign in answer["error"].get("message", "") for sign in LEFT):
                        raise PageLeft(f"{method}: {answer['error']}")
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def next(self):
        while b"\0" not in self.rest:
            more = os.read(self.from_read, 1 << 20)
            if not more:
                raise RuntimeError("the browser ended")
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.next())

    def js(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def window(self, width, theme="light"):
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=WIDTHS[width], deviceScaleFactor=1, mobile=mobile
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", media="screen", features=features)

    def screenshot(self, path):
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        self.session = None
        try:
            self.call("Browser.close")
        except (RuntimeError, OSError):
            pass
        self.process.wait(timeout=20)


def expect(what, fine, more=""):
    print(("ok    " if fine else "FAIL  ") + what + (f": {more}" if more and not fine else ""))
    expect.failed |= not fine


expect.failed = False


def check_quiet(browser, page):
    def trouble(event):
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            return params["exceptionDetails"].get("text")
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            return params["entry"]["text"]
        if event.get("method") == "Network.requestWillBeSent" and params["request"]["url"] != page:
            return "asks for " + params["request"]["url"]
        return None

    found = [text for text in map(trouble, browser.events) if text]
    expect("opens without an error and without a request", not found, found)


def check_widths(browser):
    for width in WIDTHS:
        browser.window(width)
        wide = browser.js("document.documentElement.scrollWidth")
        expect(f"fits into {width} pixels", wide <= width, f"{wide} wide")


def check_edits(browser):
    if not browser.js("!!document.getElementById('edits')"):
        print("      (no table of edits)")
        return
    shown = "[...document.querySelectorAll('#edits tbody tr:not([hidden])')]"
    type_in = "const f = document.getElementById('edit-find'); f.value = {}; f.dispatchEvent(new Event('input'))"
    all_rows = browser.js(f"{shown}.length")
    subject = browser.js("document.querySelector('#edits tbody em').textContent || document.querySelector('#edits .prompt').textContent")
    browser.js("{ " + type_in.format(json.dumps(subject.upper())) + " }")
    found = browser.js(f"{shown}.map((row) => row.textContent.toLowerCase())")
    fine = 0 < len(found) <= all_rows and all(subject.lower() in row for row in found)
    expect("filters by words, whatever their case", fine, f"{len(found)} of {all_rows} for {subject!r}")
    browser.js("{ " + type_in.format('"no such words anywhere"') + " }")
    expect("finds nothing where nothing is", browser.js(f"{shown}.length") == 0)
    browser.js("{ " + type_in.format('""') + " }")
    expect("shows all again", browser.js(f"{shown}.length") == all_rows)
    if browser.js("!!document.getElementById('edit-cell')"):
        browser.js("{ const c = document.getElementById('edit-cell'); c.value = '1'; c.dispatchEvent(new Event('input')) }")
        cells = browser.js(f"[...new Set({shown}.map((row) => row.dataset.cell))]")
        expect("filters by cell", cells == ["1"], cells)
        browser.js("{ const c = document.getElementById('edit-cell'); c.value = ''; c.dispatchEvent(new Event('input')) }")
    column = browser.js("[...document.querySelectorAll('#edits th')].findIndex((head) => head.textContent.startsWith('p(new) after'))")
    before = browser.js(f"{shown}.map((row) => row.cells[{column}].dataset.sort)")
    values = f"{shown}.map((row) => row.cells[{column}].dataset.sort).filter((v) => v !== '').map(Number)"
    click = f"document.querySelectorAll('#edits th')[{column}].querySelector('button').click()"
    for way, order in [("ascending", sorted), ("descending", lambda all: sorted(all, reverse=True))]:
        browser.js(click)
        now = browser.js(values)
        expect(f"sorts numbers, {way}", now == order(now))
    browser.js(click)
    expect("a third click restores the order", browser.js(f"{shown}.map((row) => row.cells[{column}].dataset.sort)") == before)


def check_columns(browser):
    if not browser.js("!!document.querySelector('.choose')"):
        print("      (no table with columns to choose)")
        return
    table = "document.querySelector('.choose + .scroll table, .choose ~ .scroll table')"
    shown = f"[...{table}.tHead.rows[0].cells].filter((cell) => !cell.hidden).length"
    before = browser.js(shown)
    check = "{ const c = document.querySelector('.choose input'); c.checked = %s; c.dispatchEvent(new Event('change')) }"
    browser.js(check % "false")
    expect("hides a column", browser.js(shown) == before - 1)
    browser.js(check % "true")
    expect("and shows it again", browser.js(shown) == before)
    if browser.js("!!document.querySelector('.choose select')"):
        # It may be another table than the first: one with a single row has nothing to group.
        table = "document.querySelector('.choose select').closest('.choose').nextElementSibling.querySelector('table')"
        rows = browser.js(f"{table}.tBodies[0].innerText")
        group = "{ const s = document.querySelector('.choose select'); s.value = s.options[%s].value; s.dispatchEvent(new Event('change')) }"
        browser.js(group % "s.options.length - 1")
        expect("groups rows", browser.js(f"{table}.querySelectorAll('tr.group').length") > 1)
        browser.js(group % "0")
        expect("and puts them back", browser.js(f"{table}.tBodies[0].innerText") == rows)


SAVE = """
new Promise((done) => {
  const keep = URL.createObjectURL;
  URL.createObjectURL = (file) => {
    URL.createObjectURL = keep;
    const reader = new FileReader();
    reader.onload = () => done([file.type, reader.result.split(",")[1]]);
    reader.readAsDataURL(file);
    return keep(file);
  };
  document.querySelectorAll("figure .save button")[%d].click();
})
"""


def check_figures(browser, folder):
    """The first figure as SVG and as PNG."""
    if not browser.js("!!document.querySelector('figure')"):
        print("      (no figures)")
        return
    for at, (kind, begin) in enumerate([("image/svg+xml", b"<svg"), ("image/png", b"\x89PNG")]):
        found, text = browser.js(SAVE % at)
        data = base64.b64decode(text)
        expect(f"saves a figure as {kind}", found == kind and data.startswith(begin) and len(data) > 2000, len(data))
        if folder:
            (folder / f"figure.{kind.split('/')[1][:3]}").write_bytes(data)


def check_theme(browser):
    browser.window(1280)
    ground = "getComputedStyle(document.body).backgroundColor"
    light = browser.js(ground)
    browser.js("document.getElementById('theme').click()")
    dark = browser.js(ground)
    browser.js("document.getElementById('theme').click()")
    expect("the button changes the theme and back", light != dark and browser.js(ground) == light, (light, dark))
    browser.window(1280, "dark")
    browser.js("delete document.documentElement.dataset.theme")
    expect("follows the system's theme", browser.js(ground) == dark)


def check_without_scripts(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    browser.open(page)
    nodes = browser.call("DOMSnapshot.captureSnapshot", computedStyles=["display"])
    names = nodes["strings"]
    rows = [n for n in nodes["documents"][0]["nodes"]["nodeName"] if names[n] == "TR"]
    expect("has its tables without scripts", len(rows) > 1)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    browser.open(page)


def screenshots(browser, folder):
    browser.js("delete document.documentElement.dataset.theme")
    for width in WIDTHS:
        for theme in ["light", "dark"]:
            browser.window(width, theme)
            browser.screenshot(folder / f"{width}-{theme}.png")
    # As on paper: neither the window's medium nor its theme.
    browser.call("Emulation.setEmulatedMedia", media="", features=[])
    printed = browser.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)
    (folder / "print.pdf").write_bytes(base64.b64decode(printed["data"]))


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    page = pathlib.Path(sys.argv[1]).resolve().as_uri()
    folder = pathlib.Path(sys.argv[2]) if len(sys.argv) == 3 else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile)
        try:
            browser.window(1280)
            browser.open(page)
            check_quiet(browser, page)
            check_widths(browser)
            check_columns(browser)
            check_edits(browser)
            check_figures(browser, folder)
            check_theme(browser)
            check_without_scripts(browser, page)
            if folder:
                screenshots(browser, folder)
        finally:
            browser.close()
    sys.exit(1 if expect.failed else 0)


if __name__ == "__main__":
    main()
