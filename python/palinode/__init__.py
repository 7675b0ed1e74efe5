"""Palinode from Python: pipelines that edit facts in language models, their results, and edits of a model in memory.

Everything is computed by the program ``palinode``, which this package brings along: a pipeline that is run here and one that is run at
a terminal are the same run, in the same store, with the same bits.

>>> pipeline = palinode.Pipeline("pipelines/demo.yaml")
>>> run = pipeline.run(progress=palinode.show_progress)
>>> run.scores()                                      # a pandas frame, a row for each cell
>>> run.artifact("targets").tensors()["delta"]        # a numpy array, [requests, hidden]
>>> palinode.apply(model, "out/demo/memit-memit")     # a model of transformers, in memory
>>> palinode.revert(model)                            # the very bits from before
>>> palinode.Update("out/demo/memit-memit").without(2)  # an update without one of its edits

Importing it needs the standard library alone. Tables need pandas, arrays numpy, edits of a model torch.
"""

from palinode._artifact import Artifact
from palinode._edit import Applied, Change, Edit, Update, apply, edits, load_adapter, revert
from palinode._errors import (
    ChangedError,
    DoubtfulError,
    InputError,
    InternalError,
    InterruptedRun,
    LimitError,
    Mistake,
    NumericalError,
    PalinodeError,
    PipelineError,
    StoreError,
    UnworkableError,
    UsageError,
)
from palinode._pipeline import Checked, Pipeline, Plan, stage
from palinode._program import program, version
from palinode._progress import Event, show_progress
from palinode._results import Run, open_run, runs
from palinode._running import Running

__all__ = [
    "Applied",
    "Artifact",
    "Change",
    "ChangedError",
    "Checked",
    "DoubtfulError",
    "Edit",
    "Event",
    "InputError",
    "InternalError",
    "InterruptedRun",
    "LimitError",
    "Mistake",
    "NumericalError",
    "PalinodeError",
    "Pipeline",
    "PipelineError",
    "Plan",
    "Run",
    "Running",
    "StoreError",
    "UnworkableError",
    "Update",
    "UsageError",
    "apply",
    "edits",
    "load_adapter",
    "open_run",
    "program",
    "revert",
    "runs",
    "show_progress",
    "stage",
    "version",
]
