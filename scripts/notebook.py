#!/usr/bin/env python3
"""Makes the notebooks of docs/notebooks from their sources, and executes them.

    python3 scripts/notebook.py [--pictures DIR]

Each .py file there has its cells behind lines `# %%`, those of text behind `# %% [markdown]`. The notebook beside it gets the outputs of
the program that is built here. --pictures DIR also writes every picture into a folder, to be looked at.

Needs nbclient, ipykernel, matplotlib, pandas, pyarrow, torch, transformers and peft, and target/release/palinode, or the program that
PALINODE_PROGRAM names.
"""

import argparse
import base64
import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "notebooks"


def cells(source: str):
    """The cells of a source."""
    for part in re.split(r"^# %%", source, flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        if "[markdown]" in head:
            yield nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", body.strip(), flags=re.MULTILINE))
        else:
            yield nbformat.v4.new_code_cell(body.strip())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    os.environ.setdefault("PALINODE_PROGRAM", str(ROOT / "target" / "release" / "palinode"))
    os.environ["PYTHONPATH"] = str(ROOT / "python")
    # No bar of transformers, and no look at the network.
    os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    os.environ["PYTHONWARNINGS"] = "ignore"
    for source in sorted(FOLDER.glob("*.py")):
        made = list(cells(source.read_text(encoding="utf-8")))
        for at, cell in enumerate(made):
            cell["id"] = f"cell-{at}"
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})
        NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}).execute()
        pictures = 0
        for cell in made:
            cell["metadata"].pop("execution", None)
            for output in cell.get("outputs", []):
                picture = output.get("data", {}).get("image/png")
                if picture and args.pictures:
                    args.pictures.mkdir(parents=True, exist_ok=True)
                    (args.pictures / f"{source.stem}-{pictures}.png").write_bytes(base64.b64decode(picture))
                pictures += bool(picture)
        target = source.with_suffix(".ipynb")
        nbformat.write(notebook, target)
        print(f"{target.relative_to(ROOT)}: {len(made)} cells, {pictures} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
