"""Asynchronous jobs: a request whose answer is asked for later (`Prefer: respond-async`, RFC 7240, 4.1).

The request is put to the model as it would be otherwise; what becomes of it is written to a folder (`later_store`),
where any process of the deployment finds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from corten.http import Request
from corten.http.inner import InnerRequest
from corten.http.request import JSON, HeaderPairs
from corten.serve.dialect import Desk, ForeignCall
from corten.serve.job import RequestError
from corten.serve.later_store import LaterStore, Record, Status
from corten.serve.own_folder import OwnFolder
from corten.serve.webhooks import Hook, deliver, parse_hook, require_network

_log = logging.getLogger(__name__)

# What is kept of jobs that are over, in all.
_MOST = 1000
_MOST_BYTES = 256 << 20
_KEEP_S = 3600.0
_SWEEP_S = 10.0
_LOOK_S = 0.2
_DRAIN_POLL_S = 0.02
_LONGEST_WAIT_S = 60.0
_PASSED_ON = ("content-type", "accept", "content-encoding", "x-request-id", "traceparent", "x-request-timeout")
_ID = re.compile(r"[A-Za-z0-9._~-]{1,128}")
_WAIT = re.compile(r"\bwait\s*=\s*\"?(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Wish:
    """What `Prefer` asks for: an answer later, after waiting so long for it at once."""

    later: bool = False
    wait_s: float = 0.0

    @classmethod
    def of(cls, request: Request) -> Wish:
        """Read it; what is not understood is ignored, as the RFC asks."""
        text = request.headers.get("prefer", "").lower()
        later = any(part.partition(";")[0].strip() == "respond-async" for part in text.split(","))
        waits = _WAIT.search(text)
        return cls(later, min(float(waits[1]), _LONGEST_WAIT_S) if waits else 0.0)


class Document(Protocol):
    """How a job is told of; `whole`: with its answer."""

    def __call__(self, record: Record, body: bytes, *, whole: bool) -> Mapping[str, Any]:
        """The JSON object."""
        ...


@dataclass(slots=True)
class Running:
    """A job of this process. `detached`: it goes on when nobody waits; `waiters` are answered when it is over."""

    record: Record
    detached: bool
    changed: Callable[[Running], None]
    waiters: list[Request] = field(default_factory=list)
    inner: InnerRequest | None = None
    headers: HeaderPairs = ()  # of the answer
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    hook: Hook | None = None
    events: frozenset[str] = frozenset({"completed"})
    told: Document = field(default_factory=lambda: document)

    @property
    def wanted(self) -> bool:
        """Whether it is to go on."""
        return self.detached or any(not request.gone and not request.leaving for request in self.waiters)


class LaterCall(ForeignCall):
    """The request of a job on its way through the model."""

    _running: Running

    @property
    def patient(self) -> bool:
        """See Call."""
        return self._running.detached

    @property
    def wanted(self) -> bool:
        """See Call. It is asked when the model is about to take it."""
        running = self._running
        if self.request.gone or not running.wanted:
            return False
        if running.record.started_s is None:
            running.record.started_s = time.time()
            running.record.status = Status.PROCESSING
            running.changed(running)
        return True


class Later:
    """The jobs of one process, and what it knows of the others'. Raises OSError where no folder can be written."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self.running: dict[str, Running] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._calls: set[asyncio.Task[Any]] = set()  # of webhooks
        self._made: OwnFolder | None = None
        self._store = LaterStore(self._folder(), most=_MOST, most_bytes=_MOST_BYTES, keep_s=_KEEP_S)
        self._looks = 0
        self._own(self._look())

    # Asking

    def start(
        self,
        id_: str,
        request: Request,
        ask: Callable[[InnerRequest, Running], None],
        *,
        detached: bool,
        hook: Hook | None = None,
        events: frozenset[str] = frozenset({"completed"}),
        told: Document | None = None,
    ) -> Running:
        """Begin a job; `ask` puts it to the model. Raises RequestError: 409 for an id that is taken, 503 without room.

        What is refused at once has its waiters answered when this returns, and is no job.
        """
        record = Record(
            id_, digest_of(request), self._store.owner, self._desk.settings.replica or self._store.owner, time.time()
        )
        try:
            if not self._store.create(record):
                raise RequestError(409, "request.conflict", f"job `{id_}` is there already")
        except OSError as error:
            raise RequestError(503, "job.no_room", f"the job cannot be written down: {error.strerror}") from error
        running = Running(record, detached, self._changed, hook=hook, events=events, told=told or document)
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}

        def answered(status: int, body: bytes, content_type: str, more: HeaderPairs) -> None:
            self._over(running, status, body, content_type, more)

        running.inner = InnerRequest.of(request.path, request.body, headers, answered)
        self.running[id_] = running
        self._desk.meters.jobs_running.set(len(self.running))
        if not detached:
            running.waiters.append(request)
        ask(running.inner, running)
        return running

    def find(self, id_: str) -> Record | None:
        """What is known of a job; one lost with its process is a failed one."""
        if (running := self.running.get(id_)) is not None:
            return running.record
        record = self._store.read(id_)
        if record is not None and self._store.is_lost(record):
            # Its owner may have written the end just before it went.
            record = self._store.read(id_) or record
            if not record.status.is_over:
                record.status, record.ended_s = Status.FAILED, time.time()
                record.code, record.content_type = 503, JSON
        return record

    def body(self, record: Record) -> bytes:
        """The body of the answer of a job that is over."""
        if (body := self._store.body(record.id)) is not None and record.size_bytes == len(body):
            return body
        lost = {"code": "job.lost", "message": "the process that worked on it has ended", "path": ""}
        canceled = {"code": "job.canceled", "message": "the job was canceled", "path": ""}
        return msgspec.json.encode({"error": canceled if record.status is Status.CANCELED else lost})

    def cancel(self, id_: str) -> None:
        """End a job, here or where it is; one that is over stays as it is."""
        if (running := self.running.get(id_)) is None:
            self._store.ask_to_cancel(id_)
            return
        if running.inner is not None:
            running.inner.leave()
        running.record.status = Status.CANCELED
        self._over(running, 409, b"", JSON, ())

    def forget(self, id_: str) -> None:
        """Remove what is kept of a job that is over."""
        self._store.remove(id_)

    async def drain(self, deadline_s: float) -> bool:
        """Wait for what runs detached, and for webhooks; whether all of it ended in time."""
        end_s = self._loop.time() + deadline_s
        while self.running or self._calls:
            if self._loop.time() >= end_s:
                return False
            await asyncio.sleep(_DRAIN_POLL_S)
        return True

    def close(self) -> None:
        """Leave the folder to the others."""
        for task in (*self._tasks, *self._calls):
            task.cancel()
        self._store.close()
        if self._made is not None:
            self._made.remove()

    def wait(self, id_: str, seconds: float, done: Callable[[Record | None], None]) -> None:
        """Call `done` when a job is over, or so many seconds have passed."""

        async def until() -> None:
            end_s = self._loop.time() + seconds
            if (running := self.running.get(id_)) is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await running.ended.wait()
            record = self.find(id_)
            while record is not None and not record.status.is_over and self._loop.time() < end_s:
                await asyncio.sleep(min(_LOOK_S, max(end_s - self._loop.time(), 0.0)))
                record = self.find(id_)
            done(record)

        self._own(until())

    # Inside

    def _folder(self) -> Path:
        given = self._desk.settings.jobs_dir
        if given is not None:
            return given
        self._made = OwnFolder()
        return self._made.path

    def _changed(self, running: Running) -> None:
        self._write(running.record, None)
        if "start" in running.events:
            self._call(running, b"")

    def _over(self, running: Running, status: int, body: bytes, content_type: str, headers: HeaderPairs) -> None:
        record = running.record
        if self.running.pop(record.id, None) is None:
            return
        at_once = record.started_s is None and status >= 400 and record.status is Status.STARTING
        if record.status is not Status.CANCELED:
            record.status = Status.SUCCEEDED if status < 400 else Status.FAILED
        record.ended_s = time.time()
        if record.started_s is None and status < 400:
            record.started_s = record.created_s
        record.code, record.content_type = status, content_type
        running.headers = headers
        if at_once and not running.detached:
            self._store.remove(record.id)
        else:
            self._write(record, body or None)
        running.ended.set()
        meters = self._desk.meters
        meters.jobs_running.set(len(self.running))
        meters.count_job(record.status.value)
        for request in running.waiters:
            if not request.answered:
                request.respond(status, body, content_type, headers)
        if "completed" in running.events:
            self._call(running, body)

    def _write(self, record: Record, body: bytes | None) -> None:
        try:
            self._store.update(record, body)
        except OSError as error:
            # Who waits is answered all the same; others will find the job lost, once this process ends.
            _log.error("what became of a job cannot be written down", extra={"job": record.id, "reason": str(error)})

    def _call(self, running: Running, body: bytes) -> None:
        if running.hook is None:
            return
        told = msgspec.json.encode(running.told(running.record, body, whole=True))
        task = self._loop.create_task(self._deliver(running.hook, told))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _deliver(self, hook: Hook, body: bytes) -> None:
        self._desk.meters.count_webhook("taken" if await deliver(hook, body) else "given up")

    async def _look(self) -> None:
        """See who wants to cancel, and forget what is old."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                for id_ in [id_ for id_ in self.running if self._store.is_to_cancel(id_)]:
                    self.cancel(id_)
                self._looks += 1
                if self._looks * _LOOK_S >= _SWEEP_S:
                    self._looks = 0
                    self._store.sweep(time.time())
            except OSError:
                _log.exception("the folder of jobs cannot be used")

    def _own(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def hook_of(desk: Desk, url: str | None, path: str) -> Hook | None:
    """The webhook a request names; raises RequestError for one that cannot be called."""
    if not url:
        return None
    hook = parse_hook(url, desk.settings.webhook_hosts or desk.spec.webhook_hosts, path)
    require_network()
    return hook


def digest_of(request: Request) -> str:
    """What makes two requests the same."""
    kind = request.headers.get("content-type", "").encode("latin-1", "replace")
    return hashlib.sha256(b"%b\0%b" % (kind, bytes(request.body))).hexdigest()


def is_id(text: str) -> bool:
    """Whether it can be the id of a job."""
    return _ID.fullmatch(text) is not None


def document(record: Record, body: bytes, *, whole: bool) -> Mapping[str, Any]:
    """A job as clients see it; `whole`: with its answer, where that is JSON."""
    found: dict[str, Any] = {
        "id": record.id,
        "status": record.status.value,
        "created_at": _time(record.created_s),
        "started_at": _time(record.started_s),
        "completed_at": _time(record.ended_s),
        "replica": record.replica,
    }
    if record.status.is_over:
        found |= {"code": record.code, "content_type": record.content_type, "size_bytes": record.size_bytes}
        is_json = body and record.content_type.partition(";")[0] == "application/json"
        if is_json and (whole or record.status is Status.FAILED):
            found["answer"] = msgspec.Raw(body)
    return found


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
