#!/usr/bin/env python3
"""Builds the Python wheel of this machine from what cargo has compiled, installs it in a fresh environment, and runs its tests.

    python3 scripts/check_wheel.py [--wheel FILE] [--models]

The wheel carries the program target/release/palinode: `cargo build --release` before it compiles everything, and maturin then finds it
compiled. Its platform tag is held against the symbols that the program needs (auditwheel). In an environment with nothing but the wheel,
numpy, pandas and pyarrow it runs the program, the types of the package (mypy) and the tests in python/tests.

--wheel FILE checks a wheel that was built elsewhere. --models also installs torch, transformers and peft, and runs the tests of edits in
memory: gigabytes, and minutes. Needs cargo, and Python 3.10 or newer with pip and venv.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "target" / "wheel"
TOOLS = ["maturin>=1.9,<2", "auditwheel>=6,<7", "mypy>=1.15,<3"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="check this wheel, and build none")
    parser.add_argument("--models", action="store_true", help="also test edits of models in memory (torch, transformers, peft)")
    args = parser.parse_args()
    # What is said comes before what the programs that are called say.
    sys.stdout.reconfigure(line_buffering=True)
    WORK.mkdir(parents=True, exist_ok=True)
    tools = WORK / "tools"
    if not all((tools / "bin" / name).exists() for name in ("maturin", "auditwheel", "mypy")):
        environment(tools, TOOLS)
    wheel = args.wheel or build(tools)
    contents(wheel)
    tag(wheel, tools)
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "venv"
        extras = "tables,torch,peft" if args.models else "tables"
        environment(fresh, [f"palinode[{extras}] @ {wheel.resolve().as_uri()}"])
        said = run([fresh / "bin" / "palinode", "--version"], cwd=folder).strip()
        must(said == f"palinode {version()}", f"the program says {said!r}")
        print(f"installed: {said}")
        package = run([fresh / "bin" / "python", "-c", "import palinode; print(*palinode.__path__)"], cwd=folder).strip()
        must(package.startswith(folder), f"the package is imported from {package}")
        config = ROOT / "pyproject.toml"
        print("types:", run([tools / "bin" / "mypy", "--config-file", config, "-p", "palinode"], cwd=Path(package).parent).strip())
        for pattern in ["test_*.py", *(["check_*.py"] if args.models else [])]:
            tests = [fresh / "bin" / "python", "-m", "unittest", "discover", "-s", ROOT / "python" / "tests", "-p", pattern]
            step = subprocess.run(tests, cwd=folder, env=plain(), check=False)
            must(step.returncode == 0, f"tests failed: {pattern}")
    return 0


def build(tools: Path) -> Path:
    """The wheel, by maturin; says what cargo compiled for it."""
    out = WORK / "dist"
    shutil.rmtree(out, ignore_errors=True)
    command = [tools / "bin" / "maturin", "build", "--release", "--locked", "--out", out, "--color", "never"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    must(done.returncode == 0, done.stdout + done.stderr)
    compiled = re.findall(r"^ *Compiling (\S+)", done.stderr, re.MULTILINE)
    print(f"built; cargo compiled {', '.join(compiled) or 'nothing'} for it")
    (wheel,) = out.glob("*.whl")
    print(f"wheel: {wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB")
    return wheel


def contents(wheel: Path) -> None:
    """What a wheel of this package has: the modules, the mark that they have types, the licences, and the program."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        modules = {f"palinode/{path.name}" for path in (ROOT / "python" / "palinode").iterdir() if path.is_file()}
        found = {name for name in names if name.startswith("palinode/")}
        must(found == modules, f"the wheel has {sorted(found ^ modules)} too much or too little")
        about = f"palinode-{version()}"
        program = f"{about}.data/scripts/palinode"
        must(program in names, f"the wheel has no {program}")
        must(archive.getinfo(program).external_attr >> 16 & 0o111 == 0o111, "the program is not executable")
        licences = {f"{about}.dist-info/licenses/LICENSE-{name}" for name in ("MIT", "APACHE")}
        must(licences <= names, f"the wheel has not {licences - names}")
        metadata = archive.read(f"{about}.dist-info/METADATA").decode()
        for line in (f"Version: {version()}", "License-Expression: MIT OR Apache-2.0", "Requires-Python: >=3.10"):
            must(line in metadata, f"the metadata does not say {line!r}:\n{metadata[:600]}")


def tag(wheel: Path, tools: Path) -> None:
    """The platform tag promises no older C library than the program's symbols allow, by another program than the one that gave the tag."""
    platform = wheel.stem.split("-")[-1]
    if not platform.startswith(("manylinux", "linux")):
        print(f"tag: {platform}, which only its own system can check")
        return
    must(platform.startswith("manylinux"), f"{platform} is no tag that an index takes")
    said = " ".join(run([tools / "bin" / "auditwheel", "show", wheel]).split())
    allowed = re.search(r'consistent with the following platform tag: "([^"]+)"', said)
    must(allowed is not None, f"auditwheel does not say a tag: {said}")
    glibc = re.compile(r"manylinux_2_(\d+)_(\w+)")
    promised, needed = glibc.search(platform), glibc.search(allowed[1])
    must(promised and needed and promised[2] == needed[2], f"{platform} is for another machine than {allowed[1]}")
    must(int(promised[1]) >= int(needed[1]), f"the tag promises glibc 2.{promised[1]}, and the program needs 2.{needed[1]}")
    print(f"tag: {platform}; auditwheel: the program needs glibc 2.{needed[1]}")


def environment(place: Path, packages: list[str]) -> None:
    """A fresh virtual environment with these packages."""
    shutil.rmtree(place, ignore_errors=True)
    run([sys.executable, "-m", "venv", place])
    run([place / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages])


def version() -> str:
    """That of the workspace."""
    return tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]


def plain() -> dict[str, str]:
    """This environment without what would lead tests to another program, package or store."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PALINODE"))}


def run(command: list[object], cwd: object = None) -> str:
    """What a command wrote; ends where it fails, with all that it wrote."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=plain(), capture_output=True, text=True, check=False)
    must(done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def must(holds: object, words: str) -> None:
    if not holds:
        sys.exit(f"WRONG: {words}")


if __name__ == "__main__":
    begin = time.monotonic()
    code = main()
    print(f"the wheel is well, in {time.monotonic() - begin:.0f} s")
    sys.exit(code)
