"""The server on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import stat
import time
from pathlib import Path

import pytest

from corten.errors import UsageError
from corten.http import Limits, Server, TcpAddress, UnixAddress, run, spawn

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LOOPBACK = TcpAddress("127.0.0.1", 0)


def closing(path):
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()


async def until(condition, timeout_s=5):
    end_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end_s:  # noqa: ASYNC110 - what is waited for knows no event
        await asyncio.sleep(0.001)
    assert condition()


def answer_ok(request):
    request.respond(200, b"ok", "text/plain")


@contextlib.asynccontextmanager
async def serving(handler, address=LOOPBACK, limits=None, **options):
    server = Server(handler, limits)
    try:
        yield server, await server.listen(address, **options)
    finally:
        await server.close()


async def connect(address):
    if isinstance(address, UnixAddress):
        return await asyncio.open_unix_connection(str(address.path))
    return await asyncio.open_connection(address.host, address.port)


async def ask(address, data, *, end=False):
    reader, writer = await connect(address)
    writer.write(data)
    if end:
        writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


def test_an_ordinary_client_is_answered_over_one_connection():
    async def story():
        def handle(request):
            request.respond_json(200, {"path": request.path, "size": len(request.body)})

        async with serving(handle) as (_, address):
            return await asyncio.to_thread(client, address.port)

    def client(port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        answers = []
        for size in (0, 5, 300_000):
            connection.request("POST", f"/{size}", body=b"x" * size)
            answers.append(json.load(connection.getresponse()))
        connection.close()
        return answers

    assert run(story()) == [{"path": f"/{size}", "size": size} for size in (0, 5, 300_000)]


def test_a_refused_upload_still_reads_its_answer():
    async def story():
        async with serving(answer_ok, limits=Limits(body_bytes=1000)) as (_, address):
            return await asyncio.to_thread(client, address.port)

    def client(port):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            start_s = time.monotonic()
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    sock.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            return sock.recv(4096), time.monotonic() - start_s

    answer, took_s = run(story())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert took_s < 5


def test_a_unix_socket_has_the_mode_asked_for_and_goes_with_its_server(tmp_path):
    path = tmp_path / "a.sock"

    async def story():
        async with serving(answer_ok, UnixAddress(path), mode=0o640) as (_, address):
            assert stat.S_IMODE(path.stat().st_mode) == 0o640
            assert b"200 OK" in await ask(address, GET, end=True)
            assert list(tmp_path.iterdir()) == [path]
        assert not path.exists()

    run(story())


def test_a_stale_unix_socket_is_replaced_and_a_living_one_is_not(tmp_path):
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))

    async def story():
        async with serving(answer_ok, UnixAddress(path)) as (_, address):
            with pytest.raises(UsageError) as caught:
                async with serving(answer_ok, UnixAddress(path)):
                    pass
            assert caught.value.code == "http.address_taken"
            assert b"200 OK" in await ask(address, GET, end=True)

    run(story())


def test_a_file_is_never_replaced_by_a_socket(tmp_path):
    (tmp_path / "a.sock").write_text("precious")

    async def story():
        with pytest.raises(UsageError):
            async with serving(answer_ok, UnixAddress(tmp_path / "a.sock")):
                pass

    run(story())
    assert (tmp_path / "a.sock").read_text() == "precious"


def test_a_server_leaves_the_path_another_has_taken(tmp_path):
    path = tmp_path / "a.sock"

    async def story():
        async with serving(answer_ok, UnixAddress(path)):
            path.unlink()
            path.write_text("of another")
        assert path.exists()

    run(story())


def test_a_folder_that_is_not_there_is_told(tmp_path):
    async def story():
        with pytest.raises(UsageError) as caught:
            async with serving(answer_ok, UnixAddress(tmp_path / "absent" / "a.sock")):
                pass
        return caught.value

    error = run(story())
    assert error.code == "http.cannot_listen"
    assert "No such file" in error.why


def test_a_taken_port_is_told():
    async def story():
        async with serving(answer_ok) as (_, address):
            with pytest.raises(UsageError) as caught:
                async with serving(answer_ok, address):
                    pass
            return caught.value

    error = run(story())
    assert error.code == "http.cannot_listen"
    assert "in use" in error.why


def test_draining_finishes_what_is_in_hand_and_says_close():
    async def story():
        held = []
        async with serving(held.append) as (server, address):
            answer = asyncio.create_task(ask(address, GET))
            await until(lambda: held)
            drained = asyncio.create_task(server.drain(10, linger_s=0.05))
            await asyncio.sleep(0.1)
            assert not drained.done()
            with pytest.raises(ConnectionRefusedError):
                await connect(address)
            held[0].respond(200, b"late", "text/plain")
            assert await drained
            return await answer

    answer = run(story())
    assert b"Connection: close" in answer
    assert answer.endswith(b"late")


def test_draining_lets_idle_connections_ask_once_more():
    async def story():
        async with serving(answer_ok) as (server, address):
            reader, writer = await connect(address)
            writer.write(GET)
            await reader.readuntil(b"ok")
            drained = asyncio.create_task(server.drain(10, linger_s=0.2))
            await asyncio.sleep(0.05)
            writer.write(GET)
            answer = await asyncio.wait_for(reader.read(), 5)
            writer.close()
            assert await drained
            return answer

    assert b"Connection: close" in run(story())


@pytest.mark.parametrize("busy_s", [0.0, 0.1], ids=["accepted", "waiting to be accepted"])
def test_draining_answers_who_connects_just_before_it_ends(busy_s):
    async def story():
        async with serving(answer_ok) as (server, address):
            _, first = await connect(address)  # while somebody is connected, others may be
            drained = asyncio.create_task(server.drain(10, linger_s=0.2))
            await asyncio.sleep(0.15)
            with socket.create_connection((address.host, address.port)) as late:
                time.sleep(busy_s)  # noqa: ASYNC251 - the loop sees the connection and the end in one turn
                await until(lambda: not server._listeners)
                late.sendall(GET)
                late.setblocking(False)
                answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(late, 4096), 5)
            first.close()
            assert await drained
            return answer

    assert b"Connection: close" in run(story())


def test_draining_ends_at_its_deadline():
    async def story():
        held = []
        async with serving(held.append) as (server, address):
            _, writer = await connect(address)
            writer.write(GET)
            await until(lambda: held)
            start_s = time.monotonic()
            assert await server.drain(0.2, linger_s=0.05) is False
            writer.close()
            return time.monotonic() - start_s

    assert 0.15 < run(story()) < 2


def test_draining_without_clients_takes_no_time():
    async def story():
        async with serving(answer_ok) as (server, _):
            start_s = time.monotonic()
            assert await server.drain(10)
            return time.monotonic() - start_s

    assert run(story()) < 0.1


def test_coroutine_handlers_answer_fail_and_are_cancelled_with_their_client():
    events = []

    async def handle(request):
        if request.path == "/fail":
            raise LookupError("x")
        if request.path == "/hang":
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                events.append("cancelled")
                raise
        elif request.path != "/nothing":
            await asyncio.sleep(0)
            request.respond(200, b"ok", "text/plain")

    async def story():
        handler = spawn(handle)
        async with serving(handler) as (_, address):
            for path, status in (("/", b"200"), ("/fail", b"500"), ("/nothing", b"500")):
                answer = await ask(address, closing(path))
                assert answer[9:12] == status, answer
            _, writer = await connect(address)
            writer.write(GET.replace(b"/ ", b"/hang ", 1))
            await until(lambda: handler.tasks)
            await asyncio.sleep(0.01)
            writer.close()
            await until(lambda: not handler.tasks)
        await handler.close()

    run(story())
    assert events == ["cancelled"]


def test_a_stream_waits_for_its_reader():
    size_bytes = 16 << 20

    async def story():
        sent = 0

        async def handle(request):
            nonlocal sent
            stream = request.stream(200, "application/octet-stream")
            while sent < size_bytes:
                stream.write(b"x" * 65536)
                sent += 65536
                await stream.drain()
            stream.end()

        handler = spawn(handle)
        async with serving(handler) as (_, address):
            reader, writer = await asyncio.open_connection(address.host, address.port, limit=65536)
            writer.write(GET)
            await asyncio.sleep(0.3)
            held = sent
            received = await asyncio.wait_for(_read_all(reader), 20)
            writer.close()
        await handler.close()
        return held, received

    async def _read_all(reader):
        total = 0
        while True:
            piece = await reader.read(1 << 20)
            total += piece.count(b"x")
            if piece.endswith(b"0\r\n\r\n") or not piece:
                return total

    held, received = run(story())
    assert held < size_bytes, "the server must not run ahead of a client that does not read"
    assert received == size_bytes


def test_a_thousand_slow_clients_are_closed_and_do_not_disturb_the_others():
    async def story():
        async with serving(answer_ok, limits=Limits(header_s=1.0)) as (server, address):
            slow = [await connect(address) for _ in range(300)]
            for _, writer in slow:
                writer.write(b"GET / HTTP/1.1\r\nX-Sl")
            start_s = time.monotonic()
            for _ in range(20):
                reader, writer = await connect(address)
                writer.write(GET)
                assert b"200" in await reader.readuntil(b"ok")
                writer.close()
            asked_s = time.monotonic() - start_s
            answers = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in slow)), 10)
            for _, writer in slow:
                writer.close()
            return asked_s, answers, server.connections

    asked_s, answers, _ = run(story())
    assert asked_s < 2
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left_open():
    before = open_files()

    async def story():
        async with serving(answer_ok) as (_, address):
            for _ in range(20):
                await ask(address, closing("/"))

    run(story())
    assert open_files() <= before
