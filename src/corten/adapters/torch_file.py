"""Read what a PyTorch file says of itself: an exported program (.pt2), TorchScript, or tensors without a program.

All are zip files whose members lie below one folder. An exported program has `archive_format` `pt2` and its graph as
JSON (torch/_export/serde/schema.py); TorchScript has `code/` and `constants.pkl`; what `torch.save` writes `data.pkl`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from corten.adapters.broken_zip import BROKEN_CONTENT
from corten.adapters.corrupt import corrupt
from corten.core.schema import DType, Tensor
from corten.errors import UsageError

_MAX_JSON_BYTES = 256 << 20
# torch/_export/serde/schema.py, ScalarType; what has no form in a request is left out.
_TYPES = {
    1: DType.UINT8, 2: DType.INT8, 3: DType.INT16, 4: DType.INT32, 5: DType.INT64, 6: DType.FLOAT16,
    7: DType.FLOAT32, 8: DType.FLOAT64, 12: DType.BOOL,
}  # fmt: skip
OUTPUT = "outputs"


class Form(Enum):
    """What a file of PyTorch holds."""

    EXPORTED = "exported program"
    SCRIPT = "TorchScript"
    TENSORS = "saved object"


@dataclass(frozen=True, slots=True)
class Exported:
    """An exported program: its tensors, the release it was made with, the most rows it takes at once (None: any)."""

    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    most_rows: int | None = None


def form_of(path: Path) -> Form | None:
    """Which of PyTorch's files it is; None for others. Never raises for content."""
    try:
        with path.open("rb") as stream:
            if stream.read(4) != b"PK\x03\x04":
                return None
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except BROKEN_CONTENT:
        return None
    if "archive_format" in names and any(name.startswith("models/") for name in names):
        return Form.EXPORTED
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return Form.SCRIPT
    return Form.TENSORS if {"data.pkl", "version"} <= names else None


def read_exported(path: Path) -> Exported:
    """Read an exported program's graph. Raises UsageError `adapter.corrupt_model`, `adapter.contract`."""
    try:
        with zipfile.ZipFile(path) as archive:
            models = [info for info in archive.infolist() if _is_model(info.filename)]
            if len(models) != 1:
                raise _unfit(path, f"`{path.name}` holds {len(models)} programs", "one is served")
            if models[0].file_size > _MAX_JSON_BYTES:
                raise ValueError(f"its graph has {models[0].file_size} bytes")
            return _exported(json.loads(archive.read(models[0])), path)
    except BROKEN_CONTENT as error:
        hint = "save it again with `torch.export.save`"
        raise corrupt(path, "is not a complete exported program", error, hint=hint) from error


def _is_model(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and parts[1] == "models" and parts[2].endswith(".json")


def _exported(document: Mapping[str, Any], path: Path) -> Exported:
    graph, signature = document["graph_module"]["graph"], document["graph_module"]["signature"]
    values = graph["tensor_values"]
    inputs = _named([spec["user_input"] for spec in signature["input_specs"] if "user_input" in spec], path, "input")
    outputs = _named(
        [spec["user_output"] for spec in signature["output_specs"] if "user_output" in spec], path, "output"
    )
    if not inputs or not outputs:
        raise _unfit(path, f"the program has {len(inputs)} inputs and {len(outputs)} outputs", "one each is needed")
    titles = [OUTPUT] if len(outputs) == 1 else [f"output_{index}" for index in range(len(outputs))]
    return Exported(
        version=str(document.get("torch_version") or "").partition("+")[0],
        inputs=tuple(_tensor(name, values[name], path) for name in inputs),
        outputs=tuple(_tensor(title, values[name], path) for title, name in zip(titles, outputs, strict=True)),
        most_rows=_most_rows(values[inputs[0]], document.get("range_constraints") or {}),
    )


def _named(specs: Sequence[Mapping[str, Any]], path: Path, what: str) -> list[str]:
    """The tensors' names. Numbers and the like among them are part of the program's signature, not of a request."""
    found = []
    for spec in specs:
        if "as_tensor" not in spec["arg"]:
            kind = next(iter(spec["arg"]), "nothing")
            raise _unfit(path, f"an {what} of the program is no tensor", f"it is {kind.removeprefix('as_')}")
        found.append(str(spec["arg"]["as_tensor"]["name"]))
    return found


def _tensor(name: str, value: Mapping[str, Any], path: Path) -> Tensor:
    dtype = _TYPES.get(value["dtype"])
    if dtype is None:
        raise _unfit(path, f"`{name}` is of a type that has no form in a request", f"ScalarType {value['dtype']}")
    shape = tuple(int(size["as_int"]) if "as_int" in size else None for size in value["sizes"])
    if not shape:
        raise _unfit(path, f"`{name}` is a single number", "the first dimension counts a request's rows")
    return Tensor(name, dtype, shape)


def _most_rows(value: Mapping[str, Any], ranges: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The upper bound of the first dimension, where it is free. The lower one is 2 for each program, and not meant."""
    text = str(value["sizes"][0].get("as_expr", {}).get("expr_str", ""))
    symbol = text.removeprefix("Symbol('").partition("'")[0]
    most = (ranges.get(symbol) or {}).get("max_val")
    return most if isinstance(most, int) and most > 0 else None


def _unfit(path: Path, what: str, why: str) -> UsageError:
    return UsageError(
        "adapter.contract",
        what,
        where=str(path),
        why=why,
        hint="export a program of tensors with a free first dimension, or write a class with `predict`",
    )
