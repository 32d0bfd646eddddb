"""MLflow model folders. Those of a flavor Corten knows are served without MLflow, others by `mlflow.pyfunc`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from corten import plugin
from corten.adapters.base import Adapter, Inspection, RowsModel, Source, SourceFile
from corten.adapters.corrupt import corrupt
from corten.adapters.distributions import distribution, pinned
from corten.adapters.mlflow_file import (
    MODEL_FILE,
    OUTPUT,
    MlflowFolder,
    input_tensors,
    inside,
    is_mlflow,
    output_tensors,
    read_mlflow,
)
from corten.adapters.weights import declared, once_each, visible
from corten.core.model import ModelSpec
from corten.core.schema import DType, Schema, Style
from corten.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

_PYFUNC = "python_function"
# The client without its server, database and web pages: 17 MB of wheels where `mlflow` has 300. `xgboost` has CUDA.
_SMALLER = {"mlflow": "mlflow-skinny", "xgboost": "xgboost-cpu"}
# `mlflow.pyfunc` imports them; `mlflow-skinny` does not ask for them.
_PYFUNC_NEEDS = ("numpy", "pandas")
# What results depend on besides the model's own package, pinned when the folder lists it.
_PINNED_TOO = ("numpy", "scipy")
_NOT_MODEL = frozenset({"corten.lock", "corten.toml"})


@dataclass(frozen=True, slots=True)
class _Flavor:
    """A flavor another adapter loads: where MLflow keeps the file's name, and the release it was saved with."""

    file_key: str
    version_key: str = ""
    distribution: str = ""


_FLAVORS: Mapping[str, _Flavor] = {
    "sklearn": _Flavor("pickled_model", "sklearn_version", "scikit-learn"),
    "xgboost": _Flavor("data", "xgb_version", "xgboost-cpu"),
    "lightgbm": _Flavor("data", "lgb_version", "lightgbm"),
    "onnx": _Flavor("data"),
}


class Mlflow:
    """A folder written by `mlflow.FLAVOR.save_model`, or downloaded from a run or registry."""

    name: ClassVar[str] = "mlflow"

    def detect(self, source: Source) -> bool:
        """Whether it is a folder with an `MLmodel`."""
        return source.path.is_dir() and is_mlflow(source.path)

    def inspect(self, source: Source) -> Inspection:
        """The flavor's file through its own adapter, with what the folder adds; else MLflow's own way to load it."""
        folder = read_mlflow(source.path)
        known = next((name for name in _FLAVORS if name in folder.flavors), None)
        return _by_flavor(source, folder, known) if known else _by_pyfunc(source, folder)

    def load(self, spec: ModelSpec, models: Path, app: Path) -> RowsModel:
        """Let MLflow load the folder."""
        del app
        return PyfuncModel(models, spec.schema)


def _by_flavor(source: Source, folder: MlflowFolder, name: str) -> Inspection:
    flavor, told = _FLAVORS[name], folder.flavors[name]
    path = inside(source.path, told.get(flavor.file_key))
    method = source.method or str(folder.flavors.get(_PYFUNC, {}).get("predict_fn", ""))
    adapter: Adapter = plugin.find("adapters", name)()
    inner = msgspec.structs.replace(source, path=path, method=method)
    if path.is_dir() or not adapter.detect(inner):
        raise corrupt(
            path,
            f"is no file of flavor `{name}`",
            f"`{MODEL_FILE}` says so, its content does not",
            hint="save the model again with MLflow; a LightGBM or XGBoost model is read from its native format",
        )
    found = adapter.inspect(inner)
    requirements, settled, said = _pinned(found, folder, {flavor.distribution: str(told.get(flavor.version_key) or "")})
    return msgspec.structs.replace(
        found,
        requirements=requirements,
        schema=_with_columns(found.schema, folder),
        python=found.python or folder.python,
        example=folder.example,
        notes=(*_notes(folder, f"flavor {name}, loaded without MLflow"), *found.notes),
        warnings=(*(line for line in found.warnings if not _is_settled(line, settled)), *said, *_warnings(folder)),
    )


