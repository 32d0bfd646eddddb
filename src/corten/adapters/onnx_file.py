"""Read the head of an ONNX file: versions, inputs, outputs, and the files its weights are in.

The file is a protocol buffer (ModelProto of onnx/onnx.proto). Only its wire format is read here (tags, varints and
lengths: https://protobuf.dev/programming-guides/encoding), over a memory map, so that gigabytes of weights are
stepped over and neither `onnx` nor `protobuf` is needed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from corten.adapters.corrupt import corrupt
from corten.core.schema import DType, Tensor

# Field numbers of the messages in onnx.proto.
_MODEL_IR_VERSION, _MODEL_PRODUCER, _MODEL_PRODUCER_VERSION, _MODEL_GRAPH, _MODEL_OPSET = 1, 2, 3, 7, 8
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_SPARSE = 1, 5, 11, 12, 15
_NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH = 5, 5, 6
_TENSOR_NAME, _TENSOR_EXTERNAL = 8, 13
_TYPE_TENSOR = 1
_BYTES, _VARINT, _FIXED64, _FIXED32 = 2, 0, 1, 5

# TensorProto.DataType.
_TYPES = {
    1: DType.FLOAT32, 2: DType.UINT8, 3: DType.INT8, 4: DType.UINT16, 5: DType.INT16, 6: DType.INT32,
    7: DType.INT64, 8: DType.STRING, 9: DType.BOOL, 10: DType.FLOAT16, 11: DType.FLOAT64, 12: DType.UINT32,
    13: DType.UINT64,
}  # fmt: skip
_INCOMPLETE = "is not a complete ONNX file"
_HINT = "export the model again, and copy it in binary mode"
_HIGHEST_IR_VERSION = 64
_MAX_SUBGRAPHS = 32
_MAX_FIELDS = 20_000_000
# What may follow `ir_version` when a writer keeps to the order of fields: producer ... graph, opset, metadata.
_SECOND_TAGS = frozenset({0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72})


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What an ONNX file says of itself. `external` are paths relative to the file's folder."""

    ir_version: int
    opsets: tuple[tuple[str, int], ...]
    producer: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    external: tuple[str, ...]


@dataclass(slots=True)
class _BrokenError(Exception):
    offset: int
    why: str


def is_onnx(path: Path) -> bool:
    """Whether the file starts as ONNX files do; never raises for content."""
    with path.open("rb") as stream:
        head = stream.read(3)
    return len(head) == 3 and head[0] == 0x08 and 1 <= head[1] <= _HIGHEST_IR_VERSION and head[2] in _SECOND_TAGS


def read_onnx(path: Path) -> OnnxFile:
    """Read the file's head. Raises UsageError (`adapter.corrupt_model`) with the byte offset and the reason."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read_model(_Message(data, 0, len(data), _Budget(_MAX_FIELDS)))
    except ValueError as error:  # a memory map of nothing
        raise corrupt(path, _INCOMPLETE, error, hint=_HINT) from error
    except _BrokenError as error:
        raise corrupt(path, _INCOMPLETE, f"byte {error.offset}: {error.why}", hint=_HINT) from None


@dataclass(slots=True)
class _Budget:
    """Fields still to be read; shared by all messages of a file."""

    left: int


@dataclass(frozen=True, slots=True)
class _Message:
    """A message's bytes within the file."""

    data: mmap.mmap
    start: int
    end: int
    budget: _Budget

    def fields(self) -> Iterator[tuple[int, int | _Message]]:
        """Every field in order: its number, and a number or the message (or text) it holds."""
        at = self.start
        while at < self.end:
            self.budget.left -= 1
            if self.budget.left < 0:
                self._fail(at, "more fields than any model has")
            tag, at = self._varint(at)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, at = self._varint(at)
                yield number, value
            elif kind == _BYTES:
                length, at = self._varint(at)
                self._need(at, length)
                yield number, _Message(self.data, at, at + length, self.budget)
                at += length
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
                self._need(at, size)
                at += size
            else:
                self._fail(at, f"wire type {kind} of field {number} is not in use")
            if number == 0:
                self._fail(at, "field number 0")

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for position in range(10):
            if at + position >= self.end:
                self._fail(at, "the file ends within a number")
            byte = self.data[at + position]
            value |= (byte & 0x7F) << 7 * position
            if byte < 0x80:
                return value, at + position + 1
        return self._fail(at, "a number has more than ten bytes")

    def _need(self, at: int, length: int) -> None:
        if length > self.end - at:
            self._fail(at, f"{length} bytes announced where {self.end - at} are left")

    def _fail(self, at: int, why: str) -> NoReturn:
        raise _BrokenError(at, why)

    def text(self) -> str:
        if self.end - self.start > 1 << 16:
            self._fail(self.start, "a name has more than 65,536 bytes")
        try:
            return self.data[self.start : self.end].decode()
        except UnicodeDecodeError:
            self._fail(self.start, "a name is not UTF-8")

    def all(self, number: int) -> Iterator[_Message]:
        """The messages under a field number."""
        return (value for found, value in self.fields() if found == number and isinstance(value, _Message))

    def first(self, number: int) -> _Message | None:
        return next(self.all(number), None)

    def number(self, number: int) -> int | None:
        return next((value for found, value in self.fields() if found == number and isinstance(value, int)), None)

    def string(self, number: int) -> str:
        found = self.first(number)
        return found.text() if found else ""


