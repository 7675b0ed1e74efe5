"""What a run has: its stages, tables of measurements, and artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from palinode._artifact import Artifact
from palinode._errors import UsageError
from palinode._program import PathLike, call, call_json, need, store_of


class Run:
    """A run of a pipeline, as the store has it. It is read once: open it again to see more of one that goes on.

    Attributes:
        id: the run's id.
        pipeline: the pipeline's name.
        ended: ``done``, ``failed``, ``interrupted``, ``not`` (it goes on), ``lost`` (its process is gone).
        store: the folder of the store.
        warnings: what was said of the stages.
    """

    def __init__(self, told: dict[str, Any], store: Path) -> None:
        self._record: dict[str, Any] = told["run"]
        self.store = store
        self.id: str = self._record["run"]
        self.pipeline: str = self._record["pipeline"]
        self.ended: str = self._record["ended"]
        self.warnings: list[Any] = told.get("warnings", [])

    @classmethod
    def read(cls, store: PathLike | None, run: str = "latest") -> Run:
        """Opens a run: its id, any unambiguous beginning or end of it, ``latest``, or ``latest~1`` for the one before."""
        folder = store_of(store)
        return cls(call_json(["show", run, "--store", str(folder)]), folder)

    def __repr__(self) -> str:
        return f"<Run {self.id} of {self.pipeline}: {self.ended}, {len(self._record['stages'])} stages>"

    @property
    def seconds(self) -> float | None:
        """How long it took; None while it goes on."""
        begun, ended = self._record["started_ms"], self._record.get("finished_ms")
        return None if ended is None else (ended - begun) / 1000

    @property
    def cost(self) -> dict[str, Any]:
        """``peak_memory`` of the program in bytes, and ``joules`` of the CPUs where the machine tells."""
        return dict(self._record.get("cost") or {})

    def stages(self) -> Any:
        """A pandas frame with a row for each stage instance: ``stage``, a column for each axis, ``state`` (cached, ran, failed, …),
        ``seconds``, ``key``."""
        pandas = need("pandas", "tables", "tables")
        rows = []
        for told in self._record["stages"]:
            row = {"instance": told["instance"], "stage": told["stage"], "uses": told["uses"], **_cell(told)}
            rows.append({**row, "state": _state(told), "seconds": told.get("seconds"), "key": told.get("key")})
        return pandas.DataFrame(rows)

    def table(self, stage: str, *, intervals: bool = False) -> Any:
        """What a stage measured, as a pandas frame: a row for each cell, a column for each axis and each metric.

        Shares are between 0 and 1, norms in the model's units. ``frame.attrs["columns"]`` says of each metric its label, what it means and
        whether more is better.

        Args:
            stage: the stage's name in the pipeline.
            intervals: also columns ``…_low`` and ``…_high``, the 95 % intervals over records, of metrics that have them.

        Raises:
            UsageError: there is no such stage.
            ImportError: pandas is not installed.
        """
        self._of_stage(stage)
        return self._table([stage], intervals)

    def scores(self, *, intervals: bool = False) -> Any:
        """Scores of edits: as :meth:`table`, for every stage that uses ``evaluate``."""
        stages = dict.fromkeys(told["stage"] for told in self._record["stages"] if told["uses"] == "evaluate")
        return self._table(list(stages), intervals)

    def artifact(self, stage: str, **cell: Any) -> Artifact:
        """The result of a stage.

        Args:
            stage: the stage's name in the pipeline.
            cell: values of axes, where the stage has a result for each cell: ``run.artifact("scores", objective="rome")``. As many as
                leave one.

        Raises:
            UsageError: no result fits, or several do.
            StoreError: the result is no longer in the store.
        """
        found = self.artifacts(stage, **cell)
        if len(found) != 1:
            names = ", ".join(artifact.instance for artifact in found)
            raise UsageError(f"`{stage}` has {len(found)} results that fit, {names}: name values of axes that leave one")
        return found[0]

    def artifacts(self, stage: str, **cell: Any) -> list[Artifact]:
        """The results of a stage in all cells, or in those that have these values."""
        of_stage = self._of_stage(stage)
        axes = {axis for told in of_stage for axis in _cell(told)}
        for axis in cell:
            if axis not in axes:
                raise UsageError(f"`{stage}` does not depend on an axis `{axis}`; its axes are {', '.join(sorted(axes)) or 'none'}")
        fits = [told for told in of_stage if all(_cell(told).get(axis) == value for axis, value in cell.items())]
        if not fits:
            has = ", ".join(told["instance"] for told in of_stage)
            raise UsageError(f"`{stage}` has no result with {cell}; there is {has}")
        results = call_json(["show", f"{self.id}:{stage}", "--store", str(self.store)])["results"]
        # A stage that did not get that far has no result.
        return [
            Artifact(stage, _cell(told), results[told["instance"]], self.store)
            for told in fits
            if told["instance"] in results
        ]

    def report(self, path: PathLike, assets: PathLike | None = None) -> Path:
        """Writes the run as one HTML page.

        Args:
            path: the page.
            assets: a folder for figures as SVG and tables as CSV and LaTeX.
        """
        extra = ["--assets", str(assets)] if assets is not None else []
        call(["report", self.id, "--store", str(self.store), "--output", str(path), *extra])
        return Path(path)

    def _of_stage(self, stage: str) -> list[dict[str, Any]]:
        found = [told for told in self._record["stages"] if told["stage"] == stage]
        if not found:
            names = list(dict.fromkeys(told["stage"] for told in self._record["stages"]))
            raise UsageError(f"run {self.id} has no stage `{stage}`; it has {', '.join(names)}")
        return found

    def _table(self, stages: list[str], intervals: bool) -> Any:
        pandas = need("pandas", "tables", "tables")
        facts = {found.instance: found.facts for stage in stages for found in self.artifacts(stage)} if intervals else {}
        rows, columns = [], {}
        for told in self._record["stages"]:
            if told["stage"] not in stages or not told.get("metrics"):
                continue
            told_columns = told.get("columns") or []
            columns.update({column["name"]: column for column in told_columns})
            row = {"stage": told["stage"], **_cell(told)}
            for name in (column["name"] for column in told_columns):
                row[name] = told["metrics"].get(name)
                interval = (facts.get(told["instance"], {}).get("intervals") or {}).get(name)
                if interval is not None:
                    row[f"{name}_low"], row[f"{name}_high"] = interval
            rows.append(row)
        frame = pandas.DataFrame(rows)
        frame.attrs["columns"] = columns
        return frame


def open_run(run: str = "latest", store: PathLike | None = None) -> Run:
    """Opens a run of a store: its id, any unambiguous beginning or end of it, ``latest``, or ``latest~1`` for the one before.

    Raises:
        StoreError: there is no such store or run.
    """
    return Run.read(store, run)


def runs(store: PathLike | None = None, pipeline: str | None = None, limit: int = 20) -> Any:
    """The runs of a store, newest first, as a pandas frame: ``run``, ``pipeline``, ``file``, ``ended``, ``started``, ``seconds``, ``device``.

    Args:
        store: the folder of the store.
        pipeline: only runs of the pipeline with this name.
        limit: at most so many; 0 for all.
    """
    pandas = need("pandas", "tables", "tables")
    only = ["--pipeline", pipeline] if pipeline is not None else []
    told = call_json(["runs", "--store", str(store_of(store)), "--limit", str(limit), *only])
    rows = []
    for run in told:
        begun, ended = run["started_ms"], run.get("finished_ms")
        row = {name: run.get(name) for name in ("run", "pipeline", "file", "ended", "device")}
        rows.append({**row, "started": pandas.Timestamp(begun, unit="ms", tz="UTC"), "seconds": ended and (ended - begun) / 1000})
    return pandas.DataFrame(rows)


def _cell(told: dict[str, Any]) -> dict[str, Any]:
    return dict(told.get("cell") or [])


def _state(told: dict[str, Any]) -> str:
    state = told["state"]
    if isinstance(state, dict):
        ((name, how),) = state.items()
        return str(how["is"]) if isinstance(how, dict) and "is" in how else str(name)
    return str(state)
