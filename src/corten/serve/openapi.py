"""The OpenAPI 3.1 description of one model's server, made from its schema (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from corten.core.model import Example
from corten.core.schema import DType, Schema, Stream, Style, Tensor
from corten.serve.openapi_dialects import dialect_paths

_JSON_TYPES: Mapping[DType, Any] = {
    DType.BOOL: {"type": "boolean"},
    DType.STRING: {"type": "string"},
    DType.JSON: {},
    DType.FLOAT16: {"type": "number"},
    DType.FLOAT32: {"type": "number", "format": "float"},
    DType.FLOAT64: {"type": "number", "format": "double"},
}
_ARROW = "application/vnd.apache.arrow.stream"
_ERRORS = {
    "400": "The body is not JSON",
    "413": "The body is too large",
    "406": "The answer has no such form",
    "415": "The body is declared to be of a type that is not taken",
    "422": "The body does not fit the model's schema; `path` names the element",
    "429": "The queue is full; `Retry-After` says when to come back",
    "500": "The model raised an exception",
    "503": "The model is loading, or the server is stopping",
    "504": "The model took too long",
}


def openapi(
    name: str, revision: str, schema: Schema, *, abilities: Collection[str] = (), example: Example | None = None
) -> dict[str, Any]:
    """The document. `revision` becomes its version; `abilities` are what the model can do beside predicting (`embed`,
    `chat`, `complete`); `example` becomes the request's.
    """
    request, response = (_calls if schema.style is Style.CALL else _rows)(schema)
    # Schemas made from Python types refer to `#/$defs/X`, which in OpenAPI is `#/components/schemas/X`.
    shared: dict[str, Any] = {}
    request, response = _hoist(request, shared), _hoist(response, shared)
    asked = _json(request)
    if example is not None:
        asked["application/json"]["example"] = example.inputs
    tables: dict[str, Any] = {} if schema.style is Style.CALL else _tables(schema)
    asked |= _files(schema)
    answers = {**_json(response), **tables, **_pieces(schema)}
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": revision or "0", "x-corten-style": schema.style.value},
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": f"Ask {name}",
                    "requestBody": {"required": True, "content": {**asked, **tables}},
                    "responses": {
                        "200": {"description": "The model's answer", "content": answers},
                        "202": {
                            "description": "Accepted, for `Prefer: respond-async`: the answer will be at `Location`"
                        },
                        **{code: _error(text) for code, text in _ERRORS.items()},
                    },
                }
            },
            "/livez": {"get": _probe("livez", "Whether the process works")},
            "/readyz": {"get": _probe("readyz", "Whether requests can be sent")},
            "/metrics": {"get": _text("metrics", "Metrics in Prometheus' text format")},
            **dialect_paths(name, abilities),
        },
        "components": {"schemas": {**shared, "Error": _ERROR_SCHEMA}},
    }


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _tables(schema: Schema) -> dict[str, Any]:
    """The other media types of a ROWS model."""
    found: dict[str, Any] = {"text/csv": {"schema": {"type": "string"}}, _ARROW: {"schema": {"title": "columns"}}}
    if len(schema.inputs) == 1:
        found["application/x-npy"] = {"schema": {"type": "string", "format": "binary"}}
    return found


def _files(schema: Schema) -> dict[str, Any]:
    """The media types of a CALL model some of whose arguments are files: a form, or the only file as it is."""
    files = {one.name: _file(one.json_schema) for one in schema.parameters if _file(one.json_schema)}
    if not files:
        return {}
    properties = {one.name: files.get(one.name) or dict(one.json_schema) for one in schema.parameters}
    needed = [one.name for one in schema.parameters if one.required]
    found = {"multipart/form-data": {"schema": {"type": "object", "properties": properties, "required": needed}}}
    if len(files) == 1:
        (kind,) = (one.get("contentMediaType", "application/octet-stream") for one in files.values())
        found[kind] = {"schema": {"title": "the file as it is, other arguments in the query"}}
    return found


def _file(json_schema: Mapping[str, Any]) -> dict[str, Any]:
    """How a form has an argument that is a file (OpenAPI 3.1, 4.8.14.3), empty for one that is none."""
    for one in json_schema.get("anyOf", [json_schema]):
        if "contentEncoding" in one:
            return {"type": "string", "contentMediaType": one.get("contentMediaType", "application/octet-stream")}
        if "x-corten-table" in one:
            return {"type": "string", "contentMediaType": "text/csv"}
    return {}


def _pieces(schema: Schema) -> dict[str, Any]:
    """The media types of an answer that comes piece by piece; the schema is that of a piece."""
    if schema.stream is None:
        return {}
    item = dict(schema.returns)
    return {"text/event-stream": {"schema": item}, "application/x-ndjson": {"schema": item}}


def _rows(schema: Schema) -> tuple[Any, Any]:
    by_name = _object({tensor.name: _array(tensor) for tensor in schema.inputs})
    forms = [by_name]
    if len(schema.inputs) == 1:
        forms.insert(0, _array(schema.inputs[0]))
        if columns := schema.inputs[0].columns:
            element = _element(schema.inputs[0])
            record = _object(dict.fromkeys(columns, element))
            forms.append({"type": "array", "items": record, "minItems": 1})
    elif all(tensor.shape[1:] in {(), (1,)} for tensor in schema.inputs):
        record = _object({tensor.name: _element(tensor) for tensor in schema.inputs})
        forms.append({"type": "array", "items": record, "minItems": 1})
    inputs = forms[0] if len(forms) == 1 else {"anyOf": forms}
    outputs: Any = {}
    if len(schema.outputs) == 1:
        outputs = _array(schema.outputs[0], nullable=True)
    elif schema.outputs:
        outputs = _object({tensor.name: _array(tensor, nullable=True) for tensor in schema.outputs})
    return _object({"inputs": inputs}), _object({"outputs": outputs}, closed=False)


def _calls(schema: Schema) -> tuple[Any, Any]:
    request = {
        "type": "object",
        "properties": {parameter.name: dict(parameter.json_schema) for parameter in schema.parameters},
        "required": [parameter.name for parameter in schema.parameters if parameter.required],
        "additionalProperties": False,
    }
    outputs = dict(schema.returns)
    match schema.stream:
        case Stream.LIST:
            outputs = {"type": "array", "items": outputs}
        case Stream.TEXT:
            outputs = {"type": "string"}
        case None:
            pass
    return request, _object({"outputs": outputs}, closed=False)


def _array(tensor: Tensor, *, nullable: bool = False) -> dict[str, Any]:
    """Nested arrays; the batch dimension needs one element at least."""
    inner: Any = _element(tensor, nullable=nullable)
    for size in reversed(tensor.shape[1:]):
        inner = {"type": "array", "items": inner, **({} if size is None else {"minItems": size, "maxItems": size})}
    batch = tensor.shape[0] if tensor.shape else None
    return {"type": "array", "items": inner, "minItems": batch or 1, **({"maxItems": batch} if batch else {})}


def _element(tensor: Tensor, *, nullable: bool = False) -> dict[str, Any]:
    found = dict(_JSON_TYPES.get(tensor.dtype) or ({} if tensor.dtype is DType.JSON else _integer(tensor.dtype)))
    if tensor.dtype.value.startswith("float") or (nullable and found):
        found["type"] = [found["type"], "null"]  # NaN
    return found


def _integer(dtype: DType) -> dict[str, Any]:
    bits = int(dtype.value.removeprefix("u").removeprefix("int"))
    low, high = (0, 2**bits - 1) if dtype.value.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return {"type": "integer", "minimum": low, "maximum": high}


def _object(properties: Mapping[str, Any], *, closed: bool = True) -> dict[str, Any]:
    closing = {"additionalProperties": False} if closed else {}
    return {"type": "object", "properties": dict(properties), "required": list(properties), **closing}


def _hoist(value: Any, shared: dict[str, Any]) -> Any:
    """Move `$defs` into `shared`, and point references there."""
    if isinstance(value, Mapping):
        for name, definition in value.get("$defs", {}).items():
            shared[name] = _hoist(definition, shared)
        return {
            key: _reference(item) if key == "$ref" and isinstance(item, str) else _hoist(item, shared)
            for key, item in value.items()
            if key != "$defs"
        }
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_hoist(item, shared) for item in value]
    return value


def _reference(target: str) -> str:
    return target.replace("#/$defs/", "#/components/schemas/")


def _error(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Error"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _probe(name: str, text: str) -> dict[str, Any]:
    return {"operationId": name, "summary": text, "responses": {"200": {"description": "Yes"}, "503": _error("No")}}


def _text(name: str, text: str) -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    return {"operationId": name, "summary": text, "responses": {"200": {"description": text, "content": content}}}


_ERROR_SCHEMA = _object(
    {
        "error": _object(
            {
                "code": {"type": "string", "description": "Stable, e.g. `request.invalid`"},
                "message": {"type": "string"},
                "path": {"type": "string", "description": "The element of the request, e.g. `inputs[3][7]`"},
            },
            closed=False,
        )
    },
    closed=False,
)
