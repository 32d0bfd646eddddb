"""The Open Inference Protocol's requests and answers as bytes, without numpy.

Formats: https://github.com/kserve/open-inference-protocol (REST) and Triton's binary tensor data extension, in which
the JSON is followed by the tensors' bytes, little-endian, row by row; an element of type BYTES has its length before
it as a uint32.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.serve.decoding import decode
from corten.serve.job import Reply, RequestError, invalid, malformed

HEADER_LENGTH = "Inference-Header-Content-Length"
BYTES = "BYTES"
# struct's letter for an element; BYTES have no size of their own.
LETTERS: Mapping[str, str] = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
MOST_DIMENSIONS = 32


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw = msgspec.Raw(b"")
    parameters: dict[str, Any] = {}


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Infer(msgspec.Struct):
    # What is not listed is ignored, as the protocol asks of parameters a server does not know.
    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] = []
    parameters: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(_Infer)


@dataclass(frozen=True, slots=True)
class Given:
    """An input: its elements either as JSON text or as bytes. `path` is its place in the request."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    text: msgspec.Raw | None
    raw: memoryview
    path: str

    @property
    def count(self) -> int:
        """How many elements the shape has."""
        return math.prod(self.shape)

    def values(self, kind: Any) -> list[Any]:
        """The elements of JSON text, nested or flat as they were sent; `kind` is what one of them must be."""
        text = self.text or msgspec.Raw(b"")
        nested = bytes(text).lstrip()[1:].lstrip()[:1] == b"["
        for _ in self.shape if nested else (1,):
            kind = list.__class_getitem__(kind)
        try:
            found: list[Any] = decode(msgspec.json.Decoder(kind), bytes(text))
        except RequestError as error:
            # msgspec's path begins at the element: `[0][1]`.
            raise RequestError(error.status, error.code, error.message, path=f"{self.path}.data{error.path}") from error
        return found


@dataclass(frozen=True, slots=True)
class Question:
    """A request for inference. `binary` says for each wanted output whether as bytes; none wanted means all."""

    id: str
    inputs: tuple[Given, ...]
    binary: Mapping[str, bool]
    all_binary: bool


@dataclass(frozen=True, slots=True)
class Tensor:
    """An output: JSON text of its elements, or their bytes, which may be the model's own until they are written."""

    name: str
    datatype: str
    shape: Sequence[int]
    text: bytes = b""
    raw: bytes | memoryview | None = None


def parse(body: bytes | bytearray, header_length: str | None) -> Question:
    """Read a request; raises RequestError. The bytes of tensors are not copied."""
    view = memoryview(body)
    size = len(body) if header_length is None else _header_size(header_length, len(body))
    # msgspec takes any buffer; the cast is for its types.
    request = decode(_decoder, body if size == len(body) else bytes(view[:size]))
    inputs = tuple(_given(request.inputs, view[size:]))
    names = [given.name for given in inputs]
    if len(set(names)) != len(names):
        raise invalid("the same input twice", "inputs")
    all_binary = request.parameters.get("binary_data_output") is True
    wanted = {output.name: bool(output.parameters.get("binary_data", all_binary)) for output in request.outputs}
    return Question(request.id, inputs, wanted, all_binary)


def _header_size(text: str, length: int) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:20]) > length:
        raise malformed(f"{HEADER_LENGTH} `{text[:40]}` is not a length within the body's {length} bytes")
    return int(text)


def _given(inputs: Sequence[_Input], rest: memoryview) -> Iterator[Given]:
    start = 0
    for i, given in enumerate(inputs):
        path = f"inputs[{i}]"
        if given.datatype not in LETTERS and given.datatype != BYTES:
            known = ", ".join((*LETTERS, BYTES))
            raise invalid(f"datatype `{given.datatype[:40]}` is not known; known: {known}", f"{path}.datatype")
        if len(given.shape) > MOST_DIMENSIONS or any(size < 0 for size in given.shape):
            raise invalid("expected lengths, 32 at most", f"{path}.shape")
        if "shared_memory_region" in given.parameters:
            raise invalid("this server shares no memory with its clients", f"{path}.parameters")
        size = given.parameters.get("binary_data_size")
        if size is None:
            if not bytes(given.data):
                raise invalid("neither `data` nor a `binary_data_size`", path)
            yield Given(given.name, tuple(given.shape), given.datatype, given.data, rest[:0], path)
            continue
        if type(size) is not int or not 0 <= size <= len(rest) - start:
            raise invalid(
                f"not a size within the {len(rest) - start} bytes left", f"{path}.parameters.binary_data_size"
            )
        found = Given(given.name, tuple(given.shape), given.datatype, None, rest[start : start + size], path)
        check_size(found)
        yield found
        start += size
    if start != len(rest):
        raise invalid(f"{len(rest) - start} bytes follow the last tensor", "inputs")


def check_size(given: Given) -> None:
    """Raises RequestError when a tensor's bytes are not as many as its shape and type say. BYTES tell as they go."""
    if given.datatype == BYTES:
        return
    expected = given.count * struct.calcsize("<" + LETTERS[given.datatype])
    if len(given.raw) != expected:
        raise invalid(f"{len(given.raw)} bytes, where shape and datatype make {expected}", given.path)


def elements(given: Given) -> Iterator[bytes]:
    """The elements of a BYTES tensor sent as bytes; raises RequestError when lengths and shape disagree."""
    raw, start, seen = given.raw, 0, 0
    while start < len(raw):
        if start + 4 > len(raw):
            raise invalid(f"element {seen} is cut off", given.path)
        (length,) = struct.unpack_from("<I", raw, start)
        start += 4 + length
        if start > len(raw):
            raise invalid(f"element {seen} is cut off", given.path)
        yield bytes(raw[start - length : start])
        seen += 1
    if seen != given.count:
        raise invalid(f"{seen} elements, where the shape makes {given.count}", given.path)


def text_of(element: bytes, given: Given) -> str:
    """An element of BYTES as text; raises RequestError where it is not UTF-8."""
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise invalid("texts must be UTF-8", given.path) from error


def joined(texts: Sequence[str]) -> bytes:
    """Texts as the bytes of a BYTES tensor."""
    encoded = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(text)) + text for text in encoded)


def reply(model: str, version: str, question: Question, outputs: Sequence[Tensor]) -> Reply:
    """The answer: JSON, and after it the bytes of the outputs that are wanted so."""
    described = []
    for output in outputs:
        one: dict[str, Any] = {"name": output.name, "datatype": output.datatype, "shape": list(output.shape)}
        if output.raw is None:
            one["data"] = msgspec.Raw(output.text)
        else:
            one["parameters"] = {"binary_data_size": len(output.raw)}
        described.append(one)
    head: dict[str, Any] = {"model_name": model, "model_version": version}
    if question.id:
        head["id"] = question.id
    text = msgspec.json.encode({**head, "outputs": described})
    blobs = [output.raw for output in outputs if output.raw is not None]
    if not blobs:
        return Reply(text, "application/json")
    return Reply(b"".join((text, *blobs)), "application/octet-stream", ((HEADER_LENGTH, str(len(text))),))
