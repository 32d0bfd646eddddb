"""HTTP/1.1 load with strict accounting: anything but a complete 200 is a failure, with its reason and time.

Open loop (`rate_per_s`): requests are due at fixed times and are sent then, whether or not earlier ones were answered;
latency counts from the due time, so a stall shows as what it is to everybody who would have come meanwhile. Closed loop
(without): each of `connections` clients sends the next request when the last was answered.

From the shell: `python -m corten.testing.load --port 8080 --path /iris/predict --rate 100 --seconds 10` prints a report
as JSON and ends with 1 when a request failed. Ctrl-C and SIGTERM end the load before its time, report and all.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import signal
import ssl
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, cast

import httptools

_REVISION = b"x-corten-revision"
# Not the loop's time: uvloop's counts whole milliseconds.
_now_s = time.perf_counter
_SHOWN_FAILURES = 20
_DETAIL_BYTES = 200
# A gateway that is down must not turn a closed loop into a busy one.
_AFTER_FAILURE_S = 0.01


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was not answered by a complete 200. `at_s` is since the load's start; `reason` e.g. `reset`."""

    at_s: float
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a load. Latencies in seconds, of answered requests, sorted; `revisions` counts those by revision."""

    duration_s: float
    ok: int
    failures: tuple[Failure, ...]
    latencies_s: tuple[float, ...] = field(repr=False)
    revisions: Mapping[str, int]

    @property
    def failed(self) -> int:
        """How many requests failed."""
        return len(self.failures)

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many failed for which reason."""
        return dict(collections.Counter(failure.reason for failure in self.failures))

    def latency_s(self, share: float) -> float:
        """The latency that this share (0 to 1) of the answered requests did not exceed; 0 when there are none."""
        if not self.latencies_s:
            return 0.0
        return self.latencies_s[min(len(self.latencies_s) - 1, int(len(self.latencies_s) * share))]

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return {
            "duration_s": round(self.duration_s, 3),
            "ok": self.ok,
            "failed": self.failed,
            "ok_per_s": round(self.ok / self.duration_s, 1) if self.duration_s else 0.0,
            "reasons": self.reasons,
            "revisions": dict(sorted(self.revisions.items())),
            "latency_ms": {
                name: round(self.latency_s(share) * 1e3, 3)
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999), ("max", 1.0))
            },
            "failures": [
                {"at_s": round(failure.at_s, 3), "reason": failure.reason, "detail": failure.detail}
                for failure in self.failures[:_SHOWN_FAILURES]
            ],
        }


@dataclass(frozen=True, slots=True)
class _Answer:
    reason: str  # empty: a complete 200
    detail: str = ""
    revision: str = ""


class _Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self.open = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[_Answer] | None = None
        self._parser: Any = None
        self._body = bytearray()
        self._body_bytes = 0
        self._revision = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by class
        self.open = True

    async def ask(self, request: bytes, timeout_s: float) -> _Answer:
        """Send a request and wait for the whole answer."""
        assert self._transport is not None
        self._parser = httptools.HttpResponseParser(self)
        self._body, self._body_bytes, self._revision = bytearray(), 0, ""
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await asyncio.wait_for(self._waiting, timeout_s)
        except TimeoutError:
            self.close()
            return _Answer("timeout", f"{self._body_bytes} bytes of an answer came")

    def close(self) -> None:
        """Close it; safe to repeat."""
        self.open = False
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():
            self.close()  # bytes nobody asked for
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._settle(_Answer("malformed", str(error)))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._settle(_Answer("reset", str(exc or "closed before the answer was complete")))

    # For httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == _REVISION:
            self._revision = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if len(self._body) < _DETAIL_BYTES:
            self._body += data[:_DETAIL_BYTES]

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self._parser.should_keep_alive():
            self.close()
        if status == 200:
            self._settle(_Answer("", revision=self._revision))
        else:
            self._settle(_Answer(f"status {status}", self._body[:_DETAIL_BYTES].decode("utf-8", "replace")))

    def _settle(self, answer: _Answer) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)


