#!/usr/bin/env python3
"""The same graph of light stages through Palinode's and Snakemake's Slurm executors, on a real Slurm on this machine.

    python3 -m venv venv && venv/bin/pip install snakemake snakemake-executor-plugin-slurm
    python3 benches/engine/slurm.py --palinode target/release/palinode --venv venv [--stages 200]

Starts tools/slurm/fixture.sh (Debian's slurm-wlm and munge). Every stage makes one small result and needs no other. Of each coordinator: its
own CPU time and that of the programs that it calls (not of the jobs), the time until the last submission and until the end, its peak memory,
and how often it called which program of Slurm. Snakemake's jobs forget SLURM_CONF, so for the time of the measurement /etc/slurm/slurm.conf leads
to the fixture's; where there is one already, Snakemake is left out. It runs with its defaults, and again with its arrays of jobs; both look jobs up by squeue.
"""

import argparse
import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import palinode_files, snakemake_files

HERE = Path(__file__).resolve().parents[2]
PROGRAMS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo")


def measure(command, folder, env, calls):
    calls.write_text("")
    began = time.monotonic()
    with open(folder / "said", "wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=said, stderr=said)
        own = children = peak = 0
        ticks = os.sysconf("SC_CLK_TCK")
        while process.poll() is None:
            try:
                fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
                own, children = ((int(fields[i]) + int(fields[i + 1])) / ticks for i in (11, 13))
                peak = int(re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) / 1024
            except (OSError, TypeError, IndexError):
                pass
            time.sleep(0.05)
    wall = time.monotonic() - began
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit {process.returncode}\n{(folder / 'said').read_text()[-3000:]}")
    lines = [line.split() for line in calls.read_text().splitlines()]
    sent = [float(at) - began for name, at in lines if name == "sbatch"]
    counted = collections.Counter(name for name, _ in lines)
    said = ", ".join(f"{counted[name]} {name}" for name in PROGRAMS if counted[name])
    return f"{own:.1f} | {children:.1f} | {max(sent, default=0):.0f} | {wall:.0f} | {peak:.0f} | {said}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--palinode", type=Path, default=Path("target/release/palinode"))
    parser.add_argument("--venv", type=Path, default=Path("venv"))
    parser.add_argument("--stages", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--only", nargs="*", default=["palinode", "snakemake", "arrays"])
    args = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin"
    with tempfile.TemporaryDirectory() as top:
        top = Path(top)
        fixture = [str(HERE / "tools/slurm/fixture.sh")]
        subprocess.run([*fixture, "up", str(top / "slurm"), str(args.nodes)], check=True, stdout=subprocess.DEVNULL)
        usual = Path("/etc/slurm/slurm.conf")
        ours = not usual.exists()
        try:
            if ours:
                usual.parent.mkdir(exist_ok=True)
                usual.unlink(missing_ok=True)
                usual.symlink_to(top / "slurm/slurm.conf")
            else:
                args.only = [name for name in args.only if name == "palinode"]
            (top / "bin").mkdir()
            for name in PROGRAMS:
                # CLOCK_MONOTONIC, as Python reads it.
                counted = f'#!/bin/bash\nread up _ </proc/uptime\necho {name} $up >>{top / "calls"}\nexec {shutil.which(name)} "$@"\n'
                (top / "bin" / name).write_text(counted)
                (top / "bin" / name).chmod(0o755)
            (top / "settings.yaml").write_text("slurm: { default: { light: jobs, all: { partition: main, memory: 100M } } }\n")
            env = dict(os.environ, PATH=f"{top / 'bin'}:{os.environ['PATH']}", SLURM_CONF=str(top / "slurm/slurm.conf"),
                       PALINODE_SETTINGS=str(top / "settings.yaml"), NO_COLOR="1")
            snakemake = [str((args.venv / "bin/snakemake").absolute()), "--executor", "slurm", "--jobs", str(args.stages), "all",
                         "--default-resources", "slurm_partition=main", "mem_mb=100", "runtime=10", "--slurm-no-account",
                         "--slurm-status-command", "squeue", "--latency-wait", "10"]
            cases = {
                "palinode": ("Palinode", palinode_files, [str(args.palinode.resolve()), "run", "pipeline.yaml", "--quiet", "--executor", "slurm"]),
                "snakemake": ("Snakemake", snakemake_files, snakemake),
                "arrays": ("Snakemake, arrays", snakemake_files, [*snakemake, "--slurm-array-jobs", "all"]),
            }
            print(f"{args.stages} stages, {args.nodes} nodes\n")
            print("| coordinator | its CPU, s | CPU of what it calls, s | last submission after, s | end after, s | peak, MiB | calls |")
            print("| --- | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
            for name in args.only:
                title, files, command = cases[name]
                (top / name).mkdir()
                files(top / name, args.stages)
                print(f"| {title} | {measure(command, top / name, env, top / 'calls')} |", flush=True)
        finally:
            if ours:
                usual.unlink(missing_ok=True)
            subprocess.run([*fixture, "down", str(top / "slurm")], check=False)


if __name__ == "__main__":
    main()
