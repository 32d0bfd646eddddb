"""Read what a `.keras` file says of itself: its release, its inputs and outputs, and whether it is made of Keras alone.

A zip with `metadata.json`, `config.json` (the layers, as nested JSON) and `model.weights.h5`
(keras/src/saving/saving_lib.py). Keras makes objects by the names in the configuration, and runs the bytecode in a
Lambda layer; both are judged here by an allow-list, for the builder's report and again before a file is loaded.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.adapters.broken_zip import BROKEN_CONTENT
from corten.adapters.corrupt import corrupt
from corten.core.schema import DType, Tensor
from corten.errors import PolicyError, UsageError

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
INPUT, OUTPUT = "inputs", "outputs"
_MAX_JSON_BYTES = 64 << 20
_HDF5 = b"\x89HDF\r\n\x1a\n"
# Where Keras's own classes are; not `keras.utils` or `keras.saving`, whose functions read files and fetch them.
_OWN = re.compile(
    r"keras(\.src)?(\.(activations|applications|constraints|dtype_policies|initializers|layers|models|ops|quantizers"
    r"|random|regularizers)(\.\w+)*|\.backend\.common\.\w+)?"
)
_BUILTINS = frozenset({"function", "slice", "dict", "list", "tuple"})
_LAMBDA = "__lambda__"


@dataclass(frozen=True, slots=True)
class KerasFile:
    """A model of Keras. `inputs_by_name`: they are given as a dict, else as one or a list."""

    version: str
    kind: str
    layers: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    inputs_by_name: bool


def is_keras(path: Path) -> bool:
    """Whether the file is a zip with Keras's members; never raises for content."""
    try:
        with path.open("rb") as stream:
            if stream.read(4) != b"PK\x03\x04":
                return False
        with zipfile.ZipFile(path) as archive:
            return {CONFIG, METADATA} <= set(archive.namelist())
    except BROKEN_CONTENT:
        return False


def is_hdf5(path: Path) -> bool:
    """Whether the file is HDF5: Keras's format before version 3, and that of weights alone."""
    with path.open("rb") as stream:
        return stream.read(len(_HDF5)) == _HDF5


def read_keras(path: Path) -> KerasFile:
    """Read and judge a file. Raises UsageError `adapter.corrupt_model`, `adapter.unknown_code`, `adapter.contract`;
    PolicyError `adapter.own_code`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config, metadata = _document(archive, CONFIG), _document(archive, METADATA)
            if WEIGHTS not in archive.namelist():
                raise ValueError(f"`{WEIGHTS}` is not in it")
        _judge(config, path)
        return _file(config, str(metadata.get("keras_version") or ""), path)
    except BROKEN_CONTENT as error:
        hint = 'save it again: `model.save("model.keras")`'
        raise corrupt(path, "is not a complete model of Keras", error, hint=hint) from error


def _document(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    info = archive.getinfo(name)
    if info.file_size > _MAX_JSON_BYTES:
        raise ValueError(f"`{name}` has {info.file_size} bytes")
    document = json.loads(archive.read(info))
    if not isinstance(document, dict):
        raise TypeError(f"`{name}` holds a {type(document).__name__}")
    return document


def _judge(config: Mapping[str, Any], path: Path) -> None:
    """Refuse what is not Keras's own. What it was compiled with is not loaded, and may be anything."""
    for named in _objects({key: value for key, value in config.items() if key != "compile_config"}):
        kind, module = str(named["class_name"]), named.get("module")
        if kind == _LAMBDA:
            raise PolicyError(
                "adapter.own_code",
                f"`{path.name}` holds code: the bytecode of a Lambda layer",
                where=str(path),
                why="Keras would run it (`safe_mode` is on here)",
                hint="use functions of `keras.ops` instead, or serve a class you trust: `corten up file.py:Class`",
            )
        if kind.startswith("__") and module is None:
            continue  # `__tuple__` and the like: values, no objects
        own = isinstance(module, str) and (_OWN.fullmatch(module) or (module == "builtins" and kind in _BUILTINS))
        if not own:
            where = f"{module}.{kind}" if module else str(named.get("registered_name") or kind)
            raise UsageError(
                "adapter.unknown_code",
                f"the model needs code that is not in it: `{where[:100]}`",
                where=str(path),
                why="it is none of Keras's own layers; a file only names its classes",
                hint="write a class with `predict` that loads the model, beside that code: `corten up file.py:Class`",
            )


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    pending = [value]
    while pending:
        current = pending.pop()
        if isinstance(current, dict):
            if "class_name" in current:
                yield current
            pending.extend(current.values())
        elif isinstance(current, list):
            pending.extend(current)


