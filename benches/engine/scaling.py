#!/usr/bin/env python3
"""What it costs to part the work of long stages: second moments and targets of a model of GPT-2 small's shape, in 1, 2, 4 and 8 parts.

    python3 benches/engine/scaling.py --palinode target/release/palinode [--rounds 1] [--parts 1 8 2 4] [--slurm]

The processes share one core, which taskset gives them, with one thread each: what is compared is the CPU time of all of them together,
user and system, with that of one part; how long anything waits does not count. The numbers of parts take turns, each round in another order.
Every run has a store of its own, and at the end all runs must have the same results, by their digests. With --slurm the shares are jobs on
tools/slurm/fixture.sh (Debian's slurm-wlm and munge); the time of each job is then what its shell says of its children, and that of Slurm's
daemons counts nowhere. Needs numpy for the model's random weights, and room for the sums: 8 f² bytes for each layer and part.

As it is, a run has some three minutes of work. --words 5 --steps 20 make it more than ten.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[2]
STAGES = ("moments", "targets")
ONE = dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"), "1")


def inputs(folder, args):
    """A model, a corpus, requests and a pipeline. Words are drawn, so that nothing has to be fetched."""
    maker = [sys.executable, str(HERE / "scripts/make_random_model.py"), "--shape", "gpt2-small", "--out", str(folder / "model")]
    subprocess.run(maker, check=True, stdout=subprocess.DEVNULL)
    draw = random.Random(1)
    words = sorted({word for line in (HERE / "examples/demo-model/corpus.txt").read_text().splitlines() for word in line.split()})
    with open(folder / "corpus.txt", "w") as corpus:
        for _ in range(args.documents):
            corpus.write(" ".join(draw.choices(words, k=args.words)) + "\n")
    plain = [word for word in words if word.isalpha()]
    requests = [{
        "case_id": number,
        "requested_rewrite": {
            "prompt": "The friend of {} lives in", "subject": " ".join(draw.choices(plain, k=2)),
            "target_new": {"str": draw.choice(plain)}, "target_true": {"str": draw.choice(plain)},
        },
    } for number in range(args.requests)]
    (folder / "requests.json").write_text(json.dumps(requests))
    (folder / "pipeline.yaml").write_text(f"""\
name: scaling
stages:
  model: {{ uses: load_model, with: {{ path: model }} }}
  edits: {{ uses: load_requests, with: {{ path: requests.json }} }}
  moments:
    uses: covariance
    inputs: {{ model: model }}
    with: {{ corpus: corpus.txt, layers: {args.layers}, samples: {args.documents} }}
  targets:
    uses: targets
    inputs: {{ model: model, requests: edits }}
    with: {{ layer: {args.layers[-1]}, steps: {args.steps}, stop_loss: 0 }}
""")


def children():
    """CPU time of all children that have ended, with theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def results(store):
    made = (json.loads(path.read_text()) for path in (store / "actions").rglob("*.json"))
    return {one["instance"]: one["content"] for one in made}


def slurm(folder):
    """A cluster of four nodes."""
    subprocess.run([str(HERE / "tools/slurm/fixture.sh"), "up", str(folder / "slurm"), "4"], check=True, stdout=subprocess.DEVNULL)
    os.environ.update(SLURM_CONF=str(folder / "slurm/slurm.conf"), PALINODE_SETTINGS=str(folder / "settings.yaml"))


def profile(folder, parts, core):
    """Settings for so many parts. The job's shell stays, in place of being replaced by the program, and says what its children used."""
    (folder / "used").write_text("")
    exported = " ".join(f"{name}={value}" for name, value in ONE.items())
    (folder / "settings.yaml").write_text(f"""\
slurm:
  default:
    light: here
    all:
      partition: main
      memory: 1G
      parts: {parts}
      prelude: |
        export {exported}
        taskset -cp {core} $$ >/dev/null
        exec() {{ "$@"; local code=$?; times >>{folder / "used"}; exit $code; }}
""")


