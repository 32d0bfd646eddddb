"""Read an MLflow model folder: flavors, signature, input example and requirements, without MLflow.

`MLmodel` is YAML (mlflow/models/model.py), the signature in it two JSON texts (mlflow/models/signature.py,
mlflow/types/schema.py), the input example a JSON file beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from corten.adapters import plain_yaml
from corten.adapters.corrupt import corrupt
from corten.adapters.py_requirements import declared_requirements
from corten.core.model import Example
from corten.core.schema import DType, Tensor
from corten.errors import UsageError

MODEL_FILE = "MLmodel"
INPUT, OUTPUT = "inputs", "outputs"
_CONDA_FILE = "conda.yaml"
_MAX_FILE_BYTES = 8 << 20
_MAX_EXAMPLE_ROWS = 16
# mlflow.types.DataType; what JSON has no form for is left open.
_TYPES = {
    "boolean": DType.BOOL, "integer": DType.INT32, "long": DType.INT64, "float": DType.FLOAT32,
    "double": DType.FLOAT64, "string": DType.STRING,
}  # fmt: skip
_NUMBERS = frozenset({"integer", "long", "float", "double"})


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a signature: its name (empty for an unnamed one) and MLflow's type, "json" for nested ones."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Signature:
    """One side of a signature: columns of a data frame, or tensors, never both."""

    columns: tuple[Column, ...] = ()
    tensors: tuple[Tensor, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns' names, when each has one of its own."""
        names = tuple(column.name for column in self.columns)
        return names if all(names) and len(set(names)) == len(names) else ()

    @property
    def is_numeric(self) -> bool:
        """Whether all columns are numbers."""
        return all(column.kind in _NUMBERS for column in self.columns)


@dataclass(frozen=True, slots=True)
class MlflowFolder:
    """What a folder tells. `flavors` are MLflow's own settings a flavor; `requirements` None when it lists none."""

    flavors: Mapping[str, Mapping[str, Any]]
    version: str = ""
    python: str = ""
    inputs: Signature = field(default_factory=Signature)
    outputs: Signature = field(default_factory=Signature)
    has_parameters: bool = False
    example: Example | None = None
    requirements: tuple[str, ...] | None = None
    requirements_file: str = ""


def is_mlflow(folder: Path) -> bool:
    """Whether the folder has an `MLmodel` with flavors; never raises for content."""
    path = folder / MODEL_FILE
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return any(line.startswith(b"flavors:") for line in stream.read(_MAX_FILE_BYTES).splitlines())


def read_mlflow(folder: Path) -> MlflowFolder:
    """Read the folder. Raises UsageError `adapter.corrupt_model`, `adapter.requirements`."""
    try:
        model = plain_yaml.read(_text(folder / MODEL_FILE))
        flavors = _flavors(model["flavors"])
        signature = model.get("signature") or {}
        inputs, outputs = _signature(signature.get("inputs")), _signature(signature.get("outputs"))
        requirements, listed_in = _requirements(folder)
        return MlflowFolder(
            flavors=flavors,
            version=_string(model.get("mlflow_version")),
            python=_string(flavors.get("python_function", {}).get("python_version")),
            inputs=inputs,
            outputs=_named_output(outputs),
            has_parameters=bool(json.loads(signature.get("params") or "null")),
            example=_example(folder, model.get("saved_input_example_info"), inputs),
            requirements=requirements,
            requirements_file=listed_in,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        hint = "save it again with `mlflow.FLAVOR.save_model`, and copy the whole folder"
        raise corrupt(folder / MODEL_FILE, "describes no MLflow model that can be read", error, hint=hint) from error


def inside(folder: Path, name: object) -> Path:
    """The file a flavor names, which must lie in the folder. Raises UsageError."""
    if not isinstance(name, str) or not name:
        hint = "save the model again with MLflow"
        raise corrupt(folder / MODEL_FILE, "does not name a model file", "the flavor must", hint=hint)
    place = PurePosixPath(name)
    # The folder may come from a stranger: it must not pull files from elsewhere into an image.
    if place.is_absolute() or ".." in place.parts or not (folder / place).resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            "adapter.unsafe_path",
            f"the model wants its weights from `{name[:80]}`",
            where=str(folder / MODEL_FILE),
            why="they must lie in the model's folder",
            hint="copy the file into the folder and name it there",
        )
    if not (folder / place).exists():
        raise UsageError(
            "adapter.missing_weights",
            f"`{name}`, which holds the model, is not there",
            where=str(folder),
            why=f"`{MODEL_FILE}` names it",
            hint="copy the whole folder",
        )
    return folder / place


