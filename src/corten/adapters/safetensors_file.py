"""Read the head of a safetensors file: names, types and shapes of its tensors, and whether all of them are there.

The format (https://github.com/huggingface/safetensors#format): eight bytes of length, a JSON object, the numbers. It
holds no code, so reading it runs none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corten.adapters.corrupt import corrupt

if TYPE_CHECKING:
    import numpy as np

_LENGTH_BYTES = 8
_MAX_HEAD_BYTES = 100 << 20  # the format's own limit
_METADATA = "__metadata__"
_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1",
    "BOOL": "|b1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor: its type as the format has it (`F32`), its shape, its bytes in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SafetensorsFile:
    """What a file holds, by name, and what its writer noted."""

    tensors: Mapping[str, StoredTensor]
    metadata: Mapping[str, str]


def is_safetensors(path: Path) -> bool:
    """Whether the file starts as the format has it; never raises for content."""
    with path.open("rb") as stream:
        head = stream.read(_LENGTH_BYTES + 1)
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return len(head) > _LENGTH_BYTES and head[_LENGTH_BYTES:] == b"{" and 2 <= length <= _MAX_HEAD_BYTES


def read_safetensors(path: Path) -> SafetensorsFile:
    """Read the head. Raises UsageError `adapter.corrupt_model`, also for a file that ends early."""
    try:
        return _read(path)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "save or download it again"
        raise corrupt(path, "is not a complete safetensors file", error, hint=hint) from error


def _read(path: Path) -> SafetensorsFile:
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if length > min(_MAX_HEAD_BYTES, size):
            raise ValueError(f"its head is to be {length} bytes long")
        document = json.loads(stream.read(length))
    start = _LENGTH_BYTES + length
    tensors = {name: _tensor(value, start) for name, value in document.items() if name != _METADATA}
    end = max((tensor.end for tensor in tensors.values()), default=start)
    if size < end:
        raise ValueError(f"{end} bytes announced, {size} there")
    return SafetensorsFile(tensors, {str(key): str(text) for key, text in document.get(_METADATA, {}).items()})


def read_array(path: Path, tensor: StoredTensor) -> np.ndarray:
    """A tensor's numbers, as float32. Raises ValueError for a type numpy does not have."""
    import numpy as np

    if tensor.dtype not in _NUMPY:
        raise ValueError(f"`{path.name}` holds numbers of type {tensor.dtype}")
    with path.open("rb") as stream:
        stream.seek(tensor.start)
        data = stream.read(tensor.end - tensor.start)
    return np.frombuffer(data, _NUMPY[tensor.dtype]).reshape(tensor.shape).astype(np.float32)


def _tensor(value: Mapping[str, Any], base: int) -> StoredTensor:
    start, end = (int(at) for at in value["data_offsets"])
    if not 0 <= start <= end:
        raise ValueError(f"offsets {start} to {end}")
    return StoredTensor(str(value["dtype"]), tuple(int(size) for size in value["shape"]), base + start, base + end)
