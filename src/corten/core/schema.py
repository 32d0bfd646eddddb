"""The types of a model's inputs and outputs. (A signature is cryptographic; this is a schema.)

Two styles of model exist. ROWS: arrays whose first dimension is the batch (`{"inputs": [[...], ...]}`), which may be
joined into one call. CALL: a typed Python `predict(text: str, top: int = 3)` (`{"text": "..."}`), described by JSON
Schema for each parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec


class Style(Enum):
    """How a model wants to be asked."""

    ROWS = "rows"
    CALL = "call"


class Stream(Enum):
    """What the pieces of an answer that comes piece by piece make together."""

    LIST = "list"
    TEXT = "text"


class DType(Enum):
    """Element types; the values are numpy's names, and `string` and `json` for what numpy calls object."""

    BOOL = "bool"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    INT64 = "int64"
    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    UINT64 = "uint64"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"
    STRING = "string"
    JSON = "json"


class Tensor(msgspec.Struct, frozen=True):
    """A named array. `shape` counts the batch as its first dimension; None is a free length."""

    name: str
    dtype: DType
    shape: tuple[int | None, ...]
    # Names of the columns, when the model was trained on named ones: len == shape[-1].
    columns: tuple[str, ...] = ()


class Parameter(msgspec.Struct, frozen=True):
    """One argument of a CALL model: its name, its JSON Schema, whether it may be left out."""

    name: str
    json_schema: Mapping[str, Any]
    required: bool = True


class Schema(msgspec.Struct, frozen=True):
    """What goes in and what comes out. ROWS models fill `inputs` and `outputs`, CALL models the others.

    `returns` is the JSON Schema of the answer or, where `stream` is set, of each of its pieces.
    """

    style: Style
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    returns: Mapping[str, Any] = msgspec.field(default_factory=dict)
    stream: Stream | None = None
