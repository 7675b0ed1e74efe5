"""Files of tensors in the format safetensors, read with the standard library; arrays are made by numpy or torch."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palinode._errors import InputError
from palinode._program import need

#: A larger header is that of no file that was written on purpose; the format's own bound.
_LARGEST_HEADER = 100_000_000

#: Types by the format's names: bytes of a value, numpy's name, torch's name. numpy has no bfloat16.
_TYPES: dict[str, tuple[int, str | None, str]] = {
    "F64": (8, "<f8", "float64"),
    "F32": (4, "<f4", "float32"),
    "F16": (2, "<f2", "float16"),
    "BF16": (2, None, "bfloat16"),
    "I64": (8, "<i8", "int64"),
    "I32": (4, "<i4", "int32"),
    "I16": (2, "<i2", "int16"),
    "I8": (1, "i1", "int8"),
    "U8": (1, "u1", "uint8"),
    "BOOL": (1, "?", "bool"),
}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its type, its shape, its bytes from and to (within the data)."""

    type: str
    shape: tuple[int, ...]
    begin: int
    end: int


class TensorFile:
    """A safetensors file: names, shapes and notes at once, values on demand.

    Raises:
        InputError: the file cannot be read, or is no safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", _exactly(file.read(8), 8))
                if length > min(size - 8, _LARGEST_HEADER):
                    raise ValueError(f"its header says that it has {length} bytes, and the file has {size}")
                header = json.loads(_exactly(file.read(length), length))
            self._data = 8 + length
            self.notes: dict[str, str] = header.pop("__metadata__", None) or {}
            self.entries = {name: _entry(name, told, size - self._data) for name, told in header.items()}
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: not a safetensors file: {error}") from error

    def numpy(self, name: str) -> Any:
        """A tensor as a numpy array of its stored type; bfloat16, which numpy lacks, as float32."""
        np = need("numpy", "arrays", "tables")
        entry = self._entry(name)
        data = self._bytes(entry)
        kind = _TYPES[entry.type][1]
        if kind is None:
            values = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(data, kind)
        return values.reshape(entry.shape)

    def torch(self, name: str) -> Any:
        """A tensor as a torch tensor of its stored type, on the CPU."""
        torch = need("torch", "tensors of torch", "torch")
        entry = self._entry(name)
        kind = getattr(torch, _TYPES[entry.type][2])
        data = self._bytes(entry)
        if not data:
            return torch.empty(entry.shape, dtype=kind)
        return torch.frombuffer(data, dtype=kind).reshape(entry.shape)

    def _entry(self, name: str) -> Entry:
        try:
            return self.entries[name]
        except KeyError:
            raise InputError(f"{self.path} has no tensor {name}; it has {', '.join(self.entries) or 'none'}") from None

    def _bytes(self, entry: Entry) -> bytearray:
        data = bytearray(entry.end - entry.begin)
        with self.path.open("rb") as file:
            file.seek(self._data + entry.begin)
            if file.readinto(data) != len(data):
                raise InputError(f"{self.path} ends within its data")
        return data


def _exactly(data: bytes, length: int) -> bytes:
    if len(data) != length:
        raise ValueError(f"it ends after {len(data)} of {length} bytes")
    return data


def _entry(name: str, told: dict[str, Any], size: int) -> Entry:
    kind, shape, (begin, end) = told["dtype"], tuple(told["shape"]), told["data_offsets"]
    if kind not in _TYPES:
        raise ValueError(f"{name} has the type {kind}, which is not known here")
    values = 1
    for side in shape:
        if not isinstance(side, int) or side < 0:
            raise ValueError(f"{name} has the shape {list(shape)}")
        values *= side
    if not 0 <= begin <= end <= size or end - begin != values * _TYPES[kind][0]:
        raise ValueError(f"{name} has the shape {list(shape)}, and {end - begin} bytes")
    return Entry(kind, shape, begin, end)
