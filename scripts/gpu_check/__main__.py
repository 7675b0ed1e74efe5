"""Does the work of gpu-check.sh, which says what it is for."""

import argparse
import platform
import re
import shutil
import sys
from datetime import date
from pathlib import Path

import reference
from agreement import MODELS, agreement, tolerances
from inputs import SHAPES
from program import ROOT, Palinode
from shapes import timed

# Seconds that the published MEMIT run took for 10,000 edits of GPT-J: targets, updates.
PUBLISHED, MANY = (23547, 3226), 10_000


class Table:
    """What is known so far, in a file that is whole at every moment."""

    def __init__(self, path):
        self.path, self.lines = path, []

    def add(self, *lines):
        self.lines += lines
        self.path.write_text("\n".join(self.lines) + "\n")
        print(*lines, sep="\n", flush=True)

    def head(self, *columns):
        self.add("", "| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1))

    def row(self, *cells):
        self.add("| " + " | ".join(cells) + " |")


def number(value, digits=3):
    """With so many digits that count; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def compare(args, table, folder, capability):
    """The small models; what was further apart than it may be."""
    failed = []
    for dtype in args.dtypes:
        most = tolerances(dtype, capability, args.device)
        table.head(f"small models, {dtype}", *most)
        table.row("tolerance", *(f"{value:.0e}" for value in most.values()))
        for name, model in MODELS.items():
            found = agreement(args.palinode, args.device, model, dtype, folder)
            table.row(name, *(f"{found[what]:.1e}" for what in most))
            failed += [f"{what} of the {name} in {dtype}" for what in most if not found[what] <= most[what]]
    return failed


def time(args, table, folder, rates):
    """The published shapes."""
    with_torch = reference.there(args.device)
    for name in args.shapes:
        for dtype in args.dtypes:
            found = timed(args, name, dtype, folder)
            beside = reference.beside(args, name, dtype, folder) if with_torch else {}
            roof = rates[f"products, {dtype}"]
            share = lambda what: f"{found[what] / 1e12:.3g} TFLOP/s, {100 * found[what] / roof:.0f} %"
            table.head(f"{name}, {dtype}", "Palinode", "PyTorch, as published")
            table.row("load and first kernels, s", number(found["first"]), "")
            table.row(f"second moments of {len(SHAPES[name]['layers'])} layers, tokens/s", number(found["tokens/s"]), number(beside.get("tokens/s")))
            table.row("second moments, share of products", share("moments, FLOP/s"), "")
            table.row("targets, share of products", share("targets, FLOP/s"), "")
            each = found["factors"] / len(SHAPES[name]["layers"])
            table.row("one layer's factor in f64, s", f"{number(each)} (host)", f"{number(beside.get('a factor'))} (device)")
            table.row("most memory of the GPU, MiB", number(found["memory"], 6), "")
            table.head(f"{name}, {dtype}", "targets, s", "update, s", "scores, s", "s per edit", "PyTorch, s per target")
            for edits, (targets, update, scores) in found["edits"].items():
                each = (targets + update) / edits
                table.row(f"{edits} edits", number(targets), number(update), number(scores), number(each), number(beside.get("a target")))
            if name == "gpt-j-6b":
                edits, (targets, update, _) = max(found["edits"].items())
                targets, update = (seconds * MANY / edits for seconds in (targets, update))
                whole = targets + update + found["factors"]
                table.add(
                    "",
                    f"{MANY:,} edits, in proportion to {edits}: targets {number(targets)} s (published: {PUBLISHED[0]:,}), updates {number(update)} s and "
                    f"factors {number(found['factors'])} s (published: {PUBLISHED[1]:,}); {number(whole / 60)} minutes in all, the published {sum(PUBLISHED) / 60:.0f}.",
                )
        if not args.keep:
            shutil.rmtree(folder / name)


def main():
    parser = argparse.ArgumentParser(prog="gpu-check.sh", description="Compares a GPU with the CPU, and times published shapes on it.")
    parser.add_argument("--palinode", type=Path, default=ROOT / "target/release/palinode")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated; none for the comparison alone")
    parser.add_argument("--dtypes", default="f32,bf16", help="types that weights are held in, one after the other")
    parser.add_argument("--edits", default="1,32,256,1000", help="numbers of edits, each with facts of its own")
    parser.add_argument("--parallel-requests", type=int, help="requests whose targets are searched for at the same time; else as many as the program takes")
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens of second moments")
    parser.add_argument("--folder", type=Path, default=Path("gpu-check"))
    parser.add_argument("--no-agreement", action="store_true", help="leave the small models out")
    parser.add_argument("--keep", action="store_true", help="leave the models where they are made")
    args = parser.parse_args()
    args.dtypes, args.edits = args.dtypes.split(","), [int(n) for n in args.edits.split(",")]
    args.shapes = [name for name in args.shapes.split(",") if name and name != "none"]
    args.palinode, folder = args.palinode.resolve(), args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(folder / "table.md")
    doctor = Palinode(args.palinode, folder, args.device).doctor("--measure", args.device)
    rates = doctor.pop("rates")
    capability = int((re.findall(r"compute capability (\d+)", str(doctor)) or [0])[0])
    table.add(f"{date.today()}, {platform.processor() or platform.machine()}, device {args.device}", "")
    table.add(*(f"* {name}: {value}" for name, value in doctor.items() if not name.startswith(("store", "room"))))
    table.add(*(f"* {name}: {number(rate / 1e12)} TFLOP/s" for name, rate in rates.items()))
    failed = [] if args.no_agreement else compare(args, table, folder, capability)
    time(args, table, folder, rates)
    print(f"written: {table.path}")
    if failed:
        sys.exit("further apart than rounding explains: " + ", ".join(failed))


if __name__ == "__main__":
    main()
