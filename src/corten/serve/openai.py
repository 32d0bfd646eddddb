"""OpenAI's API, as far as the model declares it: `embed` for `/v1/embeddings`, `chat` for `/v1/chat/completions`,
`complete` for `/v1/completions`; and `/v1/models`.

https://platform.openai.com/docs/api-reference
"""

from __future__ import annotations

import asyncio
import base64
import sys
from array import array
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec

from corten.http import Request
from corten.http.request import HeaderPairs
from corten.serve.calls import CallsRunner
from corten.serve.decoding import decode
from corten.serve.dialect import Desk, Dialect
from corten.serve.job import Inputs, ModelOutputError, Reply, RequestError, Runner, invalid
from corten.serve.openai_chat import Chunks, Kind, Question, inputs, parse
from corten.serve.sink import Sink
from corten.serve.streaming import StreamCall
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
            "/v1/chat/completions": {"POST": lambda request: self._complete(request, Kind(chats=True))},
            "/v1/completions": {"POST": lambda request: self._complete(request, Kind(chats=False))},
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

    def _complete(self, request: Request, kind: Kind) -> None:
        def ask(runner: Runner, asked: Request, sink: Sink | None = None) -> Inputs:
            question = parse(asked.body)
            self._check_name(question.model)
            return inputs(runner, question, kind, sink)

        question: Question | None = None
        with suppress(RequestError):  # it is said, and counted, where it is asked
            question = parse(request.body)
        if question is None or not question.stream:
            self.ask(request, ask)
            return
        call = StreamCall.of(request, asyncio.get_running_loop().time(), Chunks(question, kind), self.refuse)
        self.desk.ask(call, lambda runner, asked: ask(runner, asked, call.sink))

    def _check_name(self, name: str) -> None:
        if name not in self.names():
            known = ", ".join(self.names())
            raise RequestError(404, "model_not_found", f"no model `{name[:100]}`; here: {known}", path="model")

    def _embeddings(self, request: Request) -> None:
        self.ask(request, self._decode)

    def _decode(self, runner: Runner, request: Request) -> Inputs:
        if not isinstance(runner, CallsRunner) or "embed" not in runner.abilities:
            raise RequestError(404, "request.no_route", "this model has no embeddings: its class has no `embed`")
        asked = decode(_decoder, request.body)
        self._check_name(asked.model)
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
