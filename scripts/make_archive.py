#!/usr/bin/env python3
"""Packs the built program for people without Rust or Python: one archive, its checksums, and a look at whether they are well.

    python3 scripts/make_archive.py [--output DIR] [--target TRIPLE] [--program FILE]

DIR (target/archives) gets palinode-VERSION-TRIPLE.tar.gz and SHA256SUMS. In the archive are the program without symbols (where `strip` is
there), completions for bash, zsh and fish, the schemas for editors, licences, README and CHANGELOG, laid out so that

    tar -xzf palinode-*.tar.gz -C /usr/local --strip-components=1

installs it. The same program gives the same bytes. The archive is unpacked again, and its program run, where it is for this machine.
"""

import argparse
import gzip
import hashlib
import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COMPLETIONS = {
    "bash": "share/bash-completion/completions/palinode",
    "zsh": "share/zsh/site-functions/_palinode",
    "fish": "share/fish/vendor_completions.d/palinode.fish",
}
BESIDE = {
    **{name: f"share/doc/palinode/{name}" for name in ("README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE")},
    **{f"docs/{name}.schema.json": f"share/palinode/{name}.schema.json" for name in ("pipeline", "part")},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "target" / "archives")
    parser.add_argument("--target", help="the target that the program was built for; this machine's where none is given")
    parser.add_argument("--program", type=Path, help="the program; target/release/palinode, or target/TRIPLE/release/palinode")
    args = parser.parse_args()
    own = host()
    target = args.target or own
    folder = ROOT / "target" / (args.target or "") / "release"
    program = args.program or folder / "palinode"
    # Completions are the same for every target; they are asked of a program that runs here.
    runs = program if target == own else ROOT / "target" / "release" / "palinode"
    version = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]
    name = f"palinode-{version}-{target}"
    files = {place: said([runs, "completions", shell]) for shell, place in COMPLETIONS.items()}
    files |= {place: (ROOT / path).read_bytes() for path, place in BESIDE.items()}
    files["bin/palinode"] = stripped(program)
    args.output.mkdir(parents=True, exist_ok=True)
    archive = args.output / f"{name}.tar.gz"
    archive.write_bytes(packed(name, files))
    sums = "".join(f"{digest(path)}  {path.name}\n" for path in sorted(args.output.glob("*.tar.gz")))
    (args.output / "SHA256SUMS").write_text(sums, encoding="utf-8")
    print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB, the program {len(files['bin/palinode']) / 1e6:.1f} MB")
    return check(archive, name, version, files) if target == own else 0


def host() -> str:
    """The target of this machine, as Rust names it."""
    machine = {"arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return f"{machine}-apple-darwin" if sys.platform == "darwin" else f"{machine}-unknown-linux-gnu"


def said(command: list[object]) -> bytes:
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE).stdout


def stripped(program: Path) -> bytes:
    """The program without its symbols."""
    strip = shutil.which("strip")
    if strip is None:
        return program.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "palinode"
        shutil.copy(program, copy)
        subprocess.run([strip, copy], check=True)
        return copy.read_bytes()


def packed(name: str, files: dict[str, bytes]) -> bytes:
    """A tar.gz in which nothing differs from one packing to the next: no times, no owners, one order."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for place, contents in sorted(files.items()):
            entry = tarfile.TarInfo(f"{name}/{place}")
            entry.size, entry.mode = len(contents), 0o755 if place.startswith("bin/") else 0o644
            tar.addfile(entry, io.BytesIO(contents))
    return out.getvalue()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(archive: Path, name: str, version: str, files: dict[str, bytes]) -> int:
    """What was packed comes out again and runs."""
    if packed(name, files) != archive.read_bytes():
        sys.exit("WRONG: packed twice, it differs")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        shown = said([Path(folder, name, "bin", "palinode"), "--version"]).decode().strip()
        if shown != f"palinode {version}":
            sys.exit(f"WRONG: the program says {shown!r}")
        for shell, place in COMPLETIONS.items():
            if b"preflight" not in (script := Path(folder, name, place).read_bytes()) or b"palinode" not in script:
                sys.exit(f"WRONG: the completions for {shell} know no flag of `run`")
            if shutil.which(shell) and shell != "fish":
                subprocess.run([shell, "-n", Path(folder, name, place)], check=True)
    if os.path.getsize(archive.parent / "SHA256SUMS") == 0:
        sys.exit("WRONG: there are no checksums")
    print(f"unpacked: {shown}; well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
