"""The OpenAPI description of the other protocols' routes, short: their own specifications say the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

_Schema = Mapping[str, Any]


def dialect_paths(name: str, abilities: Collection[str]) -> dict[str, Any]:
    """Paths by route. `name` is the model's; `abilities` what it can do beside predicting: `embed`, `chat` ..."""
    return {**_jobs(), **_open_inference(name), **_mlflow(), **_cog(), **_openai(abilities)}


def _open_inference(name: str) -> dict[str, Any]:
    tensor = _object(
        {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            "datatype": {"type": "string", "description": "BOOL, INT8 … UINT64, FP16, FP32, FP64 or BYTES"},
            "data": {"type": "array", "description": "Elements row by row, flat or nested"},
            "parameters": {"type": "object"},
        },
        required=("name", "shape", "datatype"),
    )
    request = _object(
        {
            "id": {"type": "string"},
            "inputs": {"type": "array", "items": tensor},
            "outputs": {"type": "array", "items": _object({"name": {"type": "string"}}, required=("name",))},
            "parameters": {"type": "object"},
        },
        required=("inputs",),
    )
    answer = _object(
        {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": tensor},
        },
        required=("model_name", "outputs"),
    )
    infer = _post("v2Infer", "Ask with tensors (Open Inference Protocol v2)", request, answer)
    # The same with the tensors' bytes after the JSON; `Inference-Header-Content-Length` is the length of the JSON.
    infer["requestBody"]["content"]["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {
        "/v2": {"get": _get("v2Server", "The server, in the Open Inference Protocol")},
        "/v2/health/live": {"get": _get("v2Live", "Whether the process works")},
        "/v2/health/ready": {"get": _get("v2Ready", "Whether requests can be sent", busy=True)},
        f"/v2/models/{name}": {"get": _get("v2Model", "The model's tensors", busy=True)},
        f"/v2/models/{name}/ready": {"get": _get("v2ModelReady", "Whether the model can be asked", busy=True)},
        f"/v2/models/{name}/infer": {"post": infer},
    }


def _jobs() -> dict[str, Any]:
    text = {"type": "string"}
    job = _object(
        {"id": text, "status": {"enum": ["starting", "processing", "succeeded", "failed", "canceled"]}, "code": {}},
        required=("id", "status"),
    )
    by_id = {"parameters": [{"name": "id", "in": "path", "required": True, "schema": text}]}
    unknown = {"404": {"description": "There is no such job, or it ended an hour ago"}}

    def route(operation: str, summary: str, answer: _Schema, **more: Any) -> dict[str, Any]:
        content = {"application/json": {"schema": answer}}
        responses = {"200": {"description": "Yes", "content": content}, **unknown, **more}
        return {"operationId": operation, "summary": summary, "responses": responses}

    waits = {"202": {"description": "It is not over yet"}}
    gone = {"204": {"description": "It is forgotten"}, **waits}
    return {
        "/jobs/{id}": {
            "get": route("job", "How a job is going; `Prefer: wait=N` waits for its end", job),
            "delete": route("endJob", "Cancel a job, or forget one that is over", job, **gone),
            **by_id,
        },
        "/jobs/{id}/result": {"get": route("jobResult", "The answer of a job, with its status", {}, **waits), **by_id},
    }


def _mlflow() -> dict[str, Any]:
    records = {"type": "array", "items": {"type": "object"}}
    split = _object(
        {
            "columns": {"type": "array", "items": {"type": "string"}},
            "data": {"type": "array", "items": {"type": "array"}},
        },
        required=("data",),
    )
    request = _object({"dataframe_split": split, "dataframe_records": records, "instances": {}, "inputs": {}})
    answer = _object({"predictions": {}}, required=("predictions",))
    invoke = _post("invocations", "Ask with a data frame or tensors (MLflow); one of the keys", request, answer)
    invoke["requestBody"]["content"]["text/csv"] = {"schema": {"type": "string"}}
    return {
        "/invocations": {"post": invoke},
        "/ping": {"get": _get("ping", "Whether requests can be sent (MLflow)", busy=True)},
        "/version": {"get": _get("version", "Corten's version (MLflow)")},
    }


def _cog() -> dict[str, Any]:
    request = _object({"input": {"description": "The arguments, or rows by input"}, "id": {"type": "string"}})
    answer = _object({"status": {"enum": ["succeeded"]}, "output": {}, "id": {"type": "string"}}, required=("status",))
    again = _post("putPrediction", "Ask under a name, once however often it is sent (Cog)", request, answer)
    return {
        "/predictions": {"post": _post("predictions", "Ask (Cog)", request, answer)},
        "/predictions/{id}": {
            "put": again,
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}],
        },
        "/health-check": {"get": _get("healthCheck", "How the server is (Cog)")},
    }


def _openai(abilities: Collection[str]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    if "embed" in abilities:
        paths["/v1/embeddings"] = {"post": _embeddings()}
    if "chat" in abilities:
        message = _object({"role": {"type": "string"}, "content": {}}, required=("role",))
        messages = {"type": "array", "items": message, "minItems": 1}
        post = _completion("chatCompletions", "The next message of a chat (OpenAI)", {"messages": messages})
        paths["/v1/chat/completions"] = {"post": post}
    if "complete" in abilities:
        post = _completion("completions", "How a text goes on (OpenAI)", {"prompt": {"type": "string"}})
        paths["/v1/completions"] = {"post": post}
    if paths:
        paths["/v1/models"] = {"get": _get("models", "The one model that is here (OpenAI)")}
    return paths


def _completion(operation: str, summary: str, asked: _Schema) -> dict[str, Any]:
    wishes = {name: {"type": "number"} for name in ("temperature", "top_p", "max_tokens")}
    keys = {"model": {"type": "string"}, **asked, "stream": {"type": "boolean", "default": False}, **wishes}
    choices = {"type": "array", "items": {"type": "object"}}
    answer = _object({"id": {"type": "string"}, "choices": choices, "usage": {}}, required=("choices",))
    found = _post(operation, summary, _object(keys, required=("model", *asked)), answer)
    found["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    return found


def _embeddings() -> dict[str, Any]:
    texts = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    form = {"enum": ["float", "base64"], "default": "float"}
    request = _object(
        {"input": texts, "model": {"type": "string"}, "encoding_format": form}, required=("input", "model")
    )
    data = {"type": "array", "items": _object({"index": {"type": "integer"}, "embedding": {}})}
    answer = _object({"data": data, "model": {"type": "string"}, "usage": {"type": "object"}}, required=("data",))
    return _post("embeddings", "Vectors of texts (OpenAI)", request, answer)


def _object(properties: Mapping[str, Any], *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def _get(operation: str, summary: str, *, busy: bool = False) -> dict[str, Any]:
    answer = {"description": "As the protocol says", "content": {"application/json": {"schema": {"type": "object"}}}}
    unready = {"503": {"description": "The model is loading, or the server is stopping"}} if busy else {}
    return {"operationId": operation, "summary": summary, "responses": {"200": answer, **unready}}


def _post(operation: str, summary: str, request: _Schema, answer: _Schema) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": {"description": "The model's answer", "content": {"application/json": {"schema": answer}}},
            "4XX": {"description": "The request cannot be answered; told in the protocol's own shape"},
            "5XX": {"description": "The model failed, is loading, or took too long"},
        },
    }
