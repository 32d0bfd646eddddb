"""OpenAI's embeddings API for models that declare `embed`: `/v1/embeddings`, `/v1/models`.

https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from corten.http import Request
from corten.http.request import HeaderPairs
from corten.serve.calls import CallsRunner
from corten.serve.decoding import decode
from corten.serve.dialect import Desk, Dialect
from corten.serve.job import Inputs, ModelOutputError, Reply, RequestError, Runner, invalid
from corten.serve.values import to_json

_MOST_TEXTS = 2048  # as OpenAI has it


class _Embeddings(msgspec.Struct):
    input: str | list[str]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


_decoder = msgspec.json.Decoder(_Embeddings)


def dialect(desk: Desk) -> Dialect:
    """The dialect of this module."""
    return OpenAI(desk)


class OpenAI(Dialect):
    """The routes below `/v1`."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.routes = {
            "/v1/embeddings": {"POST": self._embeddings},
            "/v1/models": {"GET": self._models},
            **{f"/v1/models/{name}": {"GET": self._one_model} for name in self.names()},
        }

    def refuse(  # noqa: PLR0917 - a Refusal
        self, request: Request, status: int, code: str, message: str, path: str = "", headers: HeaderPairs = ()
    ) -> None:
        """OpenAI's errors; what does not fit is a 400 there."""
        status = 400 if status == 422 else status
        kind = "invalid_request_error" if status < 500 else "server_error"
        error = {"message": message, "type": kind, "param": path or None, "code": code}
        request.respond_json(status, {"error": error}, headers)

    def _models(self, request: Request) -> None:
        request.respond_json(200, {"object": "list", "data": [self._described(self.desk.spec.name)]})

    def _one_model(self, request: Request) -> None:
        request.respond_json(200, self._described(request.path.rpartition("/")[2]))

    def _described(self, name: str) -> dict[str, Any]:
        # When it was made is not told to the server; clients want a number.
        return {"id": name, "object": "model", "created": 0, "owned_by": "corten"}

    def _embeddings(self, request: Request) -> None:
        self.ask(request, self._decode)

    def _decode(self, runner: Runner, request: Request) -> Inputs:
        if not isinstance(runner, CallsRunner) or not runner.embeds:
            raise RequestError(404, "request.no_route", "this model has no embeddings: its class has no `embed`")
        asked = decode(_decoder, request.body)
        if asked.model not in self.names():
            known = ", ".join(self.names())
            raise RequestError(404, "model_not_found", f"no model `{asked.model[:100]}`; here: {known}", path="model")
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not 0 < len(texts) <= _MOST_TEXTS:
            raise invalid(f"expected 1 to {_MOST_TEXTS} texts, got {len(texts)}", "input")
        return runner.embed(texts, lambda vectors: _answer(asked, vectors))


def _answer(asked: _Embeddings, vectors: Sequence[Any]) -> Reply:
    data = []
    for index, vector in enumerate(vectors):
        if asked.dimensions is not None and asked.dimensions != len(vector):
            raise invalid(f"this model's embeddings have {len(vector)} dimensions, and only these", "dimensions")
        data.append({"object": "embedding", "index": index, "embedding": _encoded(vector, asked.encoding_format)})
    # Tokens are the model's own affair: nobody here counts them, and clients want a number.
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    body = to_json({"object": "list", "data": data, "model": asked.model, "usage": usage})
    return Reply(body, "application/json")


def _encoded(vector: Any, form: Literal["float", "base64"]) -> list[float] | str:
    try:
        numbers = array("f" if form == "base64" else "d", map(float, vector))
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelOutputError(f"`embed` gave a vector that is none: {error}") from error
    if form == "float":
        return numbers.tolist()
    if sys.byteorder == "big":
        numbers.byteswap()  # little-endian float32, as clients read it
    return base64.b64encode(numbers.tobytes()).decode()
