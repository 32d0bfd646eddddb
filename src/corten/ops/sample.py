"""A request a model accepts: its own example, or zeros in the shape of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corten.core.model import ModelSpec
from corten.core.schema import DType, Schema, Style, Tensor

_WORDS: Mapping[str, Any] = {"string": "text", "integer": 0, "number": 0.0, "boolean": False, "array": [], "object": {}}
# Of a JSON schema, what says which values there are.
_KNOWN = {"type", "default", "const", "enum", "examples", "anyOf", "oneOf"}


def sample_body(spec: ModelSpec) -> Any:
    """A body for `POST /predict`; None when nothing is known of the model's inputs."""
    if spec.example is not None:
        return spec.example.inputs
    return None if spec.schema is None else _from_schema(spec.schema)


def _from_schema(schema: Schema) -> Any:
    match schema.style:
        case Style.ROWS:
            if not schema.inputs or any(_is_free(tensor) for tensor in schema.inputs):
                return None
            if len(schema.inputs) == 1:
                return {"inputs": _zeros(schema.inputs[0])}
            return {"inputs": {tensor.name: _zeros(tensor) for tensor in schema.inputs}}
        case Style.CALL:
            required = [parameter for parameter in schema.parameters if parameter.required]
            if not all(_KNOWN & parameter.json_schema.keys() for parameter in required):
                return None  # it takes anything, as far as its text says: a guess would be nonsense to it
            return {parameter.name: _word(parameter.json_schema) for parameter in required}


def _is_free(tensor: Tensor) -> bool:
    """Whether it takes rows as they come: a module of PyTorch alone tells neither their shape nor their type."""
    return tensor.dtype is DType.JSON and tensor.shape == (None,)


def _zeros(tensor: Tensor) -> Any:
    """One row; free lengths become one."""
    value: Any = "" if tensor.dtype is DType.STRING else False if tensor.dtype is DType.BOOL else 0
    if tensor.dtype in (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64):
        value = 0.0
    for length in reversed((1, *tensor.shape[1:])):
        value = [value for _ in range(1 if length is None else length)]
    return value


def _word(schema: Mapping[str, Any]) -> Any:
    for choice in ("default", "const"):
        if choice in schema:
            return schema[choice]
    for choices in ("enum", "examples"):
        if schema.get(choices):
            return schema[choices][0]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _word(schema[union][0])
    kind = schema.get("type", "string")
    return _WORDS.get(kind[0] if isinstance(kind, list) else kind)
