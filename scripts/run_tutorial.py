#!/usr/bin/env python3
"""Runs the commands of the tutorial and of some pages beside it, as a reader would, and compares what they print with what the pages show.

    python3 scripts/run_tutorial.py [--long] [--program PROGRAM] [--keep] [PAGE …]

For every page of docs/tutorial, and those of ALSO, the ```sh blocks are run in their order in one fresh folder that holds what a clone of the repository does
(examples, pipelines, scripts, tools, README.md), with the program on PATH. A block of another kind, of which the paragraph before says "as
`FILE`", is written to that file. A ```text block behind commands is what they print: its
lines stand in the output in their order, and `…` stands for any lines between; numbers may be other ones, and blanks are one.

A page that begins with the comment `long` is run with --long alone: it downloads, or takes minutes. Without pages, all of one kind are run.
A command that is to fail says so: `# exit code 3` behind it. Needs Python alone.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs/tutorial"
ALSO = ("docs/ledger.md",)
CLONED = ("examples", "pipelines", "scripts", "tools", "README.md")
LONG = "<!-- long"


def blocks(page):
    """Kind, line, and lines of each fenced block; with the last line of text before it."""
    found, before, open_block = [], "", None
    for at, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.fullmatch(r"```(\w*)", line)
        if open_block is not None:
            if line == "```":
                found.append(open_block)
                open_block, before = None, ""
            else:
                open_block[2].append(line)
        elif fence:
            open_block = (fence[1], at, [], before)
        elif line.strip():
            before = line
    return found


def masked(line):
    """A line where every number is the same, every ID of a run, and every run of blanks."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    line = re.sub(r"\d{8}-\d{6}-[0-9a-f]{4}", "RUN", line)
    line = re.sub(r"(?:[<*~−-])?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", "#", line)
    line = re.sub(r"# (?:[KMGT]i)?B\b", "# B", line)
    return re.sub(r"\s+", " ", re.sub(r"# (?:ms|s|min|h)\b", "# s", line)).strip()


def missing(wanted, said):
    """The first line that the output lacks where it should be, if there is one."""
    lines, at, free = [masked(line) for line in said.splitlines() if line.strip()], 0, True
    for line in filter(str.strip, wanted):
        if line.strip() == "…":
            free = True
            continue
        line = masked(line)
        ends_open = line.endswith("…")
        fits = [i for i in range(at, len(lines)) if (lines[i].startswith(line[:-1].rstrip()) if ends_open else lines[i] == line)]
        if not fits or not free and fits[0] != at:
            return line
        at, free = fits[0] + 1, False
    return None


class Failed(Exception):
    pass


def commands(lines):
    """Commands, those that go on in another line joined, and how each is to end."""
    text, expected = "", 0
    for line in lines:
        code = re.search(r"\s# exit code (\d+)$", line)
        text += line + "\n"
        if code:
            expected = int(code[1])
        if not line.endswith("\\"):
            if text.strip() and not text.lstrip().startswith("#"):
                yield text.strip(), expected
            text, expected = "", 0


def run(page, program, folder):
    for name in CLONED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("target", "__pycache__"))
        else:
            shutil.copy(source, folder / name)
    path = f"{Path(program).resolve().parent}{os.pathsep}{os.environ['PATH']}"
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PALINODE_", "CLICOLOR"))}
    env = {**keep, "PATH": path, "NO_COLOR": "1", "COLUMNS": "120", "XDG_CONFIG_HOME": str(folder / ".config")}
    said = ""
    for kind, line, lines, before in blocks(page):
        place = f"{page.relative_to(ROOT)}:{line}"
        named = re.search(r"\bas `([\w./-]+)`[^`]*:$", before)
        if kind == "sh":
            said = ""
            for command, expected in commands(lines):
                exported = re.fullmatch(r"export (\w+)=(\S+)", command)
                if exported:
                    env[exported[1]] = exported[2]
                    continue
                begin = time.monotonic()
                done = subprocess.run(["bash", "-c", command], cwd=folder, env=env, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                said += done.stdout
                print(f"{place}: {time.monotonic() - begin:6.1f} s  {command.splitlines()[0]}", flush=True)
                if done.returncode != expected:
                    raise Failed(f"{place}: exit code {done.returncode}, expected {expected}: {command}\n{done.stdout}")
        elif kind == "text" and said:
            lacking = missing(lines, said)
            if lacking is not None:
                raise Failed(f"{place}: the commands before do not print this line in this place:\n  {lacking}\nthey print\n{said}")
        elif named:
            target = folder / named[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--program", default=str(ROOT / "target/release/palinode"))
    parser.add_argument("--long", action="store_true", help="the pages that download or take minutes, instead of the others")
    parser.add_argument("--keep", action="store_true", help="leave the folders, and say where they are")
    args = parser.parse_args()
    every = [*sorted(PAGES.glob("*.md")), *(ROOT / page for page in ALSO)]
    pages = [page.resolve() for page in args.pages] or [page for page in every if page.read_text().startswith(LONG) == args.long]
    failed = 0
    for page in pages:
        folder = Path(tempfile.mkdtemp(prefix=f"tutorial-{page.stem}-"))
        begin = time.monotonic()
        try:
            run(page, args.program, folder)
            print(f"{page.name}: all as the page says, in {time.monotonic() - begin:.1f} s")
        except Failed as failure:
            failed += 1
            print(failure, file=sys.stderr)
        finally:
            print(folder) if args.keep else shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if failed or not pages else 0)


if __name__ == "__main__":
    main()
