"""Edits of a model of transformers in memory: put on, listed, taken off.

An update is what the program exported: ``update.safetensors``. Nothing is computed here but the sum W + Δ in the model's own memory. An update
without one of its edits is what the program makes of it (``palinode revert``), from the ledger beside it.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import re
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palinode._errors import InputError, NumericalError, UsageError
from palinode._program import PathLike, call, call_json, need
from palinode._tensors import TensorFile

UPDATE_FILE = "update.safetensors"
_FORMATS = ("update.v1", "update.v2")

#: Down-projections of all experts of a layer in one parameter [experts, out, in], and the published names of one of them.
_FUSED = ".mlp.experts.down_proj"
_EXPERT = re.compile(r"(.+)\.(?:block_sparse_moe|mlp)\.experts\.(\d+)\.(?:w2|down_proj)\.weight")

#: The most by which the norm of a weight in memory may differ from the one that the update was made for: half precision moves it by less.
_SAME_NORM = 0.01


@dataclass(frozen=True)
class Edit:
    """One edit of an update, as its ledger lists it.

    Attributes:
        number: its number, which stays its own when others are taken off; None where there is no ledger.
        request: the request's name.
        subject: what the fact is about; None where it is not known, as the following are.
        prompt: the prompt, with the subject filled in.
        target: the answer that was written.
        layers: the layers that it changed.
        batch: the batch or the round that it was made in, where there were several.
        when: when it was exported, in UTC.
        file: the pipeline's file or the command that it is from.
        superseded_by: the number of a later edit of the same fact.
        alone: whether it can be taken off by itself, as far as the ledger tells.
    """

    number: int | None
    request: str
    subject: str | None
    prompt: str | None
    target: str | None
    layers: tuple[str, ...]
    batch: int | None
    when: str | None
    file: str | None
    superseded_by: int | None
    alone: bool

    @classmethod
    def of(cls, told: dict[str, Any]) -> Edit:
        """As ``palinode edits --json`` writes it."""
        known = {name: told.get(name) for name in ("number", "subject", "prompt", "target", "batch", "when", "file", "superseded_by")}
        return cls(request=told["request"], layers=tuple(told["layers"]), alone=told["alone"], **known)


class Update:
    """A change of some weights, as ``export`` writes it.

    Attributes:
        path: the file.
        provenance: where it came from: model, objective, plan, requests, layers.
        weights: the names of the weights that it changes, as the model's family calls them.
    """

    def __init__(self, path: PathLike) -> None:
        """Reads the description of an update; its numbers are read when it is applied.

        Args:
            path: the file, or the folder that ``export`` wrote.

        Raises:
            InputError: it was not written by ``export``, or is damaged.
        """
        given = Path(path)
        self.path = given / UPDATE_FILE if given.is_dir() else given
        self._file = TensorFile(self.path)
        try:
            self.provenance: dict[str, Any] = json.loads(self._file.notes["palinode"])
            known = self.provenance["format"] in _FORMATS
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{self.path}: it has no provenance: it was not written by `export`") from error
        if not known:
            raise InputError(f"{self.path}: its format is {self.provenance['format']!r}, not one of {', '.join(_FORMATS)}")
        stems = (name.rsplit(".", 1)[0] for name in self._file.entries)
        self.weights: list[str] = list(dict.fromkeys(stems))

    @property
    def requests(self) -> list[str]:
        """The names of the requests that were written."""
        return list(self.provenance.get("requests") or [])

    def edits(self) -> list[Edit]:
        """Its edits, from the ledger beside it; without a ledger, their requests' names alone.

        Raises:
            InputError: the ledger is damaged.
        """
        return [Edit.of(told) for told in call_json(["edits", os.fspath(self.path)])["edits"]]

    def without(
        self,
        *edits: Edit | int | str,
        output: PathLike | None = None,
        base: PathLike | None = None,
        store: PathLike | None = None,
    ) -> Update:
        """This update without some of its edits, as ``palinode revert --edit`` makes it. The update itself stays as it is.

        At one layer it is the update of a solve without them, from the ledger beside the file. Over several layers it is solved again, which
        takes the unedited model and the store that has the second moments. A model in memory that has this update gets the other by
        ``revert(model, applied)`` and ``apply(model, update.without(7))``.

        Args:
            edits: which ones: as :meth:`edits` lists them, or by number, request's name or subject.
            output: the folder to write, which must not exist or be empty; without it, a folder that is deleted with the result.
            base: the folder of the unedited model, for edits over several layers.
            store: the store, for edits over several layers; without it ``PALINODE_STORE`` or ``.palinode``.

        Returns:
            The update with the edits that are left. It has a ledger too, where they have the numbers that they had.

        Raises:
            UsageError: no edit is named.
            InputError: there is no ledger; no such edit; nothing would be left; or an edit does not come off by itself: the text says why, and
                what would have to run.
        """
        if not edits:
            raise UsageError("no edit is named; `Update.edits()` lists them")
        if any(isinstance(edit, Edit) and edit.number is None for edit in edits):
            raise InputError(f"{self.path} has no ledger: what taking one edit off needs was not kept; export it with `ledger: true`")
        named = [str(edit.number if isinstance(edit, Edit) else edit) for edit in edits]
        folder = tempfile.mkdtemp(prefix="palinode-") if output is None else os.fspath(output)
        args = ["revert", os.fspath(self.path), *(f"--edit={name}" for name in named), "--output", folder]
        args += ["--base", os.fspath(base)] if base is not None else []
        args += ["--store", os.fspath(store)] if store is not None else []
        try:
            call(args)
            made = Update(folder)
        except BaseException:
            if output is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        if output is None:
            weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
        return made

    def __repr__(self) -> str:
        return f"<Update {self.path}: {len(self.requests)} requests, {len(self.weights)} weights>"

    def change(self, weight: str) -> Any:
        """The change of a weight in 64 bits on the CPU, a torch tensor [out, in]; of a bias [out, 1].

        Raises:
            InputError: the update has none of this weight, or it is damaged.
        """
        torch = need("torch", "edits of a model", "torch")

        def part(name: str) -> Any:
            value = self._file.torch(f"{weight}.{name}")
            return value.to(torch.float64) if value.is_floating_point() else value

        has = {name.rsplit(".", 1)[1] for name in self._file.entries if name.rsplit(".", 1)[0] == weight}
        try:
            if "dense" in has:
                change = part("dense")
            elif "shape" in has:
                rows, columns = part("shape").tolist()
                change = torch.zeros(rows * columns, dtype=torch.float64)
                change[part("at")] = part("values")
                change = change.reshape(rows, columns)
            else:
                change = part("left") @ part("right")
        except (RuntimeError, IndexError, ValueError) as error:
            raise InputError(f"{self.path}: the change of {weight} is damaged: {error}") from error
        if not bool(torch.isfinite(change).all()):
            raise InputError(f"{self.path}: the change of {weight} holds values that are not numbers")
        return change

    def norm_of(self, weight: str) -> float | None:
        """The Frobenius norm of the unedited weight, as the solve saw it; None where the update does not say it."""
        layers = self.provenance.get("layers") or []
        numbers = [part for part in weight.split(".") if part.isdigit()]
        shared = ".shared_expert." in weight

        def is_of(layer: dict[str, Any]) -> bool:
            expert = layer.get("expert")
            routed = [] if expert is None or expert == "shared" else [expert]
            return [str(number) for number in (layer.get("layer"), *routed)] == numbers and (expert == "shared") == shared

        told = [layer for layer in layers if is_of(layer)]
        # Of a layer with several changed weights it is not known here which is which.
        if len(told) != 1:
            return None
        norm, relative = told[0].get("norm"), told[0].get("relative_norm")
        return norm / relative if norm and relative else None


@dataclass(frozen=True)
class Change:
    """What became of one weight.

    Attributes:
        name: the parameter's name in the model.
        dtype: the type that it is stored in.
        norm: ‖Δ‖ (Frobenius), in the weight's units.
        relative_norm: ‖Δ‖ / ‖W‖.
        lost: what rounding to the stored type took of the change, ‖stored − (W + Δ)‖ / ‖Δ‖; 0 where nothing was rounded.
    """

    name: str
    dtype: str
    norm: float
    relative_norm: float
    lost: float


@dataclass(eq=False)
class Applied:
    """An edit that was put on a model.

    Attributes:
        update: the update.
        changes: what became of each weight.
    """

    update: Update
    changes: tuple[Change, ...]

    @property
    def lost(self) -> float:
        """The most that rounding took of any weight's change."""
        return max((change.lost for change in self.changes), default=0.0)


