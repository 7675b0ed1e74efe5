#!/usr/bin/env python3
"""What a coordinator costs that has a thousand jobs at work: a pipeline of light stages on a cluster that is pretended.

    python3 benches/engine/workers.py --palinode target/release/palinode [--workers 1000] [--stages 10000] [--seconds 20]

Slurm's programs are stand-ins here, which ask a small server in this process. A job takes as long as it is drawn to take (exponential, of the
mean that is given), and then its result is copied from a store that was filled before: nobody computes. So what is measured is the
coordinator alone: its CPU time beside the time that passed, its peak memory, and how often it called which program. What a real Slurm adds is
measured by scripts/check_slurm.sh and docs/cluster.md. Needs nothing but Python's standard library, on Linux.
"""

import argparse
import collections
import heapq
import json
import os
import random
import re
import shlex
import shutil
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from compare import palinode_files

CLIENT = """#!{python}
import json, os, socket, sys
said = json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], "" if sys.stdin is None else sys.stdin.read()])
with socket.socket(socket.AF_UNIX) as way:
    way.connect({path!r})
    way.sendall(said.encode())
    way.shutdown(socket.SHUT_WR)
    sys.stdout.write(way.makefile().read())
"""


class Cluster:
    """Jobs that wait, work and end. One lock; a thread ends them when their time has come."""

    def __init__(self, workers, seconds, filled):
        self.workers, self.seconds, self.filled = workers, seconds, filled
        self.lock, self.random = threading.Condition(), random.Random(1)
        self.waiting, self.working, self.states = collections.deque(), [], {}
        self.arrays, self.most, self.calls = 0, 0, collections.Counter()
        self.manifests = {path.stem: path for path in filled.glob("actions/**/*.json")}
        threading.Thread(target=self.work, daemon=True).start()

    def answer(self, program, args, text):
        with self.lock:
            self.calls[program] += 1
            if program == "sbatch" and "--test-only" not in args:
                return self.submit(text)
            if program == "squeue":
                return "".join(f"{job[0]}_{job[1]}|{state}|n1|None|{self.comments[job[0]]}\n"
                               for job, state in self.states.items())
            if program == "scontrol":
                return "MaxArraySize = 1001\nClusterName = pretended\nSLURM_VERSION = 0\nAccountingStorageType = accounting_storage/none\n"
            return ""

    comments = {}

    def submit(self, text):
        self.arrays += 1
        options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.M))
        self.comments[self.arrays] = options["comment"]
        last = int(options["array"].split("%")[0].split("-")[1])
        items = json.loads(Path(shlex.split(text.splitlines()[-1])[-1]).read_text())["jobs"]
        for index in range(last + 1):
            self.states[self.arrays, index] = "PENDING"
            self.waiting.append(((self.arrays, index), items[index]))
        self.begin()
        self.lock.notify()
        return f"{self.arrays}\n"

    def begin(self):
        while self.waiting and len(self.working) < self.workers:
            job, item = self.waiting.popleft()
            self.states[job] = "RUNNING"
            heapq.heappush(self.working, (time.monotonic() + self.random.expovariate(1 / self.seconds), job, item))
        self.most = max(self.most, len(self.working))

    def work(self):
        with self.lock:
            while True:
                now = time.monotonic()
                while self.working and self.working[0][0] <= now:
                    _, job, item = heapq.heappop(self.working)
                    self.finish(item)
                    self.states[job] = "COMPLETED"
                self.begin()
                self.lock.wait(max(self.working[0][0] - time.monotonic(), 0) if self.working else None)

    def finish(self, item):
        """Does what a worker does, in order: the result, then the answer."""
        action = json.loads(Path(item["action"]).read_text())
        made = self.manifests[action["key"]]
        manifest = json.loads(made.read_text())
        names = [file["digest"] for file in manifest["output"]["files"].values()]
        for path in [path for name in names for path in self.filled.glob(f"blobs/**/*{name[2:]}*")] + [made]:
            to = Path(action["store"]) / path.relative_to(self.filled)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to.with_suffix(".new"))
            os.replace(to.with_suffix(".new"), to)
        answer = {"format": 1, "host": "n1", "pid": 1, "units": 0, "end": {"done": {"places": []}}}
        new = Path(item["answer"] + ".new")
        new.write_text(json.dumps(answer))
        os.replace(new, item["answer"])


def measure(command, folder, env):
    """Runs it; CPU seconds of the process alone (its children's apart), wall seconds, and its peak memory."""
    begin = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL)
    cpu, peak, ticks = 0, 0, os.sysconf("SC_CLK_TCK")
    while process.poll() is None:
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            cpu = (int(fields[11]) + int(fields[12])) / ticks
            peak = int(re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024
        except (OSError, TypeError, IndexError):
            pass
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {process.returncode}")
    return cpu, time.monotonic() - begin, peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--palinode", type=Path, default=Path("target/release/palinode"))
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--stages", type=int, default=10000)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    program = str(args.palinode.resolve())
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        palinode_files(folder, args.stages)
        # Results are as in any other store: keys know nothing of where they were made.
        subprocess.run([program, "run", "pipeline.yaml", "--quiet", "--store", "filled"], cwd=folder, check=True)
        cluster = Cluster(args.workers, args.seconds, folder / "filled")

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                self.wfile.write(cluster.answer(*json.loads(self.rfile.read())).encode())

        way = str(folder / "cluster.socket")
        server = socketserver.ThreadingUnixStreamServer(way, Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (folder / "bin").mkdir()
        for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo"):
            client = folder / "bin" / name
            client.write_text(CLIENT.format(python=sys.executable, path=way))
            client.chmod(0o755)
        (folder / "settings.yaml").write_text("slurm: { default: { light: jobs } }\n")
        env = dict(os.environ, PATH=f"{folder / 'bin'}:{os.environ['PATH']}", PALINODE_SETTINGS=str(folder / "settings.yaml"))
        cpu, wall, peak = measure([program, "run", "pipeline.yaml", "--quiet", "--executor", "slurm", "--store", "store"], folder, env)
        calls = ", ".join(f"{name} {count}" for name, count in sorted(cluster.calls.items()))
        print(f"{args.stages} stages of {args.seconds:g} s on average, {cluster.most} at work at most, in {cluster.arrays} arrays")
        print(f"coordinator: {cpu:.1f} CPU-s in {wall:.0f} s ({100 * cpu / wall:.1f} % of a core), {peak:.0f} MiB at most; calls: {calls}")


if __name__ == "__main__":
    main()
