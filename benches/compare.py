"""Palinode beside the published way of working, and beside PyTorch in batches: the same inputs, the same machine, in turn.

    python benches/inputs.py FOLDER
    python benches/compare.py FOLDER [--rounds 3] [--core 1] [--only SmolLM2,solve] [--write docs/performance.md]

Each side runs in a process of its own, one after the other, `--rounds` times, with one thread on the one core that `taskset` gives
it. Beside `reference/measure.py`, the published way, there is `reference/batched.py`: PyTorch as an engineer would write it who
knows where time goes. What is compared is CPU time (user and system), which other programs disturb least; ratios are taken of
the runs that stood beside each other, and the table has medians. Loading is counted on no side; peak memory is that of the
whole process. Above the table stand the CPU's kind and how fast each side's library multiplies matrices, measured before and
after. Where the libraries differ by more than 15 %, the table says as well what would be left of a factor if they were as fast as
each other. Needs torch and transformers, and taskset.
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
SIDES = ("ours", "rounded", "reference", "batched")
PRODUCTS = ("f32", "f64", "bf16")


class Case:
    """A row of the table, or two. `words` are what the sides read, `counts` how many units each works on (`{n}` in the words), `goals` the
    factors over reference and batched, `numbers` the type that its products are in, on all sides if they are `alike`.
    With `rounded`, the factors in bf16, there is a second row: our side with `compute: bf16`, beside the same runs of the others, which are in f32."""

    def __init__(self, name, kind, words, counts=(1, 1, 1), goals=(None, None), numbers="f32", batched=True, rounded=None, alike=True):
        self.name, self.kind, self.words, self.goals, self.numbers, self.rounded = name, kind, words, goals, numbers, rounded
        self.alike = alike
        self.counts = dict(zip(("ours", "reference", "batched"), counts))
        if rounded:
            self.counts["rounded"] = self.counts["ours"]
        if not batched:
            self.counts.pop("batched", None)

    def command(self, side):
        theirs = {"ours": "", "rounded": " compute=bf16"}.get(side, " threads=1")
        return [self.kind, *(self.words.format(n=self.counts[side]) + theirs).split()]


def targets(name, model, layer, counts, goals, rounded, steps=20):
    # No search ends before its last step: how many steps a request takes must not decide what is measured.
    words = f"model={model} layer={layer} steps={steps} stop_loss=0 parallel_requests=16 requests={{n}}"
    return Case(f"{name}: target at layer {layer}, per request", "targets", words, counts, goals, rounded=rounded)


def moments(name, model, layers, documents, goals, rounded):
    words = f"model={model} documents={documents} layers={','.join(map(str, layers))} batch_tokens=2048"
    of = f"layers {layers[0]}–{layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
    return Case(f"{name}: second moments of {of}, {documents} documents", "moments", words, goals=goals, rounded=rounded)


def solve(objective, f, d, batch, cached, goal):
    words = f"f={f} d={d} batch={batch} objective={objective} cached={cached}"
    name = f"{objective.upper()}, {batch} edits, f {f}, {'factor cached' if cached else 'cold'}"
    return Case(name, "solve", words, goals=(goal, None), numbers="f64", batched=False)


def later(name, method, precision, batch, before, goal, f=6400, d=1600):
    words = f"method={method} f={f} d={d} batch={batch} before={before} cold=0 rounds={{n}} precision={precision}"
    return Case(name, "round", words, (4, 1), (goal, None), precision, batched=False, alike=precision == "f64")


def cold(name, method, precision, batch, f=6400, d=1600):
    words = f"method={method} f={f} d={d} batch={batch} before=0 cold=1 precision={precision}"
    return Case(name, "round", words, numbers=precision, batched=False, alike=precision == "f64")


def edit(name, count, goals):
    # The published code takes requests one by one: what few of them take tells what more would.
    words = "model=small layers=4,5,6,7,8 layer=8 steps=20 stop_loss=0 parallel_requests=16 requests={n}"
    return Case(name, "edit", words, (count, 4), goals, batched=False)


def cases():
    band = [4, 5, 6, 7, 8]
    yield targets("SmolLM2-135M", "smollm2", 8, (16, 1, 4), (5, None), (8, None))
    yield moments("SmolLM2-135M", "smollm2", band, 8, (9, None), (13, None))
    yield moments("SmolLM2-135M", "smollm2", [8], 8, (3, None), (4.5, None))
    yield Case("SmolLM2-135M: scores of 32 records", "scores", "model=smollm2 requests=32 batch_tokens=4096", goals=(2.5, 1.4), rounded=(4, 2.2))
    words = "model=smollm2 texts=32 requests=32 length=100 batch=32"
    yield Case("SmolLM2-135M: 32 texts to 100 tokens", "texts", words, goals=(2, None), batched=False, rounded=(3, None))
    words = "model=smollm2 texts=1 requests=1 length=100 batch=1"
    yield Case("SmolLM2-135M: one text to 100 tokens", "texts", words, batched=False, rounded=(None, None))
    yield targets("GPT-J's depth", "deep", 8, (16, 1, 4), (5, None), (8, None))
    yield moments("GPT-J's depth", "deep", band, 8, (None, None), (None, None))
    yield moments("GPT-J's depth", "deep", [8], 8, (None, None), (None, None))
    yield targets("GPT-2 small's shape", "small", 5, (16, 1, 4), (8.5, None), (15, None))
    yield targets("GPT-2 small's shape", "small", 8, (16, 1, 4), (12.5, None), (20, None))
    yield moments("GPT-2 small's shape", "small", band, 24, (4.2, None), (6.5, None))
    yield moments("GPT-2 small's shape", "small", [8], 24, (1.35, None), (2.3, None))
    yield solve("memit", 6400, 1600, 32, 1, 30)
    yield solve("emmet", 6400, 1600, 32, 1, 80)
    yield solve("memit", 6400, 1600, 32, 0, 2)
    yield solve("emmet", 6400, 1600, 32, 0, 2)
    yield solve("memit", 6400, 1600, 256, 1, 6)
    yield solve("emmet", 6400, 1600, 256, 1, 15)
    for f, d in ((14336, 4096), (18944, 3584)):
        yield solve("memit", f, d, 100, 1, None)
        yield solve("memit", f, d, 100, 0, None)
    yield solve("memit", 3072, 768, 32, 1, None)
    yield solve("memit", 3072, 768, 32, 0, None)
    for precision in ("f32", "f64"):
        for batch, before in ((1, 200), (100, 4)):
            shape = f"{batch} edits, {precision}"
            yield later(f"round of AlphaEdit, {shape}", "alphaedit", precision, batch, before, 10)
            yield later(f"round of MEMIT-seq, {shape}", "memit_seq", precision, batch, before, 10)
        yield cold(f"first round of MEMIT-seq, {precision}", "memit_seq", precision, 100)
        yield cold(f"first round of AlphaEdit, f 3072, {precision}", "alphaedit", precision, 100, 3072, 768)
    yield edit("whole MEMIT run, 32 edits, 5 layers, per request", 32, (8, None))
    yield edit("whole MEMIT run, 128 edits, 5 layers, per request", 128, (9, None))


def program():
    """Builds the program that times our side and finds it."""
    command = ["cargo", "bench", "--workspace", "--bench", "measure", "--no-run"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    found = re.search(r"Executable \S+ \((\S+)\)", done.stderr)
    if done.returncode or not found:
        sys.exit(f"{done.stderr}\n{' '.join(command)} failed")
    return HERE.parent / found[1]


class Machine:
    """Starts either side's programs, each on the same core."""

    def __init__(self, ours, reference, core):
        python = [sys.executable, "-m"]
        self.start = {"ours": [ours], "rounded": [ours], "reference": [*python, reference], "batched": [*python, "reference.batched"]}
        self.core = core

    def once(self, side, words):
        command = ["taskset", "-c", str(self.core), *self.start[side], *words]
        one = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM"), "1")
        done = subprocess.run(command, cwd=HERE, env=os.environ | one, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stderr}\n{' '.join(map(str, command))} failed")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def products(self):
        """GFLOP a second of CPU time of either side's library, by type: in bf16, of factors that are rounded to it, which is part of what is
        timed on our side."""
        rates = {}
        for numbers in PRODUCTS:
            for side in ("ours", "reference"):
                words = f"gemm m=1024 k=1024 n=2048 repeat=12 dtype={numbers}".split()
                rates[side, numbers] = self.once(side, words)["gflops_per_cpu_second"]
        return rates


