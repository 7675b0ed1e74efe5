#!/usr/bin/env python3
"""Compiles the LaTeX tables of a report, as a paper would include them, and fails where one has errors or is wider than the page.

    palinode report --assets paper && python3 scripts/check_latex.py paper/tables

Needs a TeX: pdflatex (Debian: texlive-latex-base and texlive-latex-recommended) or tectonic.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

PAGE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{booktabs,graphicx}
\extrafloats{200}
\begin{document}
%s
\end{document}
"""


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    tables = sorted(pathlib.Path(sys.argv[1]).glob("*.tex"))
    if not tables:
        print(f"there is no table in {sys.argv[1]}", file=sys.stderr)
        return 1
    engine = shutil.which("pdflatex") or shutil.which("tectonic")
    if engine is None:
        print("there is no TeX: install texlive-latex-recommended, or tectonic", file=sys.stderr)
        return 1
    wrong = 0
    for table in tables:
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.tex"
            page.write_text(PAGE % (table.read_text(encoding="utf-8") + "\n\\clearpage"), encoding="utf-8")
            options = ["-interaction=nonstopmode", "-halt-on-error"] if engine.endswith("pdflatex") else ["--keep-logs"]
            done = subprocess.run([engine, *options, page.name], cwd=folder, capture_output=True, check=False)
            log = pathlib.Path(folder, "page.log")
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else done.stderr.decode()
            found = [line for line in text.splitlines() if line.startswith("!")]
            wide = [float(size) for size in re.findall(r"Overfull \\hbox \(([0-9.]+)pt too wide\)", text)]
            tall = re.findall(r"Float too large for page by ([0-9.]+)pt", text)
            found += [f"{size} pt too wide" for size in wide if size > 1]
            found += [f"{size} pt too tall" for size in tall]
            if done.returncode and not found:
                found = [text[-400:]]
        print(f"{'well ' if not found else 'WRONG'} {table.name}")
        for line in found:
            print(f"      {line}")
        wrong += bool(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
