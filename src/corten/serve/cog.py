"""Cog's HTTP API: `/predictions`, `/predictions/ID`, `/health-check`.

https://github.com/replicate/cog/blob/main/docs/http.md
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from corten.http import Request
from corten.http.inner import InnerRequest
from corten.http.request import JSON, HeaderPairs
from corten.serve.call import reading_of
from corten.serve.calls import CallsRunner
from corten.serve.decoding import decode
from corten.serve.dialect import Desk, Dialect, Route
from corten.serve.job import Inputs, Reply, RequestError, Runner, invalid
from corten.serve.jobs import accepted
from corten.serve.later import LaterCall, Running, Wish, digest_of, hook_of, is_id
from corten.serve.later_store import Record, Status, new_id
from corten.serve.state import State

_PLACE = "/predictions/"
_STEP = re.compile(r"[^.\[\]]+")
_OWN_KEYS = frozenset({"input", "id", "webhook", "webhook_events_filter"})


class _Prediction(msgspec.Struct):
    # Other keys of Cog's (created_at, output_file_prefix ...) change nothing about the answer.
    input: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None
    webhook: str | None = None
    webhook_events_filter: list[Literal["start", "output", "logs", "completed"]] | None = None


_decoder = msgspec.json.Decoder(_Prediction)


def dialect(desk: Desk) -> Dialect:
    """The dialect of this module."""
    return Cog(desk)


class Cog(Dialect):
    """Cog's routes. A prediction with an id, or one to be answered later, is a job (`later`)."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.routes = {"/predictions": {"POST": self._post}, "/health-check": {"GET": self._health}}
        self._one: Mapping[str, Route] = {"PUT": self._put, "GET": self._get}
        self._cancel: Mapping[str, Route] = {"POST": self._stop}

    def find(self, path: str) -> Mapping[str, Route] | None:
        """See Dialect."""
        id_, slash, what = path.removeprefix(_PLACE).partition("/")
        if path.startswith(_PLACE) and is_id(id_) and what == ("cancel" if slash else ""):
            return self._cancel if slash else self._one
        return super().find(path)

    def handle(self, request: Request) -> None:
        """See Dialect."""
        try:
            super().handle(request)
        except RequestError as error:
            self.refuse(request, error.status, error.code, error.message, error.path)

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

    def _health(self, request: Request) -> None:
        word = {State.LOADING: "STARTING", State.READY: "READY", State.DRAINING: "DEFUNCT"}[self.desk.state]
        setup = {"status": "starting" if self.desk.state is State.LOADING else "succeeded", "logs": ""}
        request.respond_json(200, {"status": word, "setup": setup})

    def _post(self, request: Request) -> None:
        wish = Wish.of(request)
        if wish.later:
            given = decode(_decoder, request.body).id
            self._begin(request, given if given and is_id(given) else new_id(), wish)
        else:
            self.ask(request, lambda runner, asked: self._decode(runner, asked, "", later=False))

    def _put(self, request: Request) -> None:
        """Once, however often it comes: the same request again finds the answer, or waits for it."""
        id_, wish = request.path[len(_PLACE) :], Wish.of(request)
        record = self.desk.later.find(id_)
        if record is None:
            try:
                self._begin(request, id_, wish)
            except RequestError as error:
                # Another process had the same thought, and was first.
                if error.code != "request.conflict" or (record := self.desk.later.find(id_)) is None:
                    raise
        if record is not None:
            self._join(request, id_, wish, record)

    def _join(self, request: Request, id_: str, wish: Wish, record: Record) -> None:
        if record.digest != digest_of(request) and not record.status.is_over:
            self.refuse(request, 409, "request.conflict", f"prediction `{id_}` is running with another input")
        elif record.status.is_over and (record.digest != digest_of(request) or record.status is not Status.SUCCEEDED):
            self.desk.later.forget(id_)
            self._begin(request, id_, wish)
        elif wish.later and not wish.wait_s:
            self._tell(request, record, accepted=True)
        elif (running := self.desk.later.running.get(id_)) is not None and not wish.later:
            running.waiters.append(request)
        else:
            # It runs in another process, or is over.
            wait_s = wish.wait_s if wish.later else self.desk.spec.limits.predict_timeout_s
            self.desk.later.wait(id_, wait_s, lambda found: self._tell(request, found or record, accepted=True))

    def _begin(self, request: Request, id_: str, wish: Wish) -> None:
        if self.desk.state is State.DRAINING:
            raise RequestError(503, "serve.draining", "the server is stopping")
        # Without a wish the caller waits: what is wrong with the body is told where it is decoded.
        asked = decode(_decoder, request.body) if wish.later else _Prediction()
        hook = hook_of(self.desk, asked.webhook, "webhook")
        events = frozenset(asked.webhook_events_filter or ("start", "completed"))

        def ask(inner: InnerRequest, running: Running) -> None:
            call = LaterCall(inner, asyncio.get_running_loop().time(), reading_of(inner), self.refuse, running)
            self.desk.ask(call, lambda runner, given: self._decode(runner, given, id_, later=wish.later))

        running = self.desk.later.start(
            id_, request, ask, detached=wish.later, hook=hook, events=events, told=_document
        )
        if wish.later:
            accepted(
                self.desk, running, request, wish, id_ if request.method == "PUT" else f"predictions/{id_}", _document
            )

    def _get(self, request: Request) -> None:
        record = self._known(request)
        wait_s = Wish.of(request).wait_s
        if record.status.is_over or not wait_s:
            self._tell(request, record)
        else:
            self.desk.later.wait(record.id, wait_s, lambda found: self._tell(request, found or record))

    def _stop(self, request: Request) -> None:
        record = self._known(request)
        if not record.status.is_over:
            self.desk.later.cancel(record.id)
        request.respond_json(200, {})

    def _known(self, request: Request) -> Record:
        id_ = request.path[len(_PLACE) :].partition("/")[0]
        if (record := self.desk.later.find(id_)) is None:
            raise RequestError(
                404, "job.unknown", f"no prediction `{id_}`: it is an hour since it ended, or it never was"
            )
        return record

    def _tell(self, request: Request, record: Record, *, accepted: bool = False) -> None:
        """Where a prediction is. `accepted`: the request asked for it, so that one still running is a 202."""
        if request.gone or request.answered:
            return
        later = self.desk.later
        if record.status.is_over and record.status is not Status.CANCELED:
            request.respond(record.code if accepted else 200, later.body(record), record.content_type or JSON)
            return
        status = 202 if accepted and not record.status.is_over else 200
        request.respond_json(status, _document(record, b"", whole=False), (("Cache-Control", "no-store"),))

    def _decode(self, runner: Runner, request: Request, id_: str, *, later: bool) -> Inputs:
        asked = decode(_decoder, request.body)
        if asked.webhook and not later:
            raise invalid("webhooks are for answers that come later: send `Prefer: respond-async`", "webhook")
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


def _document(record: Record, body: bytes, *, whole: bool) -> Mapping[str, Any]:
    """A prediction as Cog's clients see it; one that is over is its own answer."""
    if whole and body and record.status.is_over:
        return {"id": record.id, **msgspec.json.decode(body)}
    created = datetime.fromtimestamp(record.created_s, UTC).isoformat()
    return {"id": record.id, "status": record.status.value, "output": None, "error": None, "created_at": created}