@dataclass(eq=False)
class _Kept:
    """What takes an edit off again: of each weight its name, its bits before on the CPU, and a digest of its bits after."""

    applied: Applied
    weights: list[tuple[str, Any, bytes]]


#: The edits of each model, in the order in which they were put on. They are not part of the model: a copy of it has none.
_EDITS: weakref.WeakKeyDictionary[Any, list[_Kept]] = weakref.WeakKeyDictionary()


def apply(model: Any, update: Update | PathLike, *, force: bool = False) -> Applied:
    """Adds an update to a model of transformers in memory.

    The parameters stay the same objects, where they are: on the CPU or GPUs, in any floating-point type, tied to others or not. W + Δ is
    computed in 32 bits (64 for a model in 64) and rounded once to the type that is stored, as the program does it for files. All weights
    are changed, or none. Their bits from before are kept on the CPU until :func:`revert`; that takes their size in memory.

    Args:
        model: a ``PreTrainedModel``, or any torch module with the same names of parameters; it may be wrapped by torch.compile or PEFT.
        update: what ``export`` wrote: the folder, or its ``update.safetensors``.
        force: apply it even if the weights are not those that the update was made for.

    Returns:
        What was done to each weight, and what rounding took of it.

    Raises:
        UsageError: this is no model.
        InputError: the update does not fit the model: names, shapes, or norms of the weights; or a weight is quantized.
        NumericalError: the stored type cannot hold the changed weight.
    """
    torch = need("torch", "edits of a model", "torch")
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"an edit is put on a model of torch, and this is a {type(model).__name__}")
    told = update if isinstance(update, Update) else Update(update)
    applied = Applied(told, ())
    _put(model, told, _EDITS.setdefault(model, []), applied, force)
    return applied


