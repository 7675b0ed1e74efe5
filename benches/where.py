"""Where the CPU's time goes in the cases of compare.py: how much of it is spent in matrix products, and what the rest is.

    python benches/where.py FOLDER --program PROGRAM [--core 1] [--only moments]

FOLDER is what benches/inputs.py filled, PROGRAM the `measure` bench (`cargo bench --workspace --bench measure --no-run` names it).
Needs Linux's `perf`, which looks at the program 200 times a second and writes down which functions are on the stack. Loading is
left out. Copying a weight together for a product is a column of its own, and no part of the products.
"""

import argparse
import collections
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CASES = {
    "SmolLM2 targets, layer 8": "targets model=smollm2 layer=8 steps=10 stop_loss=0 parallel_requests=16 requests=16",
    "SmolLM2 moments, layers 4–8": "moments model=smollm2 documents=48 layers=4,5,6,7,8 batch_tokens=2048",
    "SmolLM2 moments, layer 8": "moments model=smollm2 documents=48 layers=8 batch_tokens=2048",
    "SmolLM2 scores": "scores model=smollm2 requests=96 batch_tokens=4096",
    "SmolLM2 texts": "texts model=smollm2 texts=32 requests=32 length=80",
    "GPT-2 small targets, layer 5": "targets model=small layer=5 steps=10 stop_loss=0 parallel_requests=16 requests=16",
    "GPT-2 small moments, layers 4–8": "moments model=small documents=24 layers=4,5,6,7,8 batch_tokens=2048",
}

# The first that fits decides; a name counts wherever it is on the stack.
PARTS = {
    "loading": ("checkpoint", "Settings::model", "Text::open", "tokenizers::"),
    "copying weights": ("panels::pack", "Packed::new"),
    "products": ("kernels::product", "kernels::gram", "add_gram", "gemm", "faer::linalg::matmul"),
    "attention": ("kernels::attention",),
    "losses and choice of tokens": ("kernels::softmax", "generate::best", "generate::draw"),
    "norms": ("kernels::norm",),
    "nonlinearities": ("kernels::activation",),
}


def stacks(program, words, folder, core):
    """Function names of each sample, innermost first."""
    one = os.environ | {"RAYON_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "perf.data"
        run = ["taskset", "-c", str(core), "perf", "record", "-q", "-F", "199", "--call-graph", "dwarf,16384", "-o", data, program]
        done = subprocess.run([*run, *words.split(), f"inputs={folder}"], env=one, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        script = ["perf", "script", "-i", data, "-F", "ip,sym", "--no-inline"]
        text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    for block in text.split("\n\n"):
        names = [line.strip().split(" ", 1)[-1] for line in block.splitlines() if line.strip()]
        if names:
            yield names


def part(names):
    for name, words in PARTS.items():
        if any(word in frame for frame in names for word in words):
            return name
    return "the rest"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=lambda p: Path(p).resolve())
    parser.add_argument("--program", type=lambda p: Path(p).resolve(), required=True)
    parser.add_argument("--core", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name has one of these words, with commas between")
    parser.add_argument("--rest", type=int, default=0, help="how many functions of the rest are named below")
    args = parser.parse_args()
    shown = [name for name in PARTS if name not in ("loading", "products")] + ["the rest"]
    print("| case, share of CPU time in % | products | " + " | ".join(shown) + " |")
    print("| --- |" + " ---: |" * (len(shown) + 1))
    for name, words in CASES.items():
        if not any(word in name for word in args.only.split(",")):
            continue
        counts, rest = collections.Counter(), collections.Counter()
        for names in stacks(args.program, words, args.inputs, args.core):
            counts[of := part(names)] += 1
            if of == "the rest":
                rest[" < ".join(frame[:70] for frame in names[:4])] += 1
        whole = sum(counts.values()) - counts["loading"]
        cells = [f"{100 * counts[of] / whole:.1f}" for of in ["products", *shown]]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        for frame, count in rest.most_common(args.rest):
            print(f"    {100 * count / whole:.1f} {frame}")


if __name__ == "__main__":
    main()
