"""What the tests share: the demo with few steps, in a store of its own."""

import atexit
import os
import sys
import shutil
import tempfile
from functools import cache
from pathlib import Path

import palinode

PYTHON = sys.executable
ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "pipelines" / "demo.yaml"
MODEL = ROOT / "examples" / "demo-model"
AXES = ("objective", "strategy")

FOLDER = Path(tempfile.mkdtemp(prefix="palinode-tests-"))
atexit.register(shutil.rmtree, FOLDER)
STORE = FOLDER / "store"
OUT = FOLDER / "store-out"


def how(store=STORE, more=None):
    """Arguments of a run that takes seconds; what it exports lies beside its store."""
    few = {
        "matrix.objective": ["memit", "emmet"],
        "stages.edits.with.limit": 6,
        "stages.moments.with.samples": 200,
        "stages.targets.with.steps": 12,
        "stages.out.with.path": f"{store}-out/${{matrix.objective}}-${{matrix.strategy}}",
        "stages.out.with.formats": ["model", "update", "peft"],
    }
    return {"store": str(store), "set": few | (more or {})}


@cache
def demo():
    """The demo, run once for all tests: the run and its events."""
    events = []
    run = palinode.Pipeline(DEMO).run(progress=events.append, **how())
    return run, events


def plain_environment():
    """The environment of a program that tests start."""
    return {**os.environ, "PYTHONUNBUFFERED": "1"}