def compare(case, machine, inputs, rounds):
    """The rows of a case."""
    runs = [{side: machine.once(side, [*case.command(side), f"inputs={inputs}"]) for side in case.counts} for _ in range(rounds)]
    row = {"case": case.name, "goals": case.goals, "numbers": case.numbers, "alike": case.alike, "rounds": rounds, "load": os.getloadavg()[1]}
    for side, count in case.counts.items():
        for what in ("cpu", "wall"):
            row[f"{side}_{what}"] = statistics.median(run[side][what] for run in runs) / count
        row[f"{side}_peak"] = max(run[side]["peak_mib"] for run in runs)
        if side not in ("ours", "rounded"):
            # The ratio of each pair: what disturbs the machine for long disturbs both of a pair.
            scale = case.counts["ours"] / count
            ratios = [scale * run[side]["cpu"] / run["ours"]["cpu"] for run in runs]
            row[f"over_{side}"] = statistics.median(ratios)
            row[f"range_{side}"] = [min(ratios), max(ratios)]
    rows = [row]
    if case.rounded:
        rows.append(rounded(case, row, runs))
    for what in ("nll", "new_tokens", "tokens"):
        if what in runs[0]["reference"] and what in runs[0]["ours"]:
            row[what] = {side: runs[0][side].get(what) for side in case.counts}
    if "nll" in row:
        exact = row["nll"]["reference"]
        for side, value in row["nll"].items():
            # Where the sides do not compute the same, their times say nothing.
            if abs(value - exact) > (1e-2 if side == "rounded" else 1e-4) * exact:
                sys.exit(f"{case.name}: mean likelihoods differ: {row['nll']}")
    return rows


