"""Cog's HTTP API: `/predictions`, `/predictions/ID`, `/health-check`.

https://github.com/replicate/cog/blob/main/docs/http.md
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from corten.http import Request
from corten.http.request import HeaderPairs
from corten.serve.calls import CallsRunner
from corten.serve.decoding import decode
from corten.serve.dialect import Desk, Dialect, ForeignCall, Route
from corten.serve.job import Inputs, Reply, Runner, invalid
from corten.serve.state import State

_PLACE = "/predictions/"
_STEP = re.compile(r"[^.\[\]]+")
_OWN_KEYS = frozenset({"input", "id", "webhook"})
_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
# What is kept of finished predictions, so that a PUT that comes again finds its answer.
_MOST_KEPT = 128
_MOST_KEPT_BYTES = 8 << 20


class _Prediction(msgspec.Struct):
    # Other keys of Cog's (created_at, output_file_prefix ...) change nothing about the answer.
    input: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None
    webhook: str | None = None


_decoder = msgspec.json.Decoder(_Prediction)


def dialect(desk: Desk) -> Dialect:
    """The dialect of this module."""
    return Cog(desk)


@dataclass(frozen=True, slots=True)
class _Finished:
    digest: bytes
    body: bytes
    content_type: str


class Cog(Dialect):
    """Cog's routes. Predictions are answered when they are done, also those asked for with `Prefer: respond-async`."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.routes = {"/predictions": {"POST": self._post}, "/health-check": {"GET": self._health}}
        self._one: Mapping[str, Route] = {"PUT": self._put}
        self._running: dict[str, _SharedCall] = {}
        self._finished: OrderedDict[str, _Finished] = OrderedDict()
        self._finished_bytes = 0

    def find(self, path: str) -> Mapping[str, Route] | None:
        """See Dialect."""
        if path.startswith(_PLACE) and _ID.fullmatch(path[len(_PLACE) :]):
            return self._one
        return super().find(path)

    def refuse(  # noqa: PLR0917 - a Refusal
        self, request: Request, status: int, code: str, message: str, path: str = "", headers: HeaderPairs = ()
    ) -> None:
        """What does not fit as FastAPI tells it, a failure as a failed prediction, the rest as `detail`."""
        if status == 422:
            place = ["body", *self._steps(path)]
            request.respond_json(422, {"detail": [{"loc": place, "msg": message, "type": "value_error"}]}, headers)
        elif status >= 500 and code != "serve.loading":
            request.respond_json(status, {"status": "failed", "error": message, "output": None}, headers)
        else:
            request.respond_json(status, {"detail": message}, headers)

    def _steps(self, path: str) -> list[str | int]:
        """`x[3]` as FastAPI's list of steps from the body."""
        steps = [int(step) if step.isdecimal() else step for step in _STEP.findall(path)]
        if steps and steps[0] in _OWN_KEYS:
            return steps
        # The model's own words for it: the argument, or `inputs` for all rows.
        if steps and steps[0] == "inputs" and not isinstance(self.desk.runner, CallsRunner):
            steps = steps[1:]
        return ["input", *steps]

    def forget(self, id_: str, finished: _Finished | None) -> None:
        """A prediction is over: answered, or failed, so that the next PUT tries again."""
        self._running.pop(id_, None)
        if finished is None or len(finished.body) > _MOST_KEPT_BYTES // 8:
            return
        self._drop(id_)
        self._finished[id_] = finished
        self._finished_bytes += len(finished.body)
        while len(self._finished) > _MOST_KEPT or self._finished_bytes > _MOST_KEPT_BYTES:
            self._drop(next(iter(self._finished)))

    def _drop(self, id_: str) -> None:
        if (old := self._finished.pop(id_, None)) is not None:
            self._finished_bytes -= len(old.body)

    def _health(self, request: Request) -> None:
        word = {State.LOADING: "STARTING", State.READY: "READY", State.DRAINING: "DEFUNCT"}[self.desk.state]
        setup = {"status": "starting" if self.desk.state is State.LOADING else "succeeded", "logs": ""}
        request.respond_json(200, {"status": word, "setup": setup})

    def _post(self, request: Request) -> None:
        self.ask(request, lambda runner, asked: self._decode(runner, asked, ""))

    def _put(self, request: Request) -> None:
        id_ = request.path[len(_PLACE) :]
        digest = hashlib.sha256(request.body).digest()
        if (running := self._running.get(id_)) is not None:
            if running.digest != digest:
                self.refuse(request, 409, "request.conflict", f"prediction `{id_}` is running with another input")
                return
            running.others.append(request)
            return
        finished = self._finished.get(id_)
        if finished is not None and finished.digest == digest:
            request.respond(200, finished.body, finished.content_type)
            return
        call = _SharedCall(request, self, id_, digest)
        self._running[id_] = call
        self.desk.ask(call, lambda runner, asked: self._decode(runner, asked, id_))

    def _decode(self, runner: Runner, request: Request, id_: str) -> Inputs:
        asked = decode(_decoder, request.body)
        if asked.webhook:
            raise invalid("this server calls nobody; leave `webhook` out and read the answer", "webhook")
        if id_ and asked.id not in {None, id_}:
            raise invalid(f"not the id of the path, `{id_}`", "id")
        raw = bytes(asked.input)
        # Rows by the names of the inputs; whoever sends `/predict`'s body as the input is understood too.
        plain = isinstance(runner, CallsRunner) or raw.startswith(b'{"inputs"')
        inputs = runner.decode(raw if plain else b'{"inputs":%b}' % raw)
        began_s, began = time.perf_counter(), datetime.now(UTC)
        known = {key: text for key, text in (("id", id_ or asked.id), ("version", self.version)) if text}

        def form(outputs: Any) -> Reply:
            about = {
                "status": "succeeded",
                "output": msgspec.Raw(runner.text(outputs)),
                **known,
                "error": None,
                "logs": "",
                "started_at": began.isoformat(),
                "completed_at": datetime.now(UTC).isoformat(),
                "metrics": {"predict_time": time.perf_counter() - began_s},
            }
            return Reply(msgspec.json.encode(about), "application/json")

        inputs.form = form
        return inputs


class _SharedCall(ForeignCall):
    """A prediction with an id, and all who asked for it while it ran."""

    __slots__ = ("_cog", "_id", "digest", "others")

    def __init__(self, request: Request, cog: Cog, id_: str, digest: bytes) -> None:
        super().__init__(request, asyncio.get_running_loop().time(), cog.refuse)
        self._cog = cog
        self._id = id_
        self.digest = digest
        self.others: list[Request] = []

    @property
    def wanted(self) -> bool:
        """See Call."""
        return any(not request.gone and not request.leaving for request in (self.request, *self.others))

    def respond(self, status: int, body: bytes, content_type: str, headers: HeaderPairs) -> None:
        """See Call."""
        self._cog.forget(self._id, _Finished(self.digest, body, content_type))
        for request in (self.request, *self.others):
            request.respond(status, body, content_type, headers)

    def fail(self, status: int, code: str, message: str, path: str, headers: HeaderPairs) -> None:
        """See Call."""
        self._cog.forget(self._id, None)
        for request in (self.request, *self.others):
            self._cog.refuse(request, status, code, message, path, headers)
