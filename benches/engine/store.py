#!/usr/bin/env python3
"""What a store of a lab's size costs: 100,000 results, and a pipeline of 20,000 stages.

    python3 benches/engine/store.py --palinode target/release/palinode [--stages 20000] [--results 100000] [--rounds 3]

Runs a pipeline of light stages, once with everything to do and then with nothing to do, and looks at it. Then it fills the store with results
that have contents of their own, in runs of as many stages, and times what is done with all of them. Of each command: CPU time (user and
system), wall-clock time, and peak memory of the process. With `--folder` the filled store stays there, and is used again by the next call.
`--against OTHER` times a second program in turn with the first, on the same store. Needs nothing but Python's standard library, on Linux.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import palinode_files


def contents_files(folder: Path, name: str, start: int, stages: int) -> Path:
    """A pipeline of stages that each keep contents of their own."""
    lines = [f"name: {name}", "stages:"]
    lines += [
        f"  r{n}: {{uses: requests, with: {{facts: [{{subject: s{n}, prompt: 'The number of {{}} is', target_new: '{n}'}}]}}}}"
        for n in range(start, start + stages)
    ]
    path = folder / f"{name}.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def measure(command, folder):
    """Runs it; CPU and wall seconds, and peak memory in MiB."""
    begin = time.monotonic()
    process = subprocess.Popen([str(part) for part in command], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {process.returncode}")
    return used.ru_utime, used.ru_stime, time.monotonic() - begin, used.ru_maxrss / 1024


def row(what, found, per=None):
    """A line of the table: medians, of each stage in microseconds where `per` says how many there are."""
    user, system, wall, peak = (statistics.median(values) for values in zip(*found))
    each = "" if per is None else f"{1e6 * (user + system) / per:.0f} / {1e6 * wall / per:.0f} µs"
    print(f"| {what} | {user:.2f} + {system:.2f} s | {wall:.2f} s | {each} | {peak:.0f} MiB |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--palinode", type=Path, default=Path("target/release/palinode"))
    parser.add_argument("--against", type=Path)
    parser.add_argument("--stages", type=int, default=20000)
    parser.add_argument("--results", type=int, default=100000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    programs = {"": args.palinode.resolve()}
    if args.against:
        programs = {"before: ": args.against.resolve(), "now: ": programs[""]}
    temporary = None if args.folder else tempfile.TemporaryDirectory()
    folder = args.folder.resolve() if args.folder else Path(temporary.name)
    folder.mkdir(exist_ok=True)
    print("| command | CPU, user + system | wall clock | CPU / wall clock a stage | peak memory |\n| --- | ---: | ---: | ---: | ---: |")
    last = list(programs.values())[-1]

    def all_programs(what, words, per=None, rounds=args.rounds, before=None):
        found = {name: [] for name in programs}
        for _ in range(rounds):
            for name, program in programs.items():
                if before:
                    before()
                found[name].append(measure([program, *words], folder))
        for name in programs:
            row(name + what, found[name], per)

    palinode_files(folder, args.stages)
    store = folder / "store"
    with_store = ["--store", store]
    if not store.exists():
        first = folder / "first"
        words = ["run", "pipeline.yaml", "--quiet", "--store", first]
        all_programs(f"first run of {args.stages} stages", words, args.stages, 1, lambda: shutil.rmtree(first, ignore_errors=True))
        words = ["run", contents_files(folder, "contents", 0, args.stages), *words[2:]]
        all_programs("the same, each with contents", words, args.stages, 1, lambda: shutil.rmtree(first, ignore_errors=True))
        shutil.rmtree(first)
        for start in range(0, args.results - args.stages, args.stages):
            path = contents_files(folder, f"fill{start}", start, args.stages)
            subprocess.run([str(last), "run", path, "--quiet", *map(str, with_store)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        subprocess.run([str(last), "run", "pipeline.yaml", "--quiet", *map(str, with_store)], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    all_programs(f"nothing to do: `plan` of {args.stages} stages", ["plan", "pipeline.yaml", *with_store], args.stages)
    all_programs("nothing to do: `run`", ["run", "pipeline.yaml", "--quiet", *with_store], args.stages)
    all_programs("`show` of that run", ["show", "latest", *with_store])
    all_programs(f"`cache ls` of {args.results} results", ["cache", "ls", *with_store])
    all_programs("`cache gc --dry-run`", ["cache", "gc", "--dry-run", *with_store])
    all_programs("`cache gc`", ["cache", "gc", *with_store])
    all_programs("`cache verify`", ["cache", "verify", *with_store])
    all_programs("`cache rebuild`", ["cache", "rebuild", *with_store], rounds=1)


if __name__ == "__main__":
    main()