def rounded(case, row, runs):
    """The row of our side with products in bf16, from the same runs."""
    times = statistics.median(run["ours"]["cpu"] / run["rounded"]["cpu"] for run in runs)
    made = row | {"case": f"the same with `compute: bf16`: {times:.2f} times as fast", "goals": case.rounded, "numbers": "bf16", "alike": False}
    made |= {f"ours_{what}": row[f"rounded_{what}"] for what in ("cpu", "wall", "peak")}
    for side in ("reference", "batched"):
        if side in case.counts:
            scale = case.counts["rounded"] / case.counts[side]
            made[f"over_{side}"] = statistics.median(scale * run[side]["cpu"] / run["rounded"]["cpu"] for run in runs)
    return made


def seconds(value):
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.3g} ms"


def kind_of_cpu():
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return f"{found[1] if found else 'unknown'} ({', '.join(flag for flag in known if flags and flag in flags[1].split())})"


def above(rates):
    """What stands above the table: the CPU's kind, and each library's median rate of products."""
    lines = [f"CPU: {kind_of_cpu()}; one core, one thread on each side.", ""]
    lines += ["| product of 1,024 × 1,024 × 2,048, GFLOP/s | " + " | ".join(PRODUCTS) + " |", "| --- | ---: | ---: | ---: |"]
    for side, name in (("reference", "PyTorch"), ("ours", "Palinode")):
        lines.append(f"| {name} | " + " | ".join(f"{rates[side, numbers]:.0f}" for numbers in PRODUCTS) + " |")
    return "\n".join(lines)


def median_rates(measured):
    return {key: statistics.median(rates[key] for rates in measured) for key in measured[0]}


def table(rows, rates):
    lines = [
        "| case | published way, CPU time | PyTorch in batches | Palinode | times faster than published | than batches | both at equal rates of products | goals | peak memory, MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for row in rows:
        own = rates["ours", row["numbers"]] / rates["reference", row["numbers"]]
        over = [row.get(f"over_{side}") for side in ("reference", "batched")]
        # Of a row in bf16 the others are in f32, and our rounds are in f64 beside any: there are no equal rates.
        equal = "" if not row["alike"] or abs(own - 1) <= 0.15 else " / ".join(f"{ratio / own:.1f}" for ratio in over if ratio)
        goals = [(goal, ratio) for goal, ratio in zip(row["goals"], over) if goal is not None and ratio]
        goals = " / ".join(f"{goal} {'✓' if ratio >= goal else '✗'}" for goal, ratio in goals)
        cells = [row["case"], seconds(row["reference_cpu"])]
        cells.append(seconds(row["batched_cpu"]) if "batched_cpu" in row else "")
        cells += [seconds(row["ours_cpu"]), *(f"{ratio:.1f}" if ratio else "" for ratio in over), equal, goals]
        cells.append(" / ".join(f"{row[f'{side}_peak']:.0f}" for side in SIDES if side != "rounded" and f"{side}_peak" in row))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=lambda p: Path(p).resolve(), help="the folder that benches/inputs.py filled")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=1, help="the core that all sides run on")
    parser.add_argument("--only", default="", help="cases whose name has one of these words, with commas between")
    parser.add_argument("--program", type=lambda p: Path(p).resolve(), help="the program of our side, where it is built already")
    parser.add_argument("--reference", default="reference.measure", help="a module that takes the place of reference/measure.py")
    parser.add_argument("--write", type=Path, help="a file to put the table into, between its two marks")
    parser.add_argument("--raw", type=Path, help="a file that gets a line of JSON for each case")
    args = parser.parse_args()
    machine, rows = Machine(args.program or program(), args.reference, args.core), []
    rates = [machine.products()]
    print(above(rates[0]), flush=True)
    for case in cases():
        if not any(word in case.name for word in args.only.split(",")):
            continue
        made = compare(case, machine, args.inputs, args.rounds)
        rows += made
        print("\n".join(table(made, rates[0]).splitlines()[2:]), flush=True)
        if args.raw:
            with args.raw.open("a") as out:
                out.writelines(json.dumps(row) + "\n" for row in made)
    rates = median_rates([*rates, machine.products(), machine.products()])
    text = f"{above(rates)}\n\n{table(rows, rates)}"
    print(text)
    if args.write:
        before, after = (page := args.write.read_text()).split(BEGIN)[0], page.split(END)[1]
        args.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