def edits(model: Any) -> list[Applied]:
    """The edits that :func:`apply` put on a model and that are still on it, in their order."""
    return [kept.applied for kept in _EDITS.get(model, [])]


def revert(model: Any, edit: Applied | None = None, *, force: bool = False) -> None:
    """Takes an edit off a model: its weights have the very bits that they had before.

    Args:
        model: the model that :func:`apply` was given.
        edit: which one; without it the last. One with others on top of it is taken off from below them: they are put on anew, and the
            model is as if the edit had never been.
        force: even if the weights were changed by something else since; that change is lost.

    Raises:
        UsageError: no such edit is on the model.
        InputError: something else has changed the weights since.
    """
    stack = _EDITS.get(model, [])
    if not stack:
        raise UsageError("no edit is on this model: `apply` has put none on it, or all were taken off; a copy of an edited model has none")
    at = len(stack) - 1 if edit is None else next((at for at, kept in enumerate(stack) if kept.applied is edit), None)
    if at is None:
        raise UsageError("this edit is not on this model: it was taken off, or put on another one")
    parameters = _parameters(model)
    if not force:
        _refuse_changed(parameters, stack[at:])
    above = stack[at + 1 :]
    while len(stack) > at:
        _restore(parameters, stack.pop().weights)
    for kept in above:
        _put(model, kept.applied.update, stack, kept.applied, force=True)


