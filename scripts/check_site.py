#!/usr/bin/env python3
"""Opens every page of the documentation's site in Chromium.

    python3 scripts/check_site.py [target/site] [screenshots/]

The site is what scripts/make_site.py wrote. It needs a `chromium` on the path. Checked are: no error, and no request to another server; nothing
wider than the window at 390 and 1280 pixels; and that the search finds a page. With a folder, screenshots of some pages are left there
for a person to look at.
"""

import base64
import functools
import http.server
import pathlib
import sys
import tempfile
import threading
import time

from check_report import Browser, expect
from check_ui import WIDTHS, check_quiet, check_widths, wait

SHOWN = ("index", "tutorial/first-edit", "reference/stages/solve", "glossary")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def open_page(browser, address):
    browser.call("Page.navigate", url=address)
    time.sleep(0.05)
    expect(f"{address}: opens", wait(browser, f"location.href === {address!r} && document.readyState === 'complete'"))


def main():
    site = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "target/site").resolve()
    shots = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_address[1]}"
    expect("there are pages", len(pages) > 50, len(pages))
    with tempfile.TemporaryDirectory() as profile:
        browser = Browser(profile)
        try:
            for page in pages:
                open_page(browser, f"{origin}/{page}")
                check_widths(browser, page)
                check_quiet(browser, origin, page)
            open_page(browser, f"{origin}/search.html?q=harmonic" if "search.html" in pages else f"{origin}/index.html")
            browser.js("document.querySelector('[data-bs-target=\"#mkdocs_search_modal\"]').click()")
            typed = "(() => { const at = document.querySelector('#mkdocs-search-query'); at.value = 'harmonic'; at.dispatchEvent(new Event('keyup')); return true })()"
            found = "(document.querySelector('#mkdocs-search-results') || {}).innerText || ''"
            expect("the search finds a word", wait(browser, f"{typed} && /Glossary|Methods/.test({found})", 20), browser.js(found))
            for name in SHOWN if shots else ():
                for width in WIDTHS:
                    for scheme in ("light", "dark"):
                        browser.window(width, scheme)
                        open_page(browser, f"{origin}/{name}.html")
                        shots.mkdir(parents=True, exist_ok=True)
                        picture = browser.call("Page.captureScreenshot")["data"]
                        (shots / f"{name.replace('/', '-')}-{width}-{scheme}.png").write_bytes(base64.b64decode(picture))
        finally:
            browser.close()
            server.shutdown()
    sys.exit(1 if expect.failed else 0)


if __name__ == "__main__":
    main()
