#!/usr/bin/env python3
"""What it costs to join the parts of second moments: bytes written, sums kept, and CPU time of the job that does nothing else.

    python3 benches/engine/joining.py --palinode target/release/palinode [--parts 8] [--layers 1]

The model and the corpus are those of scaling.py. The parts are computed first, as shares in processes; the job that joins them is killed there,
what it had joined is computed again, and then it runs by itself. Needs numpy, and Linux for the bytes.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import scaling


def action_of(store):
    return next(store.glob("runs/*/actions/*-moments.json"), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--palinode", type=Path, default=Path("target/release/palinode"))
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--layers", type=int, nargs="+", default=[1])
    args = parser.parse_args()
    program, work = str(args.palinode.resolve()), Path(tempfile.mkdtemp()).resolve()
    args.documents, args.words, args.requests, args.steps = args.parts * 4096, 1, 64, 2
    store, env = work / "store", os.environ | scaling.ONE
    try:
        scaling.inputs(work, args)
        run = [program, "run", "pipeline.yaml", "--quiet", "--no-preflight", "--store", str(store), "--until", "moments"]
        whole = subprocess.Popen([*run, "--executor", f"processes:{args.parts}"], cwd=work, env=env, stdout=subprocess.DEVNULL)
        # The action of the job that joins is written when all shares are done.
        while not action_of(store) and whole.poll() is None:
            time.sleep(0.05)
        whole.kill()
        whole.wait()
        # Workers end once their output is read no more.
        time.sleep(3)
        action = work / "action.json"
        shutil.copy(action_of(store), action)
        jobs = [{
            "action": str(action), "share": {"number": number, "of": args.parts},
            "events": str(work / f"{number}.jsonl"), "answer": str(work / f"{number}.json"),
        } for number in range(args.parts)]
        (work / "jobs.json").write_text(json.dumps({"format": 1, "jobs": jobs}))
        for number in range(args.parts):
            command = [program, "worker", "--jobs", str(work / "jobs.json"), "--job", str(number)]
            subprocess.run(command, cwd=work, env=env, check=True, stdout=subprocess.DEVNULL)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = subprocess.run([program, "worker", str(action)], cwd=work, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        written = (after.ru_oublock - before.ru_oublock) * 512 / 1e6
        print(f"{args.parts} parts, layers {args.layers}: {written:.1f} MB written, {said.count('unit_done')} sums kept, {cpu:.1f} s of CPU time; "
              f"result {scaling.results(store)['moments'][:12]}")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
