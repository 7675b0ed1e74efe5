"""What mkdocs.yml needs beside MkDocs: links between docs/ and the rest of the repository.

Pages beside the program's code, such as ARCHITECTURE.md, become pages of the site. Other files that a page links to are copied as they are,
below source/. A link to something that is not there is a warning, which `mkdocs build --strict` makes an error.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(?<!`)(\]\()([^)#\s:]+)(#[^)\s]*)?(\))")


def outside(source, text):
    """The links of a page that leave docs/, as paths from the root of the repository."""
    for link in LINK.finditer(text):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        if not path.startswith("docs/") and path not in PAGES and (ROOT / path).is_file():
            yield path


def source_of(src_uri):
    return src_uri if src_uri in PAGES else f"docs/{src_uri}"


def place(path):
    """Where a path of the repository is in the site; None where it is not there."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in PAGES:
        return path
    return f"source/{path}.txt" if (ROOT / path).is_file() else None


def on_files(files, config):
    for page in PAGES:
        files.append(File.generated(config, page, content=(ROOT / page).read_text()))
    copied = set()
    for file in files.documentation_pages():
        copied.update(outside(source_of(file.src_uri), file.content_string))
    for path in sorted(copied):
        content = (ROOT / path).read_bytes()
        files.append(File.generated(config, f"source/{path}.txt", content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown, page, config, files):
    source = source_of(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def moved(link):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        if (ROOT / path).is_dir() and not path.startswith("docs/"):
            # A folder has no page: its README.md, if it has one, else the text alone.
            readme = f"{path}/README.md"
            return f"{link[1]}{posixpath.relpath(place(readme), here or '.')}{link[4]}" if place(readme) in known else link[0]
        target = place(path)
        if target is None:
            return link[0]
        return f"{link[1]}{posixpath.relpath(target, here or '.')}{link[3] or ''}{link[4]}"

    known = {file.src_uri for file in files}
    lines, fenced = [], False
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith("```")
        lines.append(line if fenced else LINK.sub(moved, line))
    return "\n".join(lines)


def on_post_build(config):
    """The theme's switch of colours also switches two stylesheets of code, which are not there, since they would come from another server."""
    script = Path(config.site_dir) / "js/darkmode.js"
    text = script.read_text()
    for name in ("hljs-light", "hljs-dark"):
        text = text.replace(f"document.getElementById('{name}')", f"(document.getElementById('{name}') || {{}})")
    script.write_text(text)