def load_adapter(model: Any, folder: PathLike, **how: Any) -> Any:
    """Puts an exported adapter (``formats: [peft]`` of ``export``) on a model of transformers, by PEFT.

    Args:
        model: the unedited model.
        folder: the folder that ``export`` wrote, or its ``adapter``.
        how: what ``PeftModel.from_pretrained`` takes.

    Returns:
        A ``PeftModel``. ``with peft_model.disable_adapter():`` asks the unedited one.

    Raises:
        InputError: there is no adapter.
        ImportError: peft is not installed.
    """
    place = Path(folder)
    place = place / "adapter" if (place / "adapter").is_dir() else place
    if not (place / "adapter_config.json").is_file():
        raise InputError(f"{folder} has no adapter: add `peft` to `formats` of the stage `export`")
    return need("peft", "adapters", "peft").PeftModel.from_pretrained(model, str(place), **how)


@dataclass(frozen=True)
class _Parameter:
    """A parameter of a model, and the module that has it."""

    value: Any
    module: Any
    #: It is one of several that lie in one parameter [several, out, in]: `value` is a view of that.
    is_part: bool = False


def _parameters(model: Any) -> dict[str, _Parameter]:
    """Every parameter under all its names, without what wrappers put before and into names; of several experts in one, each expert too."""
    found = {}
    for place, module in model.named_modules(remove_duplicate=False):
        for own, value in module.named_parameters(recurse=False):
            name = f"{place}.{own}" if place else own
            for wrapper in ("_orig_mod.", "module.", "base_model.model."):
                name = name.removeprefix(wrapper)
            name = name.replace(".base_layer.", ".").replace("._orig_mod.", ".")
            found[name] = _Parameter(value, module)
            if name.endswith(_FUSED) and value.dim() == 3:
                for expert, part in enumerate(value.detach()):
                    found[f"{name}[{expert}]"] = _Parameter(part, module, is_part=True)
    return found


def _find(parameters: dict[str, _Parameter], update: Update, weight: str) -> str:
    """The name under which the model has a weight: the update's, that of one expert among those of its layer, as transformers 5 holds them,
    or either without the first part, as a model without a head has it."""
    expert = _EXPERT.fullmatch(weight)
    names = [weight] if expert is None else [weight, f"{expert[1]}{_FUSED}[{expert[2]}]"]
    for name in (*names, *(name.split(".", 1)[-1] for name in names)):
        if name in parameters:
            value = parameters[name].value
            if value.is_meta:
                raise InputError(f"{name} is not in memory but offloaded: load the model without offloading")
            if not value.is_floating_point() or value.element_size() < 2:
                raise InputError(f"{name} is stored as {value.dtype}, which is quantized: load the model in bf16, f16 or f32")
            return name
    family = (update.provenance.get("model") or {}).get("family") or "another family"
    raise InputError(f"the model has no parameter {weight}, which {update.path} changes: it was made for a model of {family}")


def _refuse_shared(parameters: dict[str, _Parameter], names: list[str]) -> None:
    """One parameter under two names: a change of the one would be a change of the other, which the update does not mean."""

    def place(value: Any) -> Any:
        # The first of several experts begins where all of them do, and is shorter.
        return value.device, value.data_ptr(), value.numel()

    places: dict[Any, list[str]] = {}
    for name, parameter in parameters.items():
        if not parameter.value.is_meta:
            places.setdefault(place(parameter.value), []).append(name)
    for name in names:
        others = [other for other in places[place(parameters[name].value)] if other != name]
        if others:
            raise InputError(f"{name} is tied to {', '.join(others)}: its change would be theirs too")


def _fitted(change: Any, name: str, parameter: _Parameter) -> Any:
    """A change [out, in] in the layout of the parameter: [out, in] as Linear has it, [in, out] as Conv1D, [out] of a bias."""
    shape, wanted = tuple(parameter.value.shape), tuple(change.shape)
    kinds = {kind.__name__ for kind in type(parameter.module).__mro__}
    if len(shape) == 1 and wanted == (shape[0], 1):
        return change.reshape(shape)
    if "Conv1D" in kinds and wanted == shape[::-1]:
        return change.T
    if (parameter.is_part or "Linear" in kinds) and wanted == shape:
        return change
    if not parameter.is_part and not kinds & {"Conv1D", "Linear"} and wanted[0] != wanted[1] and wanted in (shape, shape[::-1]):
        return change if wanted == shape else change.T
    what = type(parameter.module).__name__
    raise InputError(f"the change of {name} is {list(wanted)} ([out, in]), which does not fit its {what} of {list(shape)}")