def told(folder):
    """CPU time that jobs wrote down: lines such as `0m1.25s 0m0.10s`, of the shell and of its children."""
    spans = (folder / "used").read_text().split()
    return sum(60 * float(minutes) + float(seconds.rstrip("s")) for minutes, seconds in (span.split("m") for span in spans))


def measure(args, folder, parts):
    """CPU time of each stage in so many parts, and the digests of all results."""
    store = folder / "store"
    executor = "slurm" if args.slurm else f"processes:{parts}"
    base = ["taskset", "-c", str(args.core), str(args.palinode.resolve()), "run", "pipeline.yaml", "--quiet", "--no-preflight"]
    base += ["--store", str(store)]
    # What stages begin with is none of theirs: the model's digest and the requests.
    subprocess.run([*base, "--until", "model", "--until", "edits"], cwd=folder, env=os.environ | ONE, check=True, stdout=subprocess.DEVNULL)
    took = {}
    for stage in STAGES:
        if args.slurm:
            profile(folder, parts, args.core)
        begin = children()
        subprocess.run([*base, "--until", stage, "--executor", executor], cwd=folder, env=os.environ | ONE, check=True, stdout=subprocess.DEVNULL)
        took[stage] = children() - begin + (told(folder) if args.slurm else 0)
    made = results(store)
    shutil.rmtree(store)
    return took, made


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--palinode", type=Path, default=Path("target/release/palinode"))
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 8, 2, 4])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--slurm", action="store_true", help="as jobs of a Slurm on this machine")
    # Eight parts of each stage: 4,096 documents and 64 requests are one.
    parser.add_argument("--documents", type=int, default=8 * 4096)
    parser.add_argument("--words", type=int, default=1, help="of a document")
    parser.add_argument("--layers", type=int, nargs="+", default=[1])
    parser.add_argument("--requests", type=int, default=8 * 64)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--work", type=Path, help="a folder for inputs and stores, which stays")
    args = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    folder = (args.work or Path(tempfile.mkdtemp())).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        inputs(folder, args)
        if args.slurm:
            slurm(folder)
        # Results are named by their digests.
        taken, first = {parts: [] for parts in args.parts}, None
        for turn in range(args.rounds):
            shift = turn % len(args.parts)
            for parts in args.parts[shift:] + args.parts[:shift]:
                took, made = measure(args, folder, parts)
                taken[parts].append(took)
                said = ", ".join(f"{name} {took[name]:.1f} s ({made[name][:12]})" for name in STAGES)
                print(f"round {turn + 1}, {parts} parts: {said}", file=sys.stderr, flush=True)
                first = first or made
                if made != first:
                    sys.exit(f"{parts} parts: the results are others than before: {made} and {first}")
        table(args, taken)
        print(f"\n{len(first)} results of each of {args.rounds * len(args.parts)} runs: equal digests")
    finally:
        if args.slurm:
            subprocess.run([str(HERE / "tools/slurm/fixture.sh"), "down", str(folder / "slurm")], check=False)
        if not args.work:
            shutil.rmtree(folder)


def table(args, taken):
    """Medians of the rounds; ratios are taken within a round."""
    where = "jobs of Slurm" if args.slurm else "processes"
    print(f"{args.documents} documents, layers {args.layers}; {args.requests} requests, {args.steps} steps; {where}; rounds: {args.rounds}\n")
    print("| parts | second moments, CPU s | targets, CPU s | together | beside one part |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    one = taken[min(taken)]
    for parts, rounds in sorted(taken.items()):
        middle = [statistics.median(took[name] for took in rounds) for name in STAGES]
        ratio = statistics.median(sum(took.values()) / sum(alone.values()) for took, alone in zip(rounds, one))
        print(f"| {parts} | {middle[0]:.1f} | {middle[1]:.1f} | {statistics.median(sum(took.values()) for took in rounds):.1f} "
              f"| {100 * (ratio - 1):+.1f} % |")


if __name__ == "__main__":
    main()
