"""What a command takes of memory, and what it reads of the disk, watched from outside.

    python benches/memory.py [--limit 8G] -- palinode run pipeline.yaml --blocks streamed

Prints the largest RssAnon of the command's process (memory that no file backs), the largest resident size, and the bytes that it had read
from disks when it ended (/proc/PID/io: what the system had in its cache is not among them). With --limit, the command runs in a memory
control group of its own, which is made in /sys/fs/cgroup and taken away afterwards; that needs root. Linux.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

VERSION_1, VERSION_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
SIZES = {"M": 1 << 20, "G": 1 << 30}


def group(limit):
    """A control group with this limit, and the file that says what it had at most, where it does."""
    one = (VERSION_1 / "memory.limit_in_bytes").exists()
    folder = (VERSION_1 if one else VERSION_2) / f"palinode-{os.getpid()}"
    folder.mkdir()
    (folder / ("memory.limit_in_bytes" if one else "memory.max")).write_text(str(limit))
    return folder, folder / ("memory.max_usage_in_bytes" if one else "memory.peak")


def fields(path):
    try:
        return dict(line.split(":", 1) for line in path.read_text().splitlines() if ":" in line)
    except (FileNotFoundError, ProcessLookupError):
        return {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", help="bytes of the control group, such as 8G")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    folder = most = None
    if args.limit:
        folder, most = group(int(args.limit[:-1]) * SIZES[args.limit[-1]])

    def enter():
        if folder:
            (folder / "cgroup.procs").write_text(str(os.getpid()))

    begun = time.time()
    child = subprocess.Popen(command, preexec_fn=enter)
    status, io = Path(f"/proc/{child.pid}/status"), Path(f"/proc/{child.pid}/io")
    peak, read = {"RssAnon": 0, "VmHWM": 0}, 0
    while child.poll() is None:
        now = fields(status)
        for name in peak:
            peak[name] = max(peak[name], int(now.get(name, "0 kB").split()[0]))
        read = int(fields(io).get("read_bytes", read))
        time.sleep(0.02)
    gib = lambda kib: f"{kib / (1 << 20):.2f} GiB"
    print(f"RssAnon at most {gib(peak['RssAnon'])}, resident at most {gib(peak['VmHWM'])}", file=sys.stderr)
    print(f"{read / (1 << 30):.1f} GiB from the disk, {time.time() - begun:.0f} s, exit code {child.returncode}", file=sys.stderr)
    if folder:
        if most.exists():
            print(f"the control group had {gib(int(most.read_text()) >> 10)} at most, cached files included", file=sys.stderr)
        folder.rmdir()
    sys.exit(child.returncode)


if __name__ == "__main__":
    main()