class Load:
    """Load on one URL of `http://host:port`. Start it, do what you are testing, stop it, read the report::

    async with Load(8080, "/iris/predict", rate_per_s=100) as load:
        ...
    assert load.report.failed == 0
    """

    report: Report

    def __init__(
        self,
        port: int,
        path: str = "/",
        body: bytes = b"{}",
        *,
        host: str = "127.0.0.1",
        rate_per_s: float | None = None,
        connections: int = 8,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
        think_s: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`connections` and `think_s` (pause of a client) are for the closed loop; the open one opens what it needs."""
        self._tls = tls
        self._address = (host, port)
        self._rate_per_s = rate_per_s
        self._connections = connections
        self._timeout_s = timeout_s
        self._think_s = think_s
        self._request = _encode(method, path, {"host": f"{host}:{port}", **(headers or {})}, body)
        self._idle: list[_Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._started_s = 0.0
        self._broken: BaseException | None = None
        self._failures: list[Failure] = []
        self._latencies_s: list[float] = []
        self._revisions: collections.Counter[str] = collections.Counter()

    @property
    def ok(self) -> int:
        """How many requests were answered by a complete 200 until now."""
        return len(self._latencies_s)

    @property
    def failed(self) -> int:
        """How many requests failed until now."""
        return len(self._failures)

    def start(self) -> Self:
        """Begin; must be called inside a running loop."""
        self._started_s = _now_s()
        if self._rate_per_s is not None:
            self._own(self._send_at_rate(self._rate_per_s))
        else:
            for _ in range(self._connections):
                self._own(self._send_one_by_one())
        return self

    async def stop(self) -> Report:
        """Send no more, wait for the answers that are due, and report."""
        self._stopping.set()
        duration_s = _now_s() - self._started_s
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._broken is not None:  # a bug of ours must not pass for a load without failures
            raise self._broken
        for connection in self._idle:
            connection.close()
        self.report = Report(
            duration_s,
            len(self._latencies_s),
            tuple(sorted(self._failures, key=lambda failure: failure.at_s)),
            tuple(sorted(self._latencies_s)),
            dict(self._revisions),
        )
        return self.report

    def end(self) -> None:
        """Send no more; `run` reports once the answers that are due have come."""
        self._stopping.set()

    async def run(self, duration_s: float) -> Report:
        """Start, wait (until `end`, or for this time), and stop."""
        self.start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), duration_s)
        return await self.stop()

    async def __aenter__(self) -> Self:
        return self.start()

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def _own(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken = self._broken or error

    async def _send_at_rate(self, rate_per_s: float) -> None:
        number = 0
        while not self._stopping.is_set():
            due_s = self._started_s + number / rate_per_s
            if (early_s := due_s - _now_s()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), early_s)
                continue
            self._own(self._send(due_s))
            number += 1

    async def _send_one_by_one(self) -> None:
        while not self._stopping.is_set():
            failed_before = len(self._failures)
            await self._send(_now_s())
            pause_s = max(self._think_s, _AFTER_FAILURE_S if len(self._failures) > failed_before else 0.0)
            if pause_s:
                await asyncio.sleep(pause_s)

    async def _send(self, due_s: float) -> None:
        connection = await self._connection()
        if isinstance(connection, str):
            self._failures.append(Failure(due_s - self._started_s, "connect", connection))
            return
        answer = await connection.ask(self._request, self._timeout_s)
        if connection.open:
            self._idle.append(connection)
        if answer.reason:
            self._failures.append(Failure(due_s - self._started_s, answer.reason, answer.detail))
        else:
            self._latencies_s.append(_now_s() - due_s)
            self._revisions[answer.revision] += 1

    async def _connection(self) -> _Connection | str:
        """An open connection, or why there is none."""
        while self._idle:
            if (connection := self._idle.pop()).open:
                return connection
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, made = await loop.create_connection(_Connection, *self._address, ssl=self._tls)
        except (OSError, TimeoutError) as error:
            return str(error) or type(error).__name__
        return made


def _encode(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lower = {name.lower(): value for name, value in headers.items()} | {"content-length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in lower.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m corten.testing.load", description="load on one URL")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/")
    parser.add_argument("--body", default="{}", help="the request's body, or @FILE")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--rate", type=float, help="requests a second (open loop)")
    parser.add_argument("--connections", type=int, default=8, help="clients (closed loop, without --rate)")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds")
    chosen = parser.parse_args(argv)
    report = asyncio.run(_run(chosen))
    print(json.dumps(report.as_dict(), indent=1))
    return 1 if report.failed else 0


async def _run(chosen: argparse.Namespace) -> Report:
    pairs = (line.partition(":") for line in chosen.header)
    load = Load(
        chosen.port,
        chosen.path,
        _body(chosen.body),
        host=chosen.host,
        rate_per_s=chosen.rate,
        connections=chosen.connections,
        headers={"content-type": "application/json"} | {name.strip(): value.strip() for name, _, value in pairs},
        timeout_s=chosen.timeout,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, load.end)
    return await load.run(chosen.seconds)


def _body(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    with open(text[1:], "rb") as stream:  # noqa: PTH123
        return stream.read()


if __name__ == "__main__":
    sys.exit(main())