def _file(config: Mapping[str, Any], version: str, path: Path) -> KerasFile:
    inner = config["config"]
    layers = {str(layer["config"].get("name", "")): layer for layer in inner.get("layers", ())}
    if "input_layers" in inner:  # a functional model: each end is (layer, node, tensor), in a list or by name
        given, answered = _ends(inner["input_layers"]), _ends(inner["output_layers"])
    else:
        names = list(layers)
        given, answered = {"": names[0]}, {"": names[-1]}
    inputs = tuple(
        _input(key or (name if len(given) > 1 else INPUT), layers[name], config, path) for key, name in given.items()
    )
    outputs = tuple(
        _output((name if key.isdigit() else key) if len(answered) > 1 else OUTPUT, layers[name])
        for key, name in answered.items()
    )
    by_name = isinstance(inner.get("input_layers"), dict)
    return KerasFile(
        version, str(config.get("class_name")), len(layers), _distinct(inputs), _distinct(outputs), by_name
    )


def _ends(told: Any) -> dict[str, str]:
    """The layers at one end, by the key they are given under: a name, or a number where it is a list."""
    if isinstance(told, dict):
        return {str(key): str(end[0]) for key, end in told.items()}
    if told and isinstance(told[0], str):
        return {"": str(told[0])}
    return {str(number): str(end[0]) for number, end in enumerate(told)} if len(told) > 1 else {"": str(told[0][0])}


def _input(name: str, layer: Mapping[str, Any], config: Mapping[str, Any], path: Path) -> Tensor:
    told = layer["config"]
    shape = told.get("batch_shape") or (config.get("build_config") or {}).get("input_shape")
    if told.get("sparse") or told.get("ragged") or not isinstance(shape, list) or not shape:
        kind = "sparse or ragged" if shape else "of no shape"
        raise UsageError(
            "adapter.contract",
            f"an input of `{path.name}` is {kind}",
            where=str(path),
            hint="build the model on dense inputs (`keras.Input(shape)`) and save it again",
        )
    title = str(told["name"]) if name.isdigit() else name
    return Tensor(title, _dtype(told.get("dtype"), path), tuple(size if size is None else int(size) for size in shape))


def _output(name: str, layer: Mapping[str, Any]) -> Tensor:
    """A dense layer tells how wide its rows are; of others it would have to be worked out."""
    shape = (layer.get("build_config") or {}).get("input_shape")
    units = layer["config"].get("units")
    if layer.get("class_name") == "Dense" and isinstance(units, int) and isinstance(shape, list) and len(shape) == 2:
        return Tensor(name, DType.FLOAT32, (None, units))
    return Tensor(name, DType.JSON, (None,))


def _distinct(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ValueError("two of its ends have one name")
    return tensors


def _dtype(told: Any, path: Path) -> DType:
    name = told.get("config", {}).get("name") if isinstance(told, dict) else told
    usual = {"mixed_float16": "float32", "mixed_bfloat16": "float32", "bfloat16": "float32", None: "float32"}
    try:
        found = DType(usual.get(name, name))
    except ValueError:
        found = DType.JSON
    if found in (DType.STRING, DType.JSON):
        raise UsageError(
            "adapter.contract",
            f"an input of `{path.name}` is of type `{name}`",
            where=str(path),
            why="layers for texts need TensorFlow",
            hint="turn texts into numbers in a class of your own: `corten up file.py:Class`",
        )
    return found
