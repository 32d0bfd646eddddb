"""The load generator against servers that misbehave: every kind of failure is counted as what it is."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys

import pytest

from corten.http import run
from corten.testing.load import Load

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-corten-revision: r7\r\n\r\n{}"


@contextlib.asynccontextmanager
async def server(answer):
    """`answer(writer, number)` is called for each request that has arrived."""
    numbers, serving = iter(range(1_000_000)), set()

    async def serve(reader, writer):
        serving.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(size)
                if not await answer(writer, next(numbers)):
                    break
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]
    for task in serving:
        task.cancel()
    await asyncio.gather(*serving)


async def fine(writer, number):
    writer.write(OK)
    return True


async def load_on(answer, duration_s=0.2, **options):
    async with server(answer) as port:
        return await Load(port, "/predict", **options).run(duration_s)


def writes(data, *, goes_on):
    async def answer(writer, number):
        writer.write(data)
        return goes_on

    return answer


def test_complete_answers_are_counted_with_their_revision_and_latency():
    report = run(load_on(fine, connections=2))
    assert report.failed == 0
    assert report.ok == report.revisions["r7"] == len(report.latencies_s) > 10
    assert 0 < report.latency_s(0.5) <= report.latency_s(1.0) < 1


@pytest.mark.parametrize(
    ("data", "goes_on", "reason"),
    [
        (b"HTTP/1.1 503 No\r\ncontent-length: 4\r\n\r\nnope", True, "status 503"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True, "status 204"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", False, "reset"),
        (b"", False, "reset"),
        (b"what?\r\n\r\n", False, "malformed"),
    ],
)
def test_anything_but_a_complete_200_is_a_failure_with_its_reason(data, goes_on, reason):
    report = run(load_on(writes(data, goes_on=goes_on), connections=1))
    assert report.ok == 0
    assert set(report.reasons) == {reason}


def test_a_refused_connection_is_a_failure():
    async def story():
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            return await Load(unused.getsockname()[1], rate_per_s=50).run(0.2)

    report = run(story())
    assert set(report.reasons) == {"connect"}
    assert report.ok == 0


def test_an_answer_that_does_not_come_in_time_is_a_failure():
    async def silent(writer, number):
        return True

    report = run(load_on(silent, connections=2, timeout_s=0.1))
    assert report.ok == 0
    assert set(report.reasons) == {"timeout"}


def test_a_server_that_closes_after_an_answer_fails_nothing():
    closing = OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    report = run(load_on(writes(closing, goes_on=False), connections=4))
    assert report.failed == 0
    assert report.ok > 10


def test_at_a_rate_requests_go_out_on_time_though_answers_stall_and_the_stall_is_in_the_latency():
    async def stalls(writer, number):
        if number == 10:
            await asyncio.sleep(0.3)
        writer.write(OK)
        return True

    report = run(load_on(stalls, 0.5, rate_per_s=100))
    assert report.failed == 0
    # A busy machine lets the load last longer than it was told to: it is the time it took that counts.
    due = 100 * report.duration_s
    assert 0.9 * due <= report.ok <= due + 1
    assert report.latency_s(1.0) > 0.29
    assert report.latency_s(0.5) < report.latency_s(1.0) / 2


def test_a_server_that_holds_everybody_shows_in_the_latency_of_all_who_were_due():
    async def blocks(writer, number):
        if number == 5:
            await asyncio.sleep(0)
            deadline_s = asyncio.get_running_loop().time() + 0.2
            while asyncio.get_running_loop().time() < deadline_s:
                pass  # the loop stands still, the load's too
        writer.write(OK)
        return True

    report = run(load_on(blocks, 0.4, rate_per_s=200))
    late = sum(latency_s > 0.05 for latency_s in report.latencies_s)
    assert late > 20


def test_the_command_prints_a_report_and_ends_with_1_after_failures():
    async def story(answer):
        async with server(answer) as port:
            words = ["--port", str(port), "--rate", "50", "--seconds", "0.3", "--path", "/x"]
            command = [sys.executable, "-m", "corten.testing.load", *words]
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30)
            return done.returncode, json.loads(done.stdout)

    code, report = run(story(fine))
    assert (code, report["failed"], report["revisions"]) == (0, 0, {"r7": report["ok"]})
    code, report = run(story(writes(b"HTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\nbad", goes_on=True)))
    assert (code, report["ok"], report["failures"][0]["detail"]) == (1, 0, "bad")


def test_a_fault_of_the_generator_itself_is_raised_and_not_counted_as_nothing(monkeypatch):
    async def breaks(connection, request, timeout_s):
        raise ZeroDivisionError

    monkeypatch.setattr("corten.testing.load._Connection.ask", breaks)
    with pytest.raises(ZeroDivisionError):
        run(load_on(fine, rate_per_s=50))
