"""Bodies of CALL models that are no JSON: forms with files, or the bytes of the one argument that holds some.

Answers too: the bytes of a result that is some, as the image or file it is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from corten.core.schema import Parameter, Schema
from corten.http import Request
from corten.serve.calls import CallsRunner
from corten.serve.decoding import decode
from corten.serve.job import Inputs, ModelOutputError, Reply, RequestError, invalid
from corten.serve.multipart import Part, parts
from corten.serve.tabular import write_csv

ARROW = "application/vnd.apache.arrow.stream"
_TABLES = frozenset({"text/csv", ARROW, "application/vnd.apache.arrow.file"})
_json = msgspec.json.Decoder(Any)


def is_file(json_schema: Mapping[str, Any]) -> bool:
    """Whether an argument of that schema is made of a file: bytes, an image, a table; or a list of them."""
    return any(
        "contentEncoding" in one or "x-corten-table" in one or is_list_of_files(one) for one in _choices(json_schema)
    )


def is_list_of_files(json_schema: Mapping[str, Any]) -> bool:
    """Whether it is a list of several."""
    items = json_schema.get("items")
    return isinstance(items, Mapping) and any("contentEncoding" in one for one in _choices(items))


def _choices(json_schema: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The ways to fill it, `None` aside."""
    choices = json_schema.get("anyOf")
    return choices if isinstance(choices, list) else [json_schema]


def of_form(runner: CallsRunner, request: Request) -> Inputs:
    """The call a form makes, a part an argument; raises RequestError."""
    known = {parameter.name: parameter for parameter in runner.schema.parameters}
    arguments: dict[str, Any] = {}
    for part in parts(request.body, request.headers.get("content-type", "")):
        parameter = known.get(part.name)
        value = _of_part(part, parameter)
        several = parameter is not None and any(one.get("type") == "array" for one in _choices(parameter.json_schema))
        is_table = parameter is not None and any("x-corten-table" in one for one in _choices(parameter.json_schema))
        if several and not is_table and not isinstance(value, list):
            arguments.setdefault(part.name, []).append(value)
        elif part.name in arguments:
            raise invalid("the same part twice", part.name)
        else:
            arguments[part.name] = value
    return runner.of_arguments(arguments)


def of_file(runner: CallsRunner, request: Request, kind: str) -> Inputs:
    """The call a bare file makes; other arguments are in the query. Raises RequestError."""
    files = [parameter for parameter in runner.schema.parameters if is_file(parameter.json_schema)]
    tables = [one for one in files if any("x-corten-table" in choice for choice in _choices(one.json_schema))]
    fitting = tables if kind in _TABLES and tables else files
    needed = [parameter for parameter in fitting if parameter.required] or fitting
    if len(needed) != 1:
        what = "no argument of this model is a file" if not needed else "it does not say which argument it is"
        raise RequestError(415, "request.media_type", f"{what}; send application/json, or multipart/form-data by name")
    known = {parameter.name: parameter for parameter in runner.schema.parameters}
    arguments = {name: _of_text(text, known.get(name)) for name, text in request.params.items()}
    content: Any = bytes(request.body)
    arguments[needed[0].name] = [content] if is_list_of_files(needed[0].json_schema) else content
    return runner.of_arguments(arguments)


def _of_part(part: Part, parameter: Parameter | None) -> Any:
    if parameter is None:
        return None  # it is refused by its name
    if is_file(parameter.json_schema) and (part.filename is not None or part.content_type):
        return bytes(part.content)
    try:
        text = bytes(part.content).decode()
    except UnicodeDecodeError as error:
        raise invalid("expected text in UTF-8", part.name) from error
    return _of_text(text, parameter)


def _of_text(text: str, parameter: Parameter | None) -> Any:
    """A field: a text where one is wanted, else what JSON it is."""
    if parameter is None:
        return text
    kinds = {kind for one in _choices(parameter.json_schema) for kind in _kinds(one)}
    if not text and "string" not in kinds and "null" in kinds:
        return None
    if "string" in kinds and not kinds & {"object", "array"}:
        return text
    try:
        return decode(_json, text.encode())
    except RequestError:
        return text  # for the model's types to judge


def _kinds(one: Mapping[str, Any]) -> set[str]:
    if isinstance(values := one.get("enum"), list):
        return {"string" if isinstance(value, str) else "number" for value in values}
    kind = one.get("type")
    return {kind} if isinstance(kind, str) else set(kind or ())


def as_file(accepted: Sequence[str], schema: Schema) -> Callable[[Any], Reply] | None:
    """The form of an answer that is bytes, where the client takes it so; None otherwise."""
    described = next((one for one in _choices(schema.returns) if "contentEncoding" in one), None)
    if described is None or schema.stream is not None:
        return None
    declared = described.get("contentMediaType", "")
    for kind in accepted:
        if kind in {"application/json", "*/*", "application/*"}:
            return None
        fits = kind == declared or (kind.endswith("/*") and declared.startswith(kind[:-1]))
        if fits or (not declared and "*" not in kind):
            return _as_bytes(declared or kind)
    return None


def _as_bytes(kind: str) -> Callable[[Any], Reply]:
    def form(value: Any) -> Reply:
        if not isinstance(value, str):
            raise ModelOutputError("the model declares bytes and gave something else")
        return Reply(base64.b64decode(value), kind)

    return form


def as_csv(value: Any) -> Reply:
    """Rows as objects, as a table; raises RequestError (406)."""
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise RequestError(406, "request.not_acceptable", "the answer is no table; take JSON")
    columns = {name: [row.get(name) for row in value] for name in value[0]}
    return Reply(write_csv(columns), "text/csv; charset=utf-8; header=present")


def as_text(value: Any) -> Reply:
    """A text as it is."""
    return Reply(value.encode("utf-8", "replace"), "text/plain; charset=utf-8")
