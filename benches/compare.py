"""Palinode beside the published way of working: the same inputs, the same machine, in turn.

    python benches/inputs.py FOLDER
    python benches/compare.py FOLDER [--rounds 3] [--threads 1] [--only targets,solve] [--write docs/performance.md]

Both sides run in processes of their own, one after the other, `--rounds` times; the table has medians. What is compared is
CPU time, which other programs on the machine disturb least, and wall clock beside it. Loading a model is counted on
neither side; peak memory is that of the whole process. Needs torch and transformers for the reference.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


class Case:
    """One row of the table. `ours` and `theirs` are the words of either side, `per` how many units each side works on."""

    def __init__(self, name, kind, ours, theirs=None, per=(1, 1), goal=None):
        self.name, self.kind, self.goal, self.per = name, kind, goal, per
        self.ours, self.theirs = ours, theirs or ours


def targets(name, model, layer, goal, count=32, theirs=2, steps=20):
    words = f"model={model} layer={layer} steps={steps} parallel_requests=16"
    return Case(name, "targets", f"{words} requests={count}", f"{words} requests={theirs}", (count, theirs), goal)


def solve(name, f, d, batch, objective, cached, goal):
    return Case(name, "solve", f"f={f} d={d} batch={batch} objective={objective} cached={cached}", goal=goal)


def later(name, method, precision, batch, before, goal, f=6400, d=1600):
    words = f"method={method} f={f} d={d} batch={batch} before={before} cold=0"
    return Case(name, "round", f"{words} rounds=4", f"{words} precision={precision}", goal=goal)


def cold(name, method, precision, batch, f=6400, d=1600):
    words = f"method={method} f={f} d={d} batch={batch} before=0 cold=1"
    return Case(name, "round", words, f"{words} precision={precision}")


def edit(name, count, goal, theirs):
    words = "model=small layers=4,5,6,7,8 layer=8 steps=20 parallel_requests=16"
    return Case(name, "edit", f"{words} requests={count}", f"{words} requests={theirs}", (count, theirs), goal)


def cases():
    moments = "model=small documents={} layers={} batch_tokens=2048"
    yield targets("targets, layer 5, per request", "small", 5, 8)
    yield targets("targets, layer 8, per request", "small", 8, 8)
    yield Case("second moments, layers 4–8", "moments", moments.format(24, "4,5,6,7,8"), goal=3)
    yield Case("second moments, layer 8", "moments", moments.format(24, "8"), goal=1)
    yield solve("MEMIT, 32 edits, f 6400, factor cached", 6400, 1600, 32, "memit", 1, 30)
    yield solve("EMMET, 32 edits, f 6400, factor cached", 6400, 1600, 32, "emmet", 1, 80)
    yield solve("MEMIT, 32 edits, f 6400, cold", 6400, 1600, 32, "memit", 0, 2)
    yield solve("EMMET, 32 edits, f 6400, cold", 6400, 1600, 32, "emmet", 0, 2)
    yield solve("MEMIT, 256 edits, f 6400, factor cached", 6400, 1600, 256, "memit", 1, 6)
    yield solve("EMMET, 256 edits, f 6400, factor cached", 6400, 1600, 256, "emmet", 1, 15)
    yield solve("MEMIT, 32 edits, f 3072, factor cached", 3072, 768, 32, "memit", 1, None)
    yield solve("MEMIT, 32 edits, f 3072, cold", 3072, 768, 32, "memit", 0, None)
    for precision in ("f32", "f64"):
        for batch, before in ((1, 200), (100, 4)):
            shape = f"{batch} edits, {precision}"
            yield later(f"round of AlphaEdit, {shape}", "alphaedit", precision, batch, before, 10)
            yield later(f"round of MEMIT-seq, {shape}", "memit_seq", precision, batch, before, 10)
        yield cold(f"first round of MEMIT-seq, {precision}", "memit_seq", precision, 100)
        yield cold(f"first round of AlphaEdit, f 3072, {precision}", "alphaedit", precision, 100, 3072, 768)
    # The reference takes requests one by one: what sixteen of them take tells what more would.
    yield edit("whole MEMIT run, 32 edits, 5 layers", 32, 8, 16)
    yield edit("whole MEMIT run, 128 edits, 5 layers", 128, 9, 16)
    yield targets("targets on the small shape, 32 requests", "mini", 3, None, 32, 8)
    yield targets("targets on the small shape, 1000 requests", "mini", 3, None, 1000, 8)


def program():
    """Builds the program that times our side and finds it."""
    command = ["cargo", "bench", "--workspace", "--bench", "measure", "--no-run"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    found = re.search(r"Executable \S+ \((\S+)\)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"{done.stderr}\n{' '.join(command)} failed")
    return HERE.parent / found[1]


def once(command, threads):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(threads), OMP_NUM_THREADS=str(threads))
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stderr}\n{' '.join(map(str, command))} failed")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(case, ours, inputs, rounds, threads, other):
    def command(start, words):
        return [*start, case.kind, *words.split(), f"inputs={inputs}"]

    runs = {"ours": [], "theirs": []}
    for _ in range(rounds):
        runs["ours"].append(once(command([ours], case.ours), threads))
        reference = command([sys.executable, *other], case.theirs)
        runs["theirs"].append(once([*reference, f"threads={threads}"], threads))
    row = {"case": case.name, "goal": case.goal, "rounds": rounds, "threads": threads, "load": os.getloadavg()[1]}
    for side, per in zip(("ours", "theirs"), case.per):
        for what in ("cpu", "wall"):
            row[f"{side}_{what}"] = statistics.median(run[what] for run in runs[side]) / per
        row[f"{side}_peak"] = max(run["peak_mib"] for run in runs[side])
    for what in ("cpu", "wall"):
        # The ratio of each pair: what disturbs the machine for long disturbs both of a pair.
        pairs = zip(runs["theirs"], runs["ours"])
        scale = case.per[0] / case.per[1]
        row[f"ratio_{what}"] = statistics.median(scale * theirs[what] / own[what] for theirs, own in pairs)
    return row


def seconds(value):
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def table(rows):
    lines = [
        "| case | reference, CPU time | Palinode | times faster | in wall clock | goal | peak memory, MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        goal = "" if row["goal"] is None else f"{row['goal']} {'✓' if row['ratio_cpu'] >= row['goal'] else '✗'}"
        lines.append(
            f"| {row['case']} | {seconds(row['theirs_cpu'])} | {seconds(row['ours_cpu'])} | {row['ratio_cpu']:.1f} "
            f"| {row['ratio_wall']:.1f} | {goal} | {row['ours_peak']:.0f} / {row['theirs_peak']:.0f} |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=lambda p: Path(p).resolve(), help="the folder that benches/inputs.py filled")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name has one of these words, with commas between")
    parser.add_argument("--program", type=lambda p: Path(p).resolve(), help="the program of our side, where it is built already")
    parser.add_argument("--reference", default="reference.measure", help="a module that takes the place of reference/measure.py")
    parser.add_argument("--write", type=Path, help="a file to put the table into, between its two marks")
    parser.add_argument("--raw", type=Path, help="a file that gets a line of JSON for each case")
    args = parser.parse_args()
    ours, rows = args.program or program(), []
    other = ["-m", args.reference]
    for case in cases():
        if not any(word in case.name for word in args.only.split(",")):
            continue
        rows.append(compare(case, ours, args.inputs, args.rounds, args.threads, other))
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        if args.raw:
            with args.raw.open("a") as out:
                out.write(json.dumps(rows[-1]) + "\n")
    if args.write:
        text = args.write.read_text()
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        args.write.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{after}")


if __name__ == "__main__":
    main()
