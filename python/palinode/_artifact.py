"""The result of a stage."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from palinode._errors import InputError
from palinode._program import need
from palinode._tensors import TensorFile

# What the solve of an update left, beside the change itself.
_SOLVED = "solved.safetensors"


class Artifact:
    """The result of one stage instance: facts, and files in the store.

    Attributes:
        instance: what it is called, such as ``scores[objective=rome]``.
        stage: the stage's name in the pipeline.
        cell: the axes that it depends on, and their values.
        kind: what it is: ``targets``, ``update``, ``scores``, …
        key: what it is stored under.
        facts: what the stage says of its result, as ``palinode show`` prints it.
        params: the parameters that it was computed with, after defaults.
        inputs: the digest of each input's content, by port.
        seconds: how long the stage worked.
        files: the files in the store, by name. They are other runs' as well: never write to them.
        published: files outside the store that the stage wrote, such as those of ``export``.
    """

    def __init__(self, stage: str, cell: dict[str, Any], told: dict[str, Any], store: Path) -> None:
        output, covered = told["output"], told["preimage"]
        self.instance: str = told["instance"]
        self.stage = stage
        self.cell = cell
        self.kind: str = output["kind"]
        self.key: str = told["key"]
        self.facts: dict[str, Any] = output["meta"]
        self.params: dict[str, Any] = {**told.get("unkeyed", {}), **covered["params"]}
        self.inputs: dict[str, Any] = covered["inputs"]
        self.seconds: float = told["seconds"]
        blobs = store / "blobs"
        places = {name: blobs / file["digest"][:2] / file["digest"] for name, file in output["files"].items()}
        self.files: dict[str, Path] = {name: place for name, place in places.items() if place.is_file()}
        self.published: list[Path] = [Path(file["path"]) for file in output.get("published", [])]

    def __repr__(self) -> str:
        return f"<Artifact {self.instance}: {self.kind}, {', '.join(self.files) or 'no files in the store'}>"

    def path(self, name: str) -> Path:
        """Where a file of the result lies.

        Raises:
            InputError: the result has no such file, or it is no longer in the store.
        """
        try:
            return self.files[name]
        except KeyError:
            has = ", ".join(self.files) or "none"
            raise InputError(f"{self.instance} has no file {name} in the store; it has {has}") from None

    def tensors(self, file: str | None = None, framework: Literal["numpy", "torch"] = "numpy") -> dict[str, Any]:
        """Tensors of the result, by name, as they were computed: in 64 bits where the stage computes in 64 bits.

        * ``targets``: ``initial`` and ``delta`` [requests, hidden]: h₀ and δ of each request, at the target layer, in the model's units.
        * ``moments``: ``layer3/sum`` [in, in]: Σ k kᵀ over the tokens that ``facts`` counts; divided by them it is C.
        * ``update``: for each batch and weight its change, ``….left`` [out, r] and ``….right`` [r, in] with ΔW = left · right, or
          ``….dense`` [out, in], or entries. What its solve left for the ledger is in ``solved.safetensors``, which is read by its name.

        Args:
            file: only this file. Without it, all other files of tensors; where there are several, names begin with the file's, as in ``layer3/sum``.
            framework: what the values are: arrays of numpy, or tensors of torch on the CPU.

        Raises:
            InputError: there is no such file.
            ImportError: numpy or torch is not installed.
        """
        names = [file] if file is not None else [name for name in self.files if name.endswith(".safetensors") and name != _SOLVED]
        if not names:
            raise InputError(f"{self.instance} has no tensors in the store: its files are {', '.join(self.files) or 'none'}")
        values: dict[str, Any] = {}
        for name in names:
            tensors = TensorFile(self.path(name))
            before = f"{name.removesuffix('.safetensors')}/" if len(names) > 1 else ""
            for tensor in tensors.entries:
                values[before + tensor] = tensors.torch(tensor) if framework == "torch" else tensors.numpy(tensor)
        return values

    def json(self, name: str) -> Any:
        """A JSON file of the result."""
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def lines(self, name: str) -> Iterator[dict[str, Any]]:
        """The records of a file of JSON lines, one after the other."""
        with self.path(name).open(encoding="utf-8") as file:
            for line in file:
                if line.strip():
                    yield json.loads(line)

    def records(self, name: str = "records.parquet") -> Any:
        """A table of the result as a pandas frame.

        Of ``scores``: a row for each prompt, before the edit and after it (``edited``): its record's ``id``, its ``kind`` (rewrite,
        paraphrase, neighborhood, …), ``nll`` (nats a token) and ``p`` of the new target, ``nll_true`` and ``p_true`` of the true one.

        Args:
            name: a file of the result: Parquet, or JSON lines.

        Raises:
            InputError: there is no such file.
            ImportError: pandas is not installed, or for Parquet pyarrow.
        """
        pandas = need("pandas", "tables", "tables")
        if not name.endswith(".parquet"):
            return pandas.DataFrame(list(self.lines(name)))
        need("pyarrow", "tables in Parquet", "tables")
        return pandas.read_parquet(io.BytesIO(self.path(name).read_bytes()))
