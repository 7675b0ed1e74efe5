"""Pipelines: from a file, or built in code."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Union

from palinode._errors import Mistake, PipelineError, StoreError, UsageError, failure
from palinode._program import PathLike, attempt, call_json, document, need, store_of
from palinode._progress import Callback
from palinode._results import Run
from palinode._running import Running

if TYPE_CHECKING:
    from typing_extensions import Unpack

Names = Union[str, Sequence[str]]


class How(TypedDict, total=False):
    """What :meth:`Pipeline.start` takes."""

    store: PathLike | None
    set: Mapping[str, Any] | None
    device: str | None
    blocks: str | None
    until: Names
    from_: Names
    only: Names
    force: Names
    jobs: int | None
    executor: str | None
    keep_going: bool
    wait: bool
    offline: bool
    preflight: bool


def stage(uses: str, inputs: Mapping[str, str] | None = None, **params: Any) -> dict[str, Any]:
    """A stage for :meth:`Pipeline.build`.

    >>> palinode.stage("distribute", strategy="${matrix.strategy}", layers=[0, 1, 2])

    Args:
        uses: the stage kind, as ``palinode stages`` lists them.
        inputs: for each port, the name of the stage whose result it reads.
        params: parameters, as ``palinode stages KIND`` explains them. A name that Python keeps for itself ends with an underscore
            (``lambda_``).
    """
    made: dict[str, Any] = {"uses": uses}
    if inputs:
        made["inputs"] = dict(inputs)
    if params:
        made["with"] = {name.removesuffix("_"): value for name, value in params.items()}
    return made


@dataclass(frozen=True)
class Checked:
    """A pipeline without mistakes.

    Attributes:
        name: the pipeline's name.
        stages: how many stages it has.
        instances: how many instances: each stage once for each of its cells.
        warnings: what is doubtful in the file.
        absent: files that it names and that are not on this machine.
    """

    name: str
    stages: int
    instances: int
    warnings: list[Mistake] = field(default_factory=list)
    absent: list[Mistake] = field(default_factory=list)


class Plan:
    """What a run would do, and why.

    Attributes:
        stages: a dict for each stage instance, as ``palinode plan --json`` prints it, with ``status``.
        counts: how many instances have each status: ``cached``, ``will_run``, ``depends_on``, …
        seconds: how long the nearest earlier results of what would run took together; None where nothing is known.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.stages: list[dict[str, Any]] = told["stages"]
        self.counts: dict[str, int] = {}
        for planned in self.stages:
            self.counts[planned["status"]] = self.counts.get(planned["status"], 0) + 1
        known = (told.get("estimate") or {}).get("known") or []
        self.seconds: float | None = sum(seconds for _, seconds in known) if known else None

    def __repr__(self) -> str:
        return f"<Plan {', '.join(f'{status} {count}' for status, count in self.counts.items())}>"

    def frame(self) -> Any:
        """A pandas frame with a row for each stage instance."""
        pandas = need("pandas", "tables", "tables")
        return pandas.DataFrame(self.stages)


