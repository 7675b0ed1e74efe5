#!/usr/bin/env python3
"""What it costs to part the work of long stages: second moments and targets of a model of GPT-2 small's shape, in 1, 2, 4 and 8 parts.

    python3 benches/engine/scaling.py --palinode target/release/palinode [--rounds 1] [--parts 1 8 2 4] [--slurm]

All processes share one core, which taskset gives them, with one thread each: what is compared is the CPU time of all processes of a run
together, user and system, with that of the run in one part; how long anything waits does not count. The runs take turns of half a minute
(--turn), in which one process of one run goes on and all others are stopped: each share has the core for itself, as it would have on a
machine of its own, and whatever else the machine does meanwhile slows all runs equally.
Every run has a store of its own, and at the end all runs must have the same results, by their digests.

With --slurm the shares are jobs on tools/slurm/fixture.sh (Debian's slurm-wlm and munge), which cannot be stopped so: one run follows the
other. The time of each job is then what its shell says of its children, and that of Slurm's daemons counts nowhere.
Needs numpy for the model's random weights, and room for the sums: 8 f² bytes for each layer and part.

As it is, a run has some three minutes of work. --words 5 --steps 6 make it nine minutes or more.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
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


class Run:
    """A run in so many parts. Its processes are one session, by which they are found."""

    def __init__(self, args, folder, parts):
        self.args, self.folder, self.parts = args, folder, parts
        self.store = folder / f"store-{parts}"
        self.session, self.last = None, 0
        self.took, self.made = {}, None
        self.thread = threading.Thread(target=self.measure, daemon=True)
        self.thread.start()

    def command(self, *more):
        """Runs it, and returns the CPU time of its process and of all that it started."""
        base = ["taskset", "-c", str(self.args.core), str(self.args.palinode.resolve()), "run", "pipeline.yaml", "--quiet", "--no-preflight"]
        process = subprocess.Popen(
            [*base, "--store", str(self.store), *more], cwd=self.folder, env=os.environ | ONE, stdout=subprocess.DEVNULL, start_new_session=True,
        )
        self.session = process.pid
        _, status, used = os.wait4(process.pid, 0)
        self.session = None
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"{self.parts} parts: exit code {process.returncode}")
        return used.ru_utime + used.ru_stime

    def measure(self):
        executor = "slurm" if self.args.slurm else f"processes:{self.parts}"
        # What stages begin with is none of theirs: the model's digest and the requests.
        self.command("--until", "model", "--until", "edits")
        took = {}
        for stage in STAGES:
            if self.args.slurm:
                profile(self.folder, self.parts, self.args.core)
            took[stage] = self.command("--until", stage, "--executor", executor)
            took[stage] += told(self.folder) if self.args.slurm else 0
        self.took, self.made = took, results(self.store)
        shutil.rmtree(self.store)

    def workers(self):
        """The processes that do the work. The one that began them waits, and is never stopped."""
        return processes(self.session, b"worker") if self.session else []

    def next(self):
        """The worker that goes on in this turn: each has its own."""
        there = self.workers()
        self.last = min((one for one in there if one > self.last), default=min(there, default=0))
        return self.last


def send(process, sent):
    try:
        os.kill(process, sent)
    except ProcessLookupError:
        pass


def turn(runs, run, seconds):
    """For so long one worker of `run` goes on, or until it has ended. Others that begin meanwhile are stopped at once."""
    goes_on, until = run.next(), time.monotonic() + seconds
    while time.monotonic() < until and run.thread.is_alive():
        for other in runs:
            for one in other.workers():
                send(one, signal.SIGCONT if one == goes_on else signal.SIGSTOP)
        if goes_on not in run.workers():
            goes_on = run.next()
        time.sleep(0.5)


def processes(session, word):
    """Those of a session that have a word in their command, oldest first: /proc/N/stat has the session after the name, the state, the parent
    and the group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[3]) == session and word in (stat.parent / "cmdline").read_bytes().split(b"\0"):
                found.append(int(stat.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return sorted(found)


def measure(args, folder, order):
    """CPU time of each stage in each number of parts, and the digests of all results."""
    if args.slurm:
        runs = []
        for parts in order:
            runs.append(Run(args, folder, parts))
            runs[-1].thread.join()
    else:
        runs = [Run(args, folder, parts) for parts in order]
        try:
            while alive := [run for run in runs if run.thread.is_alive()]:
                for run in alive:
                    turn(runs, run, args.turn)
        finally:
            # What began them would begin them again, and those that are stopped would wait for ever.
            for run in runs:
                for one in [run.session, *run.workers()] if run.session else []:
                    send(one, signal.SIGKILL)
    if failed := [run.parts for run in runs if run.made is None]:
        sys.exit(f"parts of runs that failed: {failed}")
    return runs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--palinode", type=Path, default=Path("target/release/palinode"))
    parser.add_argument("--parts", type=int, nargs="+", default=[1, 8, 2, 4])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--turn", type=float, default=30, help="seconds after which the next run goes on")
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
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
            for run in measure(args, folder, args.parts[shift:] + args.parts[:shift]):
                taken[run.parts].append(run.took)
                said = ", ".join(f"{name} {run.took[name]:.1f} s ({run.made[name][:12]})" for name in STAGES)
                print(f"round {turn + 1}, {run.parts} parts: {said}", file=sys.stderr, flush=True)
                first = first or run.made
                if run.made != first:
                    sys.exit(f"{run.parts} parts: the results are others than before: {run.made} and {first}")
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
