"""The Open Inference Protocol, version 2, over gRPC: `inference.GRPCInferenceService`, and `grpc.health.v1.Health`.

Beside the HTTP server, on a socket of its own, through the same queue to the same model. Needs `grpcio` in the image,
which `grpc = true` puts there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

import grpc
from grpc import aio

from corten import __version__
from corten.errors import UsageError
from corten.http import Address, Request, UnixAddress
from corten.http.inner import InnerRequest
from corten.http.request import HeaderPairs
from corten.serve import protobuf as wire
from corten.serve.call import reading_of
from corten.serve.dialect import Desk, ForeignCall
from corten.serve.grpc_messages import Asked, answer, metadata, named
from corten.serve.job import Inputs, Reply, RequestError, Runner
from corten.serve.oip import described, inputs_of
from corten.serve.oip_wire import Tensor
from corten.serve.state import State

_log = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
_HEALTH = "grpc.health.v1.Health"
_SERVING, _NOT_SERVING = 1, 2
# Beside the tensors there are names and shapes.
_OVERHEAD_BYTES = 1 << 20
_LAST_WORDS_S = 0.2  # to send what calls are told that were given up
_SHARED_STREAMS = 32  # calls at once on a connection, where several processes share the calls
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.CANCELLED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class _Context(Protocol):
    """What is used of `grpc.aio.ServicerContext`."""

    async def abort(self, code: Any, details: str, trailing_metadata: Any = ()) -> NoReturn: ...

    def invocation_metadata(self) -> Sequence[tuple[str, str | bytes]] | None: ...

    def set_trailing_metadata(self, trailing_metadata: Any) -> None: ...

    def time_remaining(self) -> float | None: ...


_Method = Callable[[bytes, _Context], Awaitable[bytes]]


class GrpcServer:
    """Answers from its start on; until the model is there, that it is not ready.

    `in_flight` counts calls of the model without an answer.
    """

    def __init__(self, desk: Desk, *, shared: bool = False) -> None:
        self.in_flight = 0
        self._desk = desk
        methods: Mapping[str, _Method] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._model,
            "ModelInfer": self._infer,
        }
        most_bytes = desk.spec.limits.max_body_bytes + _OVERHEAD_BYTES
        options = [
            ("grpc.max_receive_message_length", min(most_bytes, (1 << 31) - 1)),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(shared)),  # unless it is meant, a second server on the same port is a mistake
        ]
        if shared:
            # Proxies put all calls on one connection, and open another only when that is full.
            options.append(("grpc.max_concurrent_streams", _SHARED_STREAMS))
        self._server_ = aio.server(options=options)
        self._server_.add_generic_rpc_handlers(
            (
                _handlers(SERVICE, methods),
                _handlers(_HEALTH, {"Check": self._check}),
            )
        )

    async def start(self, address: Address) -> None:
        """Listen; raises UsageError when the address cannot be had."""
        target = f"unix:{address.path}" if isinstance(address, UnixAddress) else str(address)
        try:
            self._server_.add_insecure_port(target)
            await self._server_.start()
        except (RuntimeError, OSError) as error:
            raise UsageError("http.cannot_listen", f"cannot listen on `{target}`", why=str(error)) from error
        if isinstance(address, UnixAddress):
            # As for HTTP: the folder decides who may connect.
            await asyncio.to_thread(Path(address.path).chmod, 0o666)
        _log.info("listening for gRPC", extra={"address": target})

    async def drain(self, deadline_s: float) -> bool:
        """Take no new calls and answer those in hand; whether all were in `deadline_s`."""
        stopping = asyncio.create_task(self._server_.stop(deadline_s + _LAST_WORDS_S))
        await asyncio.wait({stopping}, timeout=deadline_s)
        return not self.in_flight

    async def close(self) -> None:
        """Cancel what is left, once what it was told is on its way."""
        await self._server_.stop(_LAST_WORDS_S)

    # Methods

    async def _live(self, message: bytes, context: _Context) -> bytes:
        del message, context
        return wire.integer(1, True)

    async def _ready(self, message: bytes, context: _Context) -> bytes:
        del message, context
        return wire.integer(1, self._desk.state is State.READY)

    async def _check(self, message: bytes, context: _Context) -> bytes:
        del message, context
        return wire.integer(1, _SERVING if self._desk.state is State.READY else _NOT_SERVING)

    async def _model_ready(self, message: bytes, context: _Context) -> bytes:
        await self._named(message, context)
        return wire.integer(1, self._desk.state is State.READY)

    async def _server(self, message: bytes, context: _Context) -> bytes:
        del message, context
        return wire.text(1, "corten") + wire.text(2, __version__)

    async def _model(self, message: bytes, context: _Context) -> bytes:
        name = await self._named(message, context)
        runner = self._desk.runner
        if runner is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the model is loading")
        inputs, outputs = described(runner.schema)
        return metadata(name, self._version, f"corten_{self._desk.spec.adapter}", inputs, outputs)

    async def _infer(self, message: bytes, context: _Context) -> bytes:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[bytes] = loop.create_future()

        def answered(status: int, body: bytes, content_type: str, headers: HeaderPairs) -> None:
            del status, content_type, headers
            if not done.done():
                done.set_result(body)

        def refuse(  # noqa: PLR0917 - a Refusal
            request: Request, status: int, code: str, text: str, path: str = "", headers: HeaderPairs = ()
        ) -> None:
            del request
            if not done.done():
                done.set_exception(_RefusedError(status, code, f"{path}: {text}" if path else text, headers))

        inner = InnerRequest.of(f"/{SERVICE}/ModelInfer", message, _headers(context), answered)
        call = ForeignCall(inner, loop.time(), reading_of(inner), refuse)
        self.in_flight += 1
        try:
            self._desk.ask(call, self._decode)
            found = await done
        except asyncio.CancelledError:
            inner.leave()
            raise
        except _RefusedError as error:
            trailing = tuple((name.lower(), text) for name, text in error.headers)
            await context.abort(
                _CODES.get(error.status, grpc.StatusCode.INTERNAL), error.text, (*trailing, ("corten-code", error.code))
            )
        else:
            if call.request_id:
                context.set_trailing_metadata((("x-request-id", call.request_id),))
            return found
        finally:
            self.in_flight -= 1

    def _decode(self, runner: Runner, request: Request) -> Inputs:
        asked = Asked(bytes(request.body))
        self._check_name(asked.model, asked.version)
        version, question = self._version, asked.question

        def reply(outputs: Sequence[Tensor]) -> Reply:
            return Reply(answer(asked.model, version, question, outputs), "application/grpc")

        return inputs_of(runner, question, reply)

    # Names

    @property
    def _version(self) -> str:
        return self._desk.settings.revision or "1"

    async def _named(self, message: bytes, context: _Context) -> str:
        """The model a message asks for; ends the call where there is none of that name."""
        try:
            name, version = named(message)
            self._check_name(name, version)
        except RequestError as error:
            await context.abort(_CODES[error.status], error.message)
        else:
            return name

    def _check_name(self, name: str, version: str) -> None:
        known = [one for one in (self._desk.spec.name, self._desk.settings.deployment) if one]
        if name not in known:
            raise RequestError(404, "request.no_route", f"no model `{name[:100]}`; here: {', '.join(known)}")
        if version not in {"", self._version}:
            raise RequestError(404, "request.no_route", f"no version `{version[:100]}`; here: {self._version}")


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, text: str, headers: HeaderPairs) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.text = text
        self.headers = headers


def _handlers(service: str, methods: Mapping[str, _Method]) -> grpc.GenericRpcHandler:
    # Without (de)serialisers messages are bytes.
    return grpc.method_handlers_generic_handler(
        service, {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
    )


def _headers(context: _Context) -> dict[str, str]:
    """The metadata that mean here what the headers of that name do, and the caller's deadline."""
    given = context.invocation_metadata() or ()
    found = {name: value for name, value in given if name in {"x-request-id", "traceparent"} and isinstance(value, str)}
    if (left_s := context.time_remaining()) is not None:
        found["x-request-timeout"] = f"{max(left_s, 0.0):.3f}"
    return found
