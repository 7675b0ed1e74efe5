#!/usr/bin/env python3
"""How long `plan` and `run` take where there is nothing to do: a pipeline of a thousand stages, all of them cached.

    python3 benches/engine/cached.py --palinode target/release/palinode [--stages 1000] [--rounds 40]

Wall clock of whole processes, one after the other; the start of the process is that of `palinode --version`. Needs nothing
but Python's standard library.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from compare import palinode_files


def measure(command, folder, rounds):
    took = []
    for _ in range(rounds):
        begin = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took.append(1000 * (time.perf_counter() - begin))
    return min(took), statistics.median(took)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--palinode", type=Path, default=Path("target/release/palinode"))
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    program = str(args.palinode.resolve())
    print("| command | best, ms | median, ms |\n| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        palinode_files(Path(folder), args.stages)
        subprocess.run([program, "run", "pipeline.yaml", "--quiet"], cwd=folder, check=True)
        for what in (["--version"], ["validate", "pipeline.yaml"], ["plan", "pipeline.yaml"], ["run", "pipeline.yaml"]):
            best, median = measure([program, *what], folder, args.rounds)
            print(f"| `palinode {what[0]}` | {best:.0f} | {median:.0f} |")


if __name__ == "__main__":
    main()
