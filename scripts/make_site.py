#!/usr/bin/env python3
"""Writes the documentation as a site to target/site, and fails on a link that leads nowhere or a page that asks another server.

    python3 scripts/make_site.py

MkDocs comes from the Python registry, into target/site-venv. Open target/site/index.html; the search needs a server, such as
`python3 -m http.server -d target/site`.
"""

import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "target/site"
MKDOCS = "mkdocs==1.6.1"
# What a browser fetches by itself, as opposed to what a reader follows.
FETCHED = re.compile(r"""<(?:script|img|iframe|source|video|audio)[^>]*\ssrc=["'](?:https?:)?//|<link(?![^>]*rel="canonical")[^>]*\shref=["'](?:https?:)?//""")
STYLE = re.compile(r"""@import\s+["']?(?:url\(["']?)?(?:https?:)?//|url\(["']?(?:https?:)?//""")


def main():
    place = ROOT / "target/site-venv"
    mkdocs = place / "bin/mkdocs"
    if not mkdocs.is_file():
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([place / "bin/pip", "install", "--quiet", MKDOCS], check=True)
    subprocess.run([mkdocs, "build", "--strict", "--quiet", "--clean"], check=True, cwd=ROOT)
    found = []
    for end, pattern in (("html", FETCHED), ("css", STYLE)):
        found += [f"{path.relative_to(SITE)}: {hit[0]}" for path in SITE.rglob(f"*.{end}") for hit in pattern.finditer(path.read_text())]
    if found:
        sys.exit("these pages ask another server:\n  " + "\n  ".join(found))
    print(f"wrote {len(list(SITE.rglob('*.html')))} pages to {SITE}; all links lead somewhere, and no page asks another server")


if __name__ == "__main__":
    main()
