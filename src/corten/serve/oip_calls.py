"""CALL models in the Open Inference Protocol: each parameter is a tensor of shape [n], for n calls.

Texts are BYTES, numbers FP64, integers INT64, booleans BOOL. A parameter or result of any other type is BYTES too, each
element the JSON text of a value. Works without numpy, which such models may do without.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from corten.core.schema import Parameter, Schema
from corten.serve.calls import CallsRunner
from corten.serve.decoding import decode
from corten.serve.job import Inputs, ModelOutputError, Reply, RequestError, invalid
from corten.serve.oip_wire import BYTES, LETTERS, Given, Question, Tensor, elements, joined, text_of
from corten.serve.values import to_json

OUTPUT = "outputs"
_KINDS = {"string": BYTES, "number": "FP64", "integer": "INT64", "boolean": "BOOL"}
_json = msgspec.json.Decoder(Any)


def datatype(json_schema: Mapping[str, Any]) -> tuple[str, bool]:
    """The datatype of a value, and whether its elements are JSON texts."""
    kind = json_schema.get("type")
    choices = json_schema.get("anyOf")
    if isinstance(choices, list):  # `str | None`
        kinds = [choice.get("type") for choice in choices if choice.get("type") != "null"]
        kind = kinds[0] if len(kinds) == 1 else None
    found = _KINDS.get(kind) if isinstance(kind, str) else None
    if found is None and (values := json_schema.get("enum")) and all(isinstance(value, str) for value in values):
        found = BYTES
    return (found, False) if found else (BYTES, True)


def described(schema: Schema) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs for the model's metadata."""
    inputs = [
        {"name": parameter.name, "datatype": datatype(parameter.json_schema)[0], "shape": [-1]}
        for parameter in schema.parameters
    ]
    return inputs, [{"name": OUTPUT, "datatype": datatype(schema.returns)[0], "shape": [-1]}]


def inputs(runner: CallsRunner, question: Question, form: Callable[[Any], Reply]) -> Inputs:
    """The calls of a request; raises RequestError."""
    if question.binary and set(question.binary) != {OUTPUT}:
        raise invalid(f"the only output is `{OUTPUT}`", "outputs")
    parameters = {parameter.name: parameter for parameter in runner.schema.parameters}
    columns: dict[str, Sequence[Any]] = {}
    for given in question.inputs:
        if given.name not in parameters:
            known = ", ".join(parameters) or "none"
            raise invalid(f"unknown input `{given.name[:100]}`; known: {known}", f"{given.path}.name")
        columns[given.name] = _column(given, parameters[given.name])
    counts = {len(column) for column in columns.values()}
    if len(counts) > 1:
        raise invalid(f"the inputs must have equally many elements, got {sorted(counts)}", "inputs")
    rows = counts.pop() if counts else 1
    calls = [{name: column[i] for name, column in columns.items()} for i in range(rows)]
    return runner.many(calls, form, "calls")


def outputs(values: Sequence[Any], schema: Schema, question: Question) -> list[Tensor]:
    """The results as one tensor; raises ModelOutputError for one that is not as the model declares."""
    kind, as_json = datatype(schema.returns)
    binary = question.binary.get(OUTPUT, question.all_binary)
    shape = [len(values)]
    if kind == BYTES:
        texts = [to_json(value).decode() if as_json or not isinstance(value, str) else value for value in values]
        return [Tensor(OUTPUT, BYTES, shape, to_json(texts), joined(texts) if binary else None)]
    try:
        raw = struct.pack(f"<{len(values)}{LETTERS[kind]}", *values)
    except (struct.error, TypeError) as error:
        raise ModelOutputError(f"the model declares {kind}, and gave something else: {error}") from error
    return [Tensor(OUTPUT, kind, shape, to_json(list(values)), raw if binary else None)]


def _column(given: Given, parameter: Parameter) -> list[Any]:
    """The elements of one parameter, a value for each call."""
    if len(given.shape) not in {1, 2} or (len(given.shape) == 2 and given.shape[1] != 1):
        raise invalid(f"shape {list(given.shape)}, expected [n]", f"{given.path}.shape")
    values = _values(given)
    if len(values) != given.count:
        raise invalid(f"{len(values)} elements, where the shape makes {given.count}", f"{given.path}.data")
    wanted, as_json = datatype(parameter.json_schema)
    if as_json and given.datatype == BYTES:
        return [_of_text(text, given, i) for i, text in enumerate(values)]
    if (given.datatype == BYTES) != (wanted == BYTES) and not as_json:
        raise invalid(f"datatype {given.datatype}, expected {wanted}", f"{given.path}.datatype")
    return values


def _values(given: Given) -> list[Any]:
    if given.text is None:
        if given.datatype == BYTES:
            return [text_of(element, given) for element in elements(given)]
        return list(struct.unpack(f"<{given.count}{LETTERS[given.datatype]}", given.raw))
    letter = LETTERS.get(given.datatype, "")
    kind: Any = str if given.datatype == BYTES else bool if letter == "?" else (float if letter in "efd" else int)
    values = given.values(kind)
    return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]


def _of_text(text: str, given: Given, index: int) -> Any:
    try:
        return decode(_json, text.encode())
    except (RequestError, UnicodeEncodeError) as error:
        raise invalid("expected the JSON text of a value", f"{given.path}.data[{index}]") from error