def _put(model: Any, update: Update, stack: list[_Kept], applied: Applied, force: bool) -> None:
    """Adds the update, and says in `applied` what was done; all of it, or nothing."""
    torch = need("torch", "edits of a model", "torch")
    parameters = _parameters(model)
    names = {weight: _find(parameters, update, weight) for weight in update.weights}
    _refuse_shared(parameters, list(names.values()))
    kept: list[tuple[str, Any, bytes]] = []
    changes = []
    try:
        with torch.no_grad():
            for weight, name in names.items():
                value = parameters[name].value
                change = _fitted(update.change(weight), name, parameters[name])
                before = value.detach().to("cpu", copy=True)
                unedited = next((was for one in stack for other, was, _ in one.weights if other == name), before)
                if not force:
                    _check_norm(update, weight, name, _norm(unedited))
                kept.append((name, before, b""))
                changes.append(_add(torch, name, value, change))
                kept[-1] = (name, before, _digest(value))
    except BaseException:
        _restore(parameters, kept)
        raise
    applied.changes = tuple(changes)
    stack.append(_Kept(applied, kept))


def _add(torch: Any, name: str, value: Any, change: Any) -> Change:
    """W + Δ in place. The sum is taken in 32 bits and rounded once, as the program does it for files; in 64 where W has 64."""
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    before = value.detach().to(wide)
    step = change.to(wide).to(value.device)
    wanted = before + step
    stored = wanted.to(value.dtype)
    if not bool(torch.isfinite(stored).all()):
        raise NumericalError(f"the changed {name} does not fit into {value.dtype}: load the model in a type of a wider range")
    value.copy_(stored)
    norm, error = _norm(step), _norm(stored.to(wide) - wanted)
    whole = _norm(before)
    return Change(
        name=name,
        dtype=str(value.dtype).removeprefix("torch."),
        norm=norm,
        relative_norm=norm / whole if whole else 0.0,
        lost=error / norm if error else 0.0,
    )


def _norm(values: Any) -> float:
    """The Frobenius norm, summed in 64 bits where the device has them."""
    on_host = values.to("cpu") if values.device.type == "mps" else values
    return float(on_host.double().norm())


def _check_norm(update: Update, weight: str, name: str, norm: float) -> None:
    """Another model of the same shapes has other norms: a slip that no shape shows."""
    meant = update.norm_of(weight)
    if meant is not None and abs(norm - meant) > _SAME_NORM * meant:
        raise InputError(
            f"{update.path} was made for other weights: the norm of {name} is {norm:.4g}, and that of the weight it was made for {meant:.4g}; "
            f"`force=True` applies it all the same"
        )


def _digest(value: Any) -> bytes:
    """Of the bits of a parameter, wherever it is."""
    held = value.detach().to("cpu").contiguous()
    size = held.numel() * held.element_size()
    return hashlib.blake2b((ctypes.c_char * size).from_address(held.data_ptr()), digest_size=16).digest()


def _restore(parameters: dict[str, _Parameter], kept: list[tuple[str, Any, bytes]]) -> None:
    torch = need("torch", "edits of a model", "torch")
    with torch.no_grad():
        for name, before, _ in kept:
            parameters[name].value.copy_(before)


def _refuse_changed(parameters: dict[str, _Parameter], kept: list[_Kept]) -> None:
    """Weights that something else changed since: what is kept would undo that too."""
    seen = set()
    for one in reversed(kept):
        for name, _, after in one.weights:
            if name in seen:
                continue
            seen.add(name)
            if name not in parameters or _digest(parameters[name].value) != after:
                raise InputError(
                    f"{name} was changed by something else since the edit was put on, such as training or another type; `force=True` "
                    f"brings back what it was before the edit"
                )