def _pinned(
    found: Inspection, folder: MlflowFolder, flavor: Mapping[str, str]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Requirements, the names whose release only the folder told, and warnings where file and folder disagree."""
    listed = {distribution(line): line for line in folder.requirements or ()}
    versions = {name: pinned(line) for name, line in listed.items()} | {k: v for k, v in flavor.items() if k and v}
    lines, settled, said = [], [], []
    for line in found.requirements:
        name = distribution(line)
        release, own = versions.get(name, ""), pinned(line)
        # A file that does not tell its release gets the one installed here; MLflow knows that of the training.
        guessed = any(_is_settled(warning, (name,)) for warning in found.warnings)
        if own and release and own != release and not guessed:
            said.append(f"the model file is of {name} {own}, MLflow says {release}: the image gets {own}")
        if release and (guessed or not own):
            settled.append(name)
            lines.append(f"{name}=={release}")
        else:
            lines.append(line)
    have = {distribution(line) for line in lines}
    lines += [listed[name] for name in _PINNED_TOO if name in listed and name not in have]
    return tuple(lines), tuple(settled), tuple(said)


def _is_settled(warning: str, names: tuple[str, ...]) -> bool:
    """Whether an adapter warns that the file does not tell a release which the folder does."""
    return "taking" in warning and "tell" in warning and any(name in warning.lower() for name in names)


def _with_columns(schema: Schema | None, folder: MlflowFolder) -> Schema | None:
    """The file's schema with the names of the signature's columns, where the file has none."""
    names = folder.inputs.names
    if schema is None or not names or len(schema.inputs) != 1:
        return schema
    tensor = schema.inputs[0]
    # LightGBM writes names with `_` for each space.
    other = tensor.columns and list(tensor.columns) != [name.replace(" ", "_") for name in names]
    if other or len(tensor.shape) != 2 or tensor.shape[1] not in (None, len(names)):
        return schema
    dtype = tensor.dtype if folder.inputs.is_numeric else DType.JSON
    named = msgspec.structs.replace(tensor, dtype=dtype, shape=(None, len(names)), columns=names)
    return msgspec.structs.replace(schema, inputs=(named,))


def _by_pyfunc(source: Source, folder: MlflowFolder) -> Inspection:
    if _PYFUNC not in folder.flavors:
        raise UsageError(
            "adapter.not_a_model",
            f"`{source.path.name}` has no flavor that can be served",
            where=str(source.path / MODEL_FILE),
            why="it has " + ", ".join(folder.flavors) + "; known: " + ", ".join((*_FLAVORS, _PYFUNC)),
            hint="save it with a flavor that has `python_function`",
        )
    if source.method not in ("", "predict"):
        raise UsageError(
            "adapter.unknown_method",
            f"an MLflow model has no method `{source.method}`",
            where=str(source.path),
            hint="leave `method` out: it answers as `mlflow.pyfunc` does",
        )
    loader = folder.flavors[_PYFUNC].get("loader_module", "")
    files = (file for file in visible(source.path) if file.name not in _NOT_MODEL)
    weights = [SourceFile(file, file.relative_to(source.path).as_posix()) for file in files]
    return Inspection(
        adapter=Mlflow.name,
        requirements=_pyfunc_requirements(folder),
        # The main file first, as in every spec.
        weights=once_each((*sorted(weights, key=lambda file: file.name != MODEL_FILE), *declared(source))),
        schema=Schema(Style.ROWS, inputs=input_tensors(folder.inputs), outputs=output_tensors(folder.outputs)),
        python=folder.python,
        example=folder.example,
        notes=tuple(_notes(folder, f"loaded by mlflow.pyfunc with `{loader}`")),
        warnings=(
            f"loading runs the author's code (`{loader}`, cloudpickle): take such folders only from people you trust",
            *_warnings(folder),
        ),
    )


def _pyfunc_requirements(folder: MlflowFolder) -> tuple[str, ...]:
    """What the folder lists, each in its smaller build, and what `mlflow.pyfunc` needs besides."""
    lines = {distribution(line): line for line in folder.requirements or ()}
    lines.setdefault("mlflow", f"mlflow=={folder.version}" if folder.version else "mlflow")
    for name, smaller in _SMALLER.items():
        if line := lines.pop(name, ""):
            lines.setdefault(smaller, f"{smaller}=={pinned(line)}" if pinned(line) else smaller)
    for name in _PYFUNC_NEEDS:
        lines.setdefault(name, name)
    return tuple(lines.values())


def _notes(folder: MlflowFolder, how: str) -> list[str]:
    notes = [f"MLflow {folder.version or 'model'}, {how}"]
    if folder.inputs.columns:
        notes.append(f"its signature has {len(folder.inputs.columns)} columns")
    elif folder.inputs.tensors:
        notes.append("its signature has " + ", ".join(tensor.name for tensor in folder.inputs.tensors))
    if folder.example:
        notes.append("its input example must be answered before a replica is ready")
    if folder.requirements is not None:
        notes.append(f"releases from {folder.requirements_file}")
    return notes


def _warnings(folder: MlflowFolder) -> list[str]:
    found = []
    if not folder.inputs.columns and not folder.inputs.tensors:
        found.append("the model has no signature: save it with one to have requests checked by MLflow's types")
    if folder.has_parameters:
        found.append("the signature's parameters are not taken from requests; their defaults hold")
    return found


class PyfuncModel:
    """A folder loaded by `mlflow.pyfunc`, asked in the form its signature has."""

    def __init__(self, folder: Path, schema: Schema | None = None) -> None:
        import mlflow.pyfunc

        told = read_mlflow(folder)
        self._columns = told.inputs.columns
        self._frame = bool(told.inputs.columns) or not told.inputs.tensors
        self.schema = schema or Schema(
            Style.ROWS, inputs=input_tensors(told.inputs), outputs=output_tensors(told.outputs)
        )
        self._model = mlflow.pyfunc.load_model(str(folder))

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Rows as a data frame or as arrays, as the model was saved with; columns of its answer by name."""
        import pandas as pd

        answer = self._model.predict(self._given(inputs))
        if isinstance(answer, pd.DataFrame):
            if answer.shape[1] == 1:
                return {OUTPUT: answer.iloc[:, 0].to_numpy()}
            return {str(name): answer[name].to_numpy() for name in answer.columns}
        if isinstance(answer, dict):
            return {str(name): _array(values) for name, values in answer.items()}
        return {OUTPUT: _array(answer)}

    def _given(self, inputs: Mapping[str, np.ndarray]) -> Any:
        if self._frame:
            return self._as_frame(next(iter(inputs.values())))
        names = [tensor.name for tensor in self.schema.inputs]
        return inputs[names[0]] if len(names) == 1 else dict(inputs)

    def _as_frame(self, rows: np.ndarray) -> Any:
        import pandas as pd

        names = [column.name for column in self._columns]
        frame = pd.DataFrame(rows, columns=names if names and all(names) else None)
        for name, column in zip(frame.columns, self._columns, strict=False):
            if column.kind == "datetime":
                frame[name] = pd.to_datetime(frame[name])
            elif dtype := _PANDAS.get(column.kind):
                frame[name] = frame[name].astype(dtype)
        return frame


_PANDAS = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64",
}  # fmt: skip


def _array(answer: Any) -> np.ndarray:
    """An answer with rows as an array; lists of unequal things as JSON values."""
    import numpy as np

    if hasattr(answer, "to_numpy"):
        array: np.ndarray = answer.to_numpy()
        return array
    if isinstance(answer, np.ndarray):
        return answer
    items = list(answer)
    try:
        return np.asarray(items)
    except ValueError:
        joined = np.empty(len(items), dtype=object)
        joined[:] = items
        return joined