def _read_model(model: _Message) -> OnnxFile:
    ir_version, graph = model.number(_MODEL_IR_VERSION), model.first(_MODEL_GRAPH)
    if ir_version is None or graph is None:
        raise _BrokenError(model.start, "it has no version or no graph")
    initializers = {
        name
        for field in (_GRAPH_INITIALIZER, _GRAPH_SPARSE)
        for tensor in graph.all(field)
        if (name := tensor.string(_TENSOR_NAME))
    }
    producer = f"{model.string(_MODEL_PRODUCER)} {model.string(_MODEL_PRODUCER_VERSION)}".strip()
    return OnnxFile(
        ir_version=ir_version,
        opsets=tuple((opset.string(1), opset.number(2) or 0) for opset in model.all(_MODEL_OPSET)),
        producer=producer,
        # Up to IR version 3 the weights are listed among the inputs.
        inputs=tuple(_tensor(value) for value in graph.all(_GRAPH_INPUT) if value.string(1) not in initializers),
        outputs=tuple(_tensor(value) for value in graph.all(_GRAPH_OUTPUT)),
        external=tuple(sorted(set(_external(graph, 0)))),
    )


def _tensor(value: _Message) -> Tensor:
    """A ValueInfoProto: name = 1, type = 2. Sequences and maps, as classifiers' `ZipMap` makes them, become JSON."""
    name, kind = value.string(1), value.first(2)
    tensor = kind.first(_TYPE_TENSOR) if kind else None
    if tensor is None:
        return Tensor(name, DType.JSON, (None,))
    code = tensor.number(1) or 0
    if code not in _TYPES:
        raise _BrokenError(value.start, f"`{name}` has element type {code}, which has no place in a request")
    shape = tensor.first(2)
    if shape is None:
        return Tensor(name, _TYPES[code], (None,))
    return Tensor(name, _TYPES[code], tuple(_dimension(dimension) for dimension in shape.all(1)))


def _dimension(dimension: _Message) -> int | None:
    """TensorShapeProto.Dimension: dim_value = 1 or dim_param = 2. Exporters write 0 and -1 for free ones."""
    value = dimension.number(1)
    return value if value is not None and 0 < value < 1 << 48 else None


def _external(graph: _Message, depth: int) -> Iterator[str]:
    """Where weights outside of the file are: `location` of TensorProto.external_data, in subgraphs too."""
    if depth > _MAX_SUBGRAPHS:
        raise _BrokenError(graph.start, "graphs are nested too deep")
    tensors = [graph.all(_GRAPH_INITIALIZER)]
    for node in graph.all(_GRAPH_NODE):
        for attribute in node.all(_NODE_ATTRIBUTE):
            tensors.append(attribute.all(_ATTRIBUTE_TENSOR))
            for inner in attribute.all(_ATTRIBUTE_GRAPH):
                yield from _external(inner, depth + 1)
    for group in tensors:
        for tensor in group:
            for entry in tensor.all(_TENSOR_EXTERNAL):
                if entry.string(1) == "location":
                    yield entry.string(2)
