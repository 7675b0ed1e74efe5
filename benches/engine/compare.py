#!/usr/bin/env python3
"""Time the same graph of small stages in Palinode, DVC and Snakemake, and print a table.

The stages are trivial on purpose: what is timed is the engine around them. Each program makes one small result per stage,
none of which needs another: `distribute` in Palinode, `echo` into a file in the others. Everything lies in one temporary
folder; the programs take turns, so that a busy machine is busy for all of them.

    python3 -m venv venv && venv/bin/pip install dvc snakemake
    python3 benches/engine/compare.py --palinode target/release/palinode --venv venv

Needs nothing but Python's standard library and the programs themselves; one that is missing is left out.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def palinode_files(folder: Path, stages: int) -> None:
    """A pipeline of `distribute` stages, each with layers of its own."""
    lines = ["name: wide", "stages:"]
    lines += [f"  s{n}: {{uses: distribute, with: {{strategy: memit, layers: [{n}, {n + 1}]}}}}" for n in range(stages)]
    (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")


def dvc_files(folder: Path, stages: int) -> None:
    """A dvc.yaml whose stages each write one number."""
    lines = ["stages:"]
    for n in range(stages):
        lines += [f"  s{n}:", f"    cmd: echo {n} > out{n}.txt", "    outs:", f"    - out{n}.txt"]
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")


def snakemake_files(folder: Path, stages: int) -> None:
    """A Snakefile with one rule for all numbers."""
    (folder / "Snakefile").write_text(
        f'rule all:\n    input: expand("out{{n}}.txt", n=range({stages}))\n'
        'rule one:\n    output: "out{n}.txt"\n    shell: "echo {wildcards.n} > {output}"\n'
    )


class Program:
    """A program under test: how its files are made and what its commands are called."""

    def __init__(self, name, path, files, start, plan, run, prepare=None):
        self.name, self.path, self.files = name, path, files
        self.commands = {"start": start, "plan": plan, "run": run}
        self.prepare = prepare

    def time(self, what: str, folder: Path) -> float:
        """Seconds of wall time of one command; what it prints is shown when it fails."""
        command = [str(self.path), *self.commands[what]]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
        took = time.perf_counter() - began
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return took

    def version(self) -> str:
        """The program's own word on what it is."""
        done = subprocess.run([str(self.path), *self.commands["start"]], capture_output=True, text=True, env=environment())
        found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
        return f"{self.name} {found[0] if found else '?'}"


def environment() -> dict:
    """Nobody is called home to, and nothing of the caller's own settings counts."""
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {**keep, "DVC_NO_ANALYTICS": "1", "NO_COLOR": "1"}


def programs(args) -> list:
    """Those that are there."""
    venv = Path(args.venv).absolute() / "bin"
    dvc = venv / "dvc"
    every = [
        Program("Palinode", Path(args.palinode).absolute(), palinode_files, ["--version"],
                ["plan", "pipeline.yaml"], ["run", "pipeline.yaml"]),
        Program("DVC", dvc, dvc_files, ["--version"], ["status"], ["repro"], prepare=["init", "--no-scm", "-q"]),
        Program("Snakemake", venv / "snakemake", snakemake_files, ["--version"],
                ["-n", "-q", "all"], ["--cores", str(args.cores), "-q", "all"]),
    ]
    return [program for program in every if program.path.exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--palinode", default="target/release/palinode", help="the program to time")
    parser.add_argument("--venv", default="venv", help="where DVC and Snakemake are installed")
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5, help="of each cached command; the median counts")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    args = parser.parse_args()
    under_test = programs(args)
    times = {}
    with tempfile.TemporaryDirectory() as top:
        for program in under_test:
            folder = Path(top) / program.name
            folder.mkdir()
            program.files(folder, args.stages)
            if program.prepare:
                subprocess.run([str(program.path), *program.prepare], cwd=folder, env=environment(), check=True)
            print(f"{program.name}: first run of {args.stages} stages", file=sys.stderr)
            times[program.name, "first run"] = [program.time("run", folder)]
        for repeat in range(args.repeats):
            for what in ("start", "plan", "run"):
                for program in under_test:
                    seconds = program.time(what, Path(top) / program.name)
                    times.setdefault((program.name, what), []).append(seconds)
            print(f"repeat {repeat + 1} of {args.repeats}", file=sys.stderr)
    report(args, under_test, {key: statistics.median(values) for key, values in times.items()})


def report(args, under_test, times) -> None:
    """Prints the table: milliseconds, and how often Palinode fits into the others' time."""
    print(f"{args.stages} stages, {args.cores} cores, {platform.system()}; "
          f"{', '.join(program.version() for program in under_test)}; median of {args.repeats}\n")
    names = [program.name for program in under_test]
    others = [name for name in names if name != "Palinode"]
    print("| | " + " | ".join(f"{name} (ms)" for name in names) + " | " + " | ".join(f"{name} ÷ Palinode" for name in others) + " |")
    print("| --- |" + " ---: |" * (len(names) + len(others)))
    rows = [("first run", "first run"), ("nothing to do: run", "run"), ("nothing to do: plan", "plan"), ("process start", "start")]
    for title, what in rows:
        cells = [f"{times[name, what] * 1000:,.0f}" for name in names]
        ratios = [f"{times[name, what] / times['Palinode', what]:,.0f}" for name in others]
        print(f"| {title} | " + " | ".join(cells + ratios) + " |")
    for what in ("run", "plan"):
        beyond = (times["Palinode", what] - times["Palinode", "start"]) * 1000
        print(f"\nPalinode's cached `{what}` beyond process start: {beyond:.0f} ms", end="")
    print()


if __name__ == "__main__":
    main()
