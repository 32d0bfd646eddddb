"""The Open Inference Protocol, version 2, over HTTP: what KServe, Triton and MLServer speak.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from corten import __version__
from corten.core.schema import Schema, Style
from corten.http import Request
from corten.http.request import HeaderPairs
from corten.serve.calls import CallsRunner
from corten.serve.dialect import Desk, Dialect
from corten.serve.job import Inputs, Reply, RequestError, Runner
from corten.serve.oip_wire import HEADER_LENGTH, Question, Tensor, parse, reply
from corten.serve.state import State


def dialect(desk: Desk) -> Dialect:
    """The dialect of this module."""
    return OpenInference(desk)


class OpenInference(Dialect):
    """The routes below `/v2`."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.routes = {
            "/v2": {"GET": self._server},
            "/v2/": {"GET": self._server},
            "/v2/health/live": {"GET": self._live},
            "/v2/health/ready": {"GET": self._ready},
        }
        for name in self.names():
            for base in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{self.version}"):
                self.routes |= {
                    base: {"GET": self._model},
                    f"{base}/ready": {"GET": self._model_ready},
                    f"{base}/infer": {"POST": self._infer},
                }

    def refuse(  # noqa: PLR0917 - a Refusal
        self, request: Request, status: int, code: str, message: str, path: str = "", headers: HeaderPairs = ()
    ) -> None:
        """The protocol has one text for it; what does not fit is a 400 there."""
        del code
        text = f"{path}: {message}" if path else message
        request.respond_json(400 if status == 422 else status, {"error": text}, headers)

    def _server(self, request: Request) -> None:
        request.respond_json(200, {"name": "corten", "version": __version__, "extensions": ["binary_tensor_data"]})

    def _live(self, request: Request) -> None:
        request.respond_json(200, {"live": True})

    def _ready(self, request: Request) -> None:
        ready = self.desk.state is State.READY
        request.respond_json(200 if ready else 503, {"ready": ready})

    def _model_ready(self, request: Request) -> None:
        ready = self.desk.state is State.READY
        request.respond_json(200 if ready else 503, {"name": self.desk.spec.name, "ready": ready})

    def _model(self, request: Request) -> None:
        runner = self.desk.runner
        if runner is None:
            self.refuse(request, 503, "serve.loading", "the model is loading", "", (("Retry-After", "1"),))
            return
        inputs, outputs = described(runner.schema)
        request.respond_json(
            200,
            {
                "name": self.desk.spec.name,
                "versions": [self.version],
                "platform": f"corten_{self.desk.spec.adapter}",
                "inputs": inputs,
                "outputs": outputs,
            },
        )

    def _infer(self, request: Request) -> None:
        self.ask(request, self._decode)

    def _decode(self, runner: Runner, request: Request) -> Inputs:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestError(415, "request.media_type", "send the body as it is, not compressed")
        question = parse(request.body, request.headers.get(HEADER_LENGTH.lower()))
        name, version = self.desk.spec.name, self.version
        return inputs_of(runner, question, lambda outputs: reply(name, version, question, outputs))


def inputs_of(runner: Runner, question: Question, reply: Callable[[Sequence[Tensor]], Reply]) -> Inputs:
    """The inputs of a request in this protocol, over HTTP or gRPC; `reply` writes its answer. Raises RequestError."""
    schema = runner.schema
    if isinstance(runner, CallsRunner):
        from corten.serve import oip_calls

        return oip_calls.inputs(runner, question, lambda values: reply(oip_calls.outputs(values, schema, question)))
    from corten.serve import oip_rows  # imports numpy

    if schema.outputs:
        oip_rows.check_wanted(question.binary, {tensor.name: tensor for tensor in schema.outputs})
    return oip_rows.inputs(schema.inputs, question, lambda arrays: reply(oip_rows.outputs(arrays, question)))


def described(schema: Schema) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Inputs and outputs for the model's metadata."""
    if schema.style is Style.CALL:
        from corten.serve.oip_calls import described

        return described(schema)
    from corten.serve.oip_rows import DATATYPES

    inputs, outputs = (
        [
            {
                "name": tensor.name,
                "datatype": DATATYPES[tensor.dtype],
                "shape": [-1 if size is None else size for size in tensor.shape],
            }
            for tensor in tensors
        ]
        for tensors in (schema.inputs, schema.outputs)
    )
    return inputs, outputs