class Pipeline:
    """A pipeline file. Relative paths in it start at its folder.

    Nothing is read before it is needed: :meth:`validate` says what is wrong with it.
    """

    def __init__(self, path: PathLike) -> None:
        self._path: Path | None = Path(path)
        self._text: str | None = None
        self._base = self._path.parent

    @classmethod
    def build(
        cls,
        name: str,
        stages: Mapping[str, Mapping[str, Any]],
        *,
        vars: Mapping[str, Any] | None = None,
        matrix: Mapping[str, Any] | None = None,
        base: PathLike = ".",
        **top: Any,
    ) -> Pipeline:
        """A pipeline that is built in code. docs/pipelines.md has the language; everything in it can be said here.

        >>> Pipeline.build("demo", {"model": stage("load_model", path="model")}, matrix={"objective": ["memit", "emmet"]})

        Args:
            name: its name.
            stages: the stages by name: what :func:`stage` makes, or dicts with ``uses``, ``inputs`` and ``with``.
            vars: values with a name, for ``${vars.name}``.
            matrix: axes and their values, for ``${matrix.name}``: a stage that mentions one runs once for each value.
            base: the folder that relative paths start at.
            top: other fields of a pipeline, such as ``numerics="strict"`` or ``replicates="seed"``.

        Raises:
            UsageError: a value cannot be written into a pipeline.
        """
        whole: dict[str, Any] = {"name": name, **top}
        if vars:
            whole["vars"] = dict(vars)
        if matrix:
            whole["matrix"] = dict(matrix)
        whole["stages"] = {stage: dict(told) for stage, told in stages.items()}
        self = cls.__new__(cls)
        self._path, self._base = None, Path(base)
        # JSON is YAML.
        self._text = _json(whole, indent=2) + "\n"
        return self

    @property
    def text(self) -> str:
        """The pipeline as YAML."""
        if self._path is not None:
            return self._path.read_text(encoding="utf-8")
        assert self._text is not None
        return self._text

    def __repr__(self) -> str:
        if self._path is not None:
            return f"Pipeline({str(self._path)!r})"
        return f"<Pipeline {json.loads(self.text)['name']}, built in code>"

    def save(self, path: PathLike) -> Pipeline:
        """Writes the pipeline to a file, and gives the pipeline of that file. Relative paths in it then start at the file's folder.

        Raises:
            FileExistsError: something is there.
        """
        with open(path, "x", encoding="utf-8") as file:
            file.write(self.text)
        return Pipeline(path)

    def validate(self, set: Mapping[str, Any] | None = None) -> Checked:
        """Checks the pipeline without running it.

        Args:
            set: values that replace those of the file, such as ``{"vars.layers": [5]}``.

        Raises:
            PipelineError: it has mistakes; ``error.mistakes`` has all of them.
        """
        with self._file() as path:
            args = ["validate", path, *_set(set)]
            done = attempt([*args, "--json"])
            told = document(done.stdout) if done.stdout.strip() else {}
            if done.returncode != 0:
                error = failure(done.returncode, attempt(args).stderr or done.stderr)
                if isinstance(error, PipelineError):
                    error.mistakes = [Mistake.of(mistake) for mistake in told.get("mistakes", [])]
                raise error
        several = {kind: [Mistake.of(found) for found in told.get(kind, [])] for kind in ("warnings", "absent")}
        return Checked(told["pipeline"], told["stages"], told["instances"], **several)

    def plan(
        self, *, store: PathLike | None = None, set: Mapping[str, Any] | None = None, device: str | None = None
    ) -> Plan:
        """Says what a run would do, and why. Runs nothing.

        Args:
            store: the folder of the store; without it ``PALINODE_STORE``, or ``.palinode``.
            set: values that replace those of the file.
            device: ``cpu``, ``cuda``, ``cuda:1``, …

        Raises:
            PalinodeError: the pipeline has mistakes, or the store cannot be read.
        """
        with self._file() as path:
            devices = ["--device", device] if device is not None else []
            return Plan(call_json(["plan", path, "--store", str(store_of(store)), *_set(set), *devices]))

    def run(self, progress: Callback | None = None, **how: Unpack[How]) -> Run:
        """Runs every stage whose result is not in the store, and waits for the end.

        The same call goes on with a run that was stopped or killed. Ctrl-C stops it as it does at a terminal: once after the unit of work
        that it is at, twice at once; ``KeyboardInterrupt`` is raised when it has stopped.

        Args:
            progress: hears of each event (:data:`palinode.Event`), such as :func:`palinode.show_progress`.
            how: as for :meth:`start`.

        Raises:
            PalinodeError: a stage failed, or the pipeline has mistakes: a subclass for each exit code of the program.
            KeyboardInterrupt: it was stopped from here.
        """
        return self.start(**how).wait(progress)

    def start(
        self,
        *,
        store: PathLike | None = None,
        set: Mapping[str, Any] | None = None,
        device: str | None = None,
        blocks: str | None = None,
        until: Names = (),
        from_: Names = (),
        only: Names = (),
        force: Names = (),
        jobs: int | None = None,
        executor: str | None = None,
        keep_going: bool = False,
        wait: bool = False,
        offline: bool = False,
        preflight: bool = True,
    ) -> Running:
        """Starts a run and gives it as it goes on. It ends with this process only if it is waited for or stopped.

        Args:
            store: the folder of the store; without it ``PALINODE_STORE``, or ``.palinode``. It is made where there is none.
            set: values that replace those of the file: ``{"stages.targets.with.steps": 4}``.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            blocks: where a model's blocks are: ``auto``, ``resident`` or ``streamed``.
            until, from_, only, force: names of stages, or of cells such as ``solve[objective=rome]``, as for ``palinode run``.
            jobs: at most so many stages in parallel.
            executor: ``threads``, ``processes``, ``processes:4``, ``slurm`` or ``slurm:PROFILE``.
            keep_going: after a failure, run what does not depend on it.
            wait: while another process writes to the store, wait for it.
            offline: download nothing.
            preflight: look at the requests before the work begins.
        """
        folder = store_of(store)
        args = ["--store", str(folder), *_set(set)]
        for name, value in {"device": device, "blocks": blocks, "jobs": jobs, "executor": executor}.items():
            args += [f"--{name}", str(value)] if value is not None else []
        for name, stages in {"until": until, "from": from_, "only": only, "force": force}.items():
            for one in [stages] if isinstance(stages, str) else stages:
                args += [f"--{name}", one]
        flags = {"keep-going": keep_going, "wait": wait, "offline": offline, "no-preflight": not preflight}
        args += [f"--{name}" for name, given in flags.items() if given]
        file = contextlib.ExitStack()
        try:
            path = file.enter_context(self._file())
            return Running(["run", path, "--json", *args], folder, file.close)
        except BaseException:
            file.close()
            raise

    @contextlib.contextmanager
    def _file(self) -> Iterator[str]:
        """The pipeline as a file: one that was built lies in its base folder while it is used, since paths in it start there."""
        if self._path is not None:
            yield str(self._path)
            return
        assert self._text is not None
        try:
            place, path = tempfile.mkstemp(prefix=".palinode-", suffix=".yaml", dir=self._base)
        except OSError as error:
            raise StoreError(
                f"a pipeline that was built in code is written into its base folder while it runs, and {self._base} cannot be written to: "
                f"{error.strerror}; give `build` another `base`"
            ) from error
        try:
            with os.fdopen(place, "w", encoding="utf-8") as file:
                file.write(self._text)
            yield path
        finally:
            Path(path).unlink(missing_ok=True)


def _set(values: Mapping[str, Any] | None) -> list[str]:
    """The arguments that set values; each is written as JSON, so that texts stay texts."""
    return [word for path, value in (values or {}).items() for word in ("--set", f"{path}={_json(value)}")]


def _json(value: Any, indent: int | None = None) -> str:
    try:
        return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a value cannot be written into a pipeline: {error}") from error


def _plain(value: Any) -> Any:
    """What JSON does not know: paths, numbers and arrays of numpy."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    for name in ("tolist", "item"):
        if hasattr(value, name):
            return getattr(value, name)()
    raise TypeError(f"{value!r} is a {type(value).__name__}")