def _flavors(value: object) -> Mapping[str, Mapping[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(flavor, dict) for flavor in value.values()):
        raise TypeError("`flavors` are no mappings")
    return value


def _text(path: Path) -> str:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ValueError(f"`{path.name}` has {path.stat().st_size} bytes")
    return path.read_text(encoding="utf-8")


def _string(value: object) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, float) else ""


def _signature(text: str | None) -> Signature:
    specs = json.loads(text) if text else []
    if not isinstance(specs, list):
        raise TypeError("the signature is no list")
    if specs and all(spec["type"] == "tensor" for spec in specs):
        return Signature(tensors=tuple(_tensor(spec) for spec in specs))
    return Signature(columns=tuple(Column(spec.get("name", ""), _kind(spec["type"])) for spec in specs))


def _kind(kind: object) -> str:
    return kind if isinstance(kind, str) and (kind in _TYPES or kind in ("datetime", "binary")) else "json"


def _tensor(spec: Mapping[str, Any]) -> Tensor:
    told = spec["tensor-spec"]
    names = {dtype.value: dtype for dtype in DType}
    dtype = names.get(told["dtype"], DType.STRING if told["dtype"] in ("str", "object") else DType.JSON)
    shape = tuple(None if size < 0 else int(size) for size in told["shape"])
    return Tensor(spec.get("name", INPUT), dtype, shape or (None,))


def _named_output(outputs: Signature) -> Signature:
    if len(outputs.tensors) == 1 and outputs.tensors[0].name == INPUT:
        only = outputs.tensors[0]
        return Signature(tensors=(Tensor(OUTPUT, only.dtype, only.shape),))
    return outputs


def input_tensors(inputs: Signature) -> tuple[Tensor, ...]:
    """The arrays a request has: those of the signature, or one of rows with a data frame's columns."""
    if inputs.tensors:
        return inputs.tensors
    if not inputs.columns:
        return (Tensor(INPUT, DType.JSON, (None, None)),)
    kinds = {column.kind for column in inputs.columns}
    alike = _TYPES.get(next(iter(kinds)), DType.JSON) if len(kinds) == 1 else DType.JSON
    if inputs.is_numeric and alike is DType.JSON:
        alike = DType.FLOAT64
    return (Tensor(INPUT, alike, (None, len(inputs.columns)), inputs.names),)


def output_tensors(outputs: Signature) -> tuple[Tensor, ...]:
    """The arrays an answer has; one that may be anything when the signature tells none."""
    if outputs.tensors:
        return outputs.tensors
    if outputs.names:
        return tuple(Tensor(column.name, _TYPES.get(column.kind, DType.JSON), (None,)) for column in outputs.columns)
    kind = outputs.columns[0].kind if len(outputs.columns) == 1 else "json"
    return (Tensor(OUTPUT, _TYPES.get(kind, DType.JSON), (None,)),)


def _example(folder: Path, told: Mapping[str, Any] | None, inputs: Signature) -> Example | None:
    """The input example as a request, when it has that form: a data frame split in columns and rows, or arrays."""
    if not told or told.get("type") not in ("dataframe", "ndarray"):
        return None
    path = inside(folder, told.get("artifact_path"))
    if path.stat().st_size > _MAX_FILE_BYTES:
        return None
    data = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    if told["type"] == "ndarray":
        return Example({"inputs": _first(data)}) if data else None
    if told.get("pandas_orient") != "split" or not isinstance(data, dict) or not data.get("data"):
        return None
    rows, columns = data["data"][:_MAX_EXAMPLE_ROWS], data.get("columns")
    if inputs.names and columns and set(columns) == set(inputs.names):
        order = [columns.index(name) for name in inputs.names]
        rows = [[row[index] for index in order] for row in rows]
    return Example({"inputs": rows})


def _first(data: Any) -> Any:
    """The first rows of an array, or of each of several by name."""
    if isinstance(data, dict):
        return {name: rows[:_MAX_EXAMPLE_ROWS] for name, rows in data.items()}
    return data[:_MAX_EXAMPLE_ROWS]


def _requirements(folder: Path) -> tuple[tuple[str, ...] | None, str]:
    """`requirements.txt`, else the pip section of `conda.yaml`."""
    if listed := declared_requirements(folder):
        return listed.lines, listed.origin
    path = folder / _CONDA_FILE
    if not path.is_file():
        return None, ""
    dependencies: Sequence[Any] = plain_yaml.read(_text(path)).get("dependencies") or ()
    lines = [line for item in dependencies if isinstance(item, dict) for line in item.get("pip") or ()]
    return tuple(str(line) for line in lines), _CONDA_FILE
