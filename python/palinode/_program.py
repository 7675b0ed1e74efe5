"""The program: where it is, and how it is called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path
from typing import Any, Union

from palinode._errors import InternalError, failure

PathLike = Union[str, "os.PathLike[str]"]

#: Names the program to use in the place of the one that this package brought along.
VARIABLE = "PALINODE_PROGRAM"


def program() -> str:
    """The path of the program.

    It is the one that was installed with this package, else one on ``PATH``; the environment variable ``PALINODE_PROGRAM`` names another.

    Raises:
        FileNotFoundError: there is none.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            raise FileNotFoundError(f"{VARIABLE} names {named}, which is no program")
        return named
    name = "palinode"
    schemes = [None, f"{os.name}_user"]
    folders = [sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts") for scheme in schemes]
    # `pip install --target` puts it beside the package.
    folders.append(str(Path(__file__).resolve().parent.parent / "bin"))
    for folder in folders:
        found = os.path.join(folder, name)
        if os.access(found, os.X_OK):
            return found
    on_path = shutil.which(name)
    if on_path is None:
        raise FileNotFoundError(
            f"there is no program `{name}` in {folders[0]} or on PATH; install the package palinode again, or name the program with {VARIABLE}"
        )
    return on_path


def version() -> str:
    """The program's version, such as ``"0.1.0"``."""
    return call(["--version"]).split()[-1]


def environment() -> dict[str, str]:
    """The environment of the program: that of this process, without colours."""
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": os.environ.get("COLUMNS", "100")}


def call(args: list[str]) -> str:
    """Runs the program to its end, and gives what it wrote to stdout.

    Raises:
        PalinodeError: it ended with another exit code than 0.
    """
    done = attempt(args)
    if done.returncode != 0:
        raise failure(done.returncode, done.stderr)
    return done.stdout


def attempt(args: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end, however it ends."""
    return subprocess.run(
        [program(), *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=environment(),
        check=False,
    )


def call_json(args: list[str]) -> Any:
    """Runs the program with ``--json``, and gives the document that it wrote.

    Raises:
        PalinodeError: it ended with another exit code than 0.
    """
    return document(call([*args, "--json"]))


def document(text: str) -> Any:
    """A JSON document of the program.

    Raises:
        InternalError: it is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise InternalError(f"the program wrote something else than JSON: {error}: {text[:200]!r}") from error


def store_of(store: PathLike | None) -> Path:
    """The folder of the store: the one given, else that of ``PALINODE_STORE``, else ``.palinode`` in the working directory."""
    return Path(os.fspath(store) if store is not None else os.environ.get("PALINODE_STORE") or ".palinode")


def need(package: str, what: str, extra: str | None = None) -> Any:
    """A package that is not needed for everything.

    Raises:
        ImportError: it is not installed; says what it is needed for and how to install it.
    """
    try:
        return import_module(package)
    except ImportError as error:
        if error.name is not None and error.name.split(".")[0] != package.split(".")[0]:
            raise
        how = f'{Path(sys.executable).name} -m pip install "palinode[{extra}]"' if extra else f"pip install {package}"
        raise ImportError(f"{what} need {package}, which is not installed: {how}", name=package) from None
