"""The routes of asynchronous jobs: `jobs/ID`, `jobs/ID/result`, `jobs/ID/cancel`; and how `/predict` becomes one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from corten.http import Request
from corten.http.inner import InnerRequest
from corten.http.request import HeaderPairs
from corten.serve.call import reading_of
from corten.serve.dialect import Desk, Dialect, Route
from corten.serve.job import RequestError
from corten.serve.later import Document, LaterCall, Running, Wish, document, hook_of, is_id
from corten.serve.later_store import Record, Status, new_id
from corten.serve.media import decode_as_declared
from corten.serve.state import State

_PLACE = "/jobs/"
_WEBHOOK = "x-corten-webhook"
_AGAIN = (("Retry-After", "1"), ("Cache-Control", "no-store"))


def dialect(desk: Desk) -> Jobs:
    """The dialect of this module."""
    return Jobs(desk)


class Jobs(Dialect):
    """Jobs by their ids."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self._one: Mapping[str, Route] = {"GET": self._status, "DELETE": self._delete}
        self._result: Mapping[str, Route] = {"GET": self._answer}
        self._cancel: Mapping[str, Route] = {"POST": self._stop}

    def handle(self, request: Request) -> None:
        """See Dialect."""
        try:
            super().handle(request)
        except RequestError as error:
            self.refuse(request, error.status, error.code, error.message, error.path)

    def find(self, path: str) -> Mapping[str, Route] | None:
        """See Dialect."""
        id_, _, what = path.removeprefix(_PLACE).partition("/")
        if not path.startswith(_PLACE) or not is_id(id_):
            return None
        return {"": self._one, "result": self._result, "cancel": self._cancel}.get(what)

    def predict(self, request: Request) -> None:
        """A request to `/predict` to be answered later: 202, or the answer where it came in the time to wait."""
        wish = Wish.of(request)
        if self.desk.state is State.DRAINING:
            self.refuse(request, 503, "serve.draining", "the server is stopping")
            return
        try:
            hook = hook_of(self.desk, request.headers.get(_WEBHOOK), _WEBHOOK)
            running = self.desk.later.start(new_id(), request, self._ask, detached=True, hook=hook)
        except RequestError as error:
            self.refuse(request, error.status, error.code, error.message, error.path)
            return
        accepted(self.desk, running, request, wish, f"jobs/{running.record.id}")

    def _ask(self, inner: InnerRequest, running: Running) -> None:
        call = LaterCall(inner, asyncio.get_running_loop().time(), reading_of(inner), self.refuse, running)
        self.desk.ask(call, decode_as_declared)

    def _found(self, request: Request) -> Record | None:
        """The job a request is about; answers it where there is none."""
        id_ = request.path.removeprefix(_PLACE).partition("/")[0]
        record = self.desk.later.find(id_)
        if record is None:
            message = f"no job `{id_}`: it is an hour since it ended, or it never was"
            self.refuse(request, 404, "job.unknown", message)
        return record

    def _status(self, request: Request) -> None:
        record = self._found(request)
        if record is None:
            return

        def tell(found: Record | None) -> None:
            if not request.gone and not request.answered:
                self._tell(request, found or record)

        wait_s = Wish.of(request).wait_s
        if record.status.is_over or not wait_s:
            tell(record)
        else:
            self.desk.later.wait(record.id, wait_s, tell)

    def _tell(self, request: Request, record: Record) -> None:
        body = self.desk.later.body(record) if record.status is Status.FAILED else b""
        headers = () if record.status.is_over else _AGAIN
        request.respond_json(200, document(record, body, whole=False), headers)

    def _answer(self, request: Request) -> None:
        record = self._found(request)
        if record is None:
            return
        if not record.status.is_over:
            request.respond_json(202, document(record, b"", whole=False), _AGAIN)
            return
        kind = record.content_type or "application/json"
        request.respond(record.code, self.desk.later.body(record), kind)

    def _stop(self, request: Request) -> None:
        record = self._found(request)
        if record is None:
            return
        if not record.status.is_over:
            self.desk.later.cancel(record.id)
        request.respond_json(202, document(self.desk.later.find(record.id) or record, b"", whole=False))

    def _delete(self, request: Request) -> None:
        record = self._found(request)
        if record is None:
            return
        if record.status.is_over:
            self.desk.later.forget(record.id)
            request.respond(204)
        else:
            self._stop(request)


def accepted(  # noqa: PLR0917
    desk: Desk, running: Running, request: Request, wish: Wish, location: str, told: Document = document
) -> None:
    """Answer the request that began a job: what was refused at once as it was, else 202 after the time to wait."""
    headers: HeaderPairs = (("Location", location), ("Preference-Applied", "respond-async"), *_AGAIN)

    def tell(found: Record | None) -> None:
        if request.gone or request.answered:
            return
        record = found or running.record
        if record.status.is_over:
            kind = record.content_type or "application/json"
            request.respond(record.code, desk.later.body(record), kind, running.headers)
        else:
            request.respond_json(202, told(record, b"", whole=False), headers)

    if running.record.status.is_over and running.record.started_s is None and running.record.code >= 400:
        tell(running.record)
        desk.later.forget(running.record.id)
    elif wish.wait_s:
        desk.later.wait(running.record.id, wish.wait_s, tell)
    else:
        request.respond_json(202, told(running.record, b"", whole=False), headers)
