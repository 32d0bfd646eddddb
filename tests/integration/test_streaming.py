"""Answers that come piece by piece, and models with `async` methods: a real server and real sockets."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path

import pytest
from served import Served

MODEL = """
import asyncio, time
from typing import AsyncIterator, Iterator

class Steps:
    def predict(self, n: int, wait_s: float = 0.0, size: int = 1, fails_at: int = -1) -> Iterator[str]:
        seen = 0
        try:
            for seen in range(n):
                if seen == fails_at:
                    raise RuntimeError("no more")
                time.sleep(wait_s)
                yield "x" * size
        finally:
            print("ended", flush=True)

class AsyncSteps:
    async def predict(self, n: int, wait_s: float = 0.0, size: int = 1, fails_at: int = -1) -> AsyncIterator[str]:
        try:
            for seen in range(n):
                if seen == fails_at:
                    raise RuntimeError("no more")
                await asyncio.sleep(wait_s)
                yield "x" * size
        finally:
            print("ended", flush=True)

class Waiter:
    async def setup(self):
        self.lock = asyncio.Lock()

    async def predict(self, wait_s: float = 0.0) -> float:
        try:
            await asyncio.sleep(wait_s)
        finally:
            print("ended", flush=True)
        return wait_s
"""
SSE = {"Accept": "text/event-stream"}
LIMITS = {"predict_timeout_s": 1.5, "stream_timeout_s": 2.5}


def serving(name, **options):
    spec = {"adapter": "pyclass", "entry": f"steps:{name}", "limits": {**LIMITS, **options.pop("limits", {})}}
    spec["streams"] = options.pop("streams", 1)
    return Served(spec, files={"steps.py": MODEL}, **options)


@pytest.fixture(scope="module", params=["Steps", "AsyncSteps"])
def server(request):
    with serving(request.param) as made:
        yield made.until()


def ask(server, headers=None, **arguments):
    status, seen, body = server.ask("POST", "/predict", json.dumps(arguments), headers)
    return status, seen["content-type"], body.decode()


def ended(server, count, timeout_s=5.0):
    """Wait until so many generators are closed."""
    end_s = time.monotonic() + timeout_s
    while server.out_path.read_text().count("ended") < count:
        assert time.monotonic() < end_s, "the generator was not ended"
        time.sleep(0.01)
    return True


def endings(server):
    return server.out_path.read_text().count("ended")


def test_each_piece_is_an_event_and_the_end_is_one_too(server):
    events = 'data: "x"\n\n' * 3 + "event: end\ndata: {}\n\n"
    assert ask(server, SSE, n=3) == (200, "text/event-stream", events)


def test_without_a_wish_each_piece_is_a_line(server):
    assert ask(server, n=3) == (200, "application/x-ndjson", '"x"\n"x"\n"x"\n')


def test_who_takes_json_gets_all_at_once(server):
    assert ask(server, {"Accept": "application/json"}, n=2) == (200, "application/json", '{"outputs":["x","x"]}')


def test_what_fails_before_the_first_piece_has_a_status(server):
    assert ask(server, SSE, n="three")[0] == 422
    status, kind, body = ask(server, SSE, n=3, fails_at=0)
    assert (status, kind, json.loads(body)["error"]["code"]) == (500, "application/json", "model.failed")


@pytest.mark.parametrize(
    ("headers", "last"),
    [(SSE, "event: error\ndata: "), ({}, "")],
)
def test_what_fails_later_is_the_last_piece(headers, last, server):
    status, _, body = ask(server, headers, n=3, fails_at=2)
    assert status == 200
    assert body.count('"x"') == 2
    error = '{"error":{"code":"model.failed","message":"no more","path":""}}'
    assert body.rstrip().endswith(last + error)


def test_pieces_arrive_as_they_are_made(server):
    connection = server.connect()
    connection.request("POST", "/predict", json.dumps({"n": 3, "wait_s": 0.3}))
    answer = connection.getresponse()
    assert answer.readline() == b'"x"\n'
    began_s = time.monotonic()
    assert answer.read() == b'"x"\n"x"\n'
    assert time.monotonic() - began_s > 0.3, "the others were not made yet"
    connection.close()


def test_http_1_0_gets_the_pieces_and_the_end_of_the_connection(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        body = b'{"n":2}'
        sock.sendall(b"POST /predict HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        seen = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, pieces = seen.partition(b"\r\n\r\n")
    assert b"Connection: close" in head
    assert b"chunked" not in head
    assert pieces == b'"x"\n"x"\n'


def test_pipelined_streams_come_in_order_one_after_the_other(server):
    request = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as sock:
        bodies = [b'{"n":2,"wait_s":0.1}', b'{"n":2,"size":200000}', b'{"n":1,"size":2}']
        sock.sendall(b"".join(request % (len(body), body) for body in bodies))
        seen = b""
        while seen.count(b"0\r\n\r\n") < 3:
            seen += sock.recv(1 << 20)
    places = [seen.index(b'"x"'), seen.index(b'"' + b"x" * 200000), seen.index(b'"xx"')]
    assert places == sorted(places)


def test_a_client_that_leaves_ends_the_generator(server):
    before = endings(server)
    connection = server.connect()
    connection.request("POST", "/predict", json.dumps({"n": 1000, "wait_s": 0.02}))
    assert connection.getresponse().readline()
    connection.sock.close() if connection.sock else None
    connection.close()
    assert ended(server, before + 1)


def test_a_client_that_does_not_read_stops_the_model_and_fills_no_memory(server):
    def peak_kb():
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    assert ask(server, n=1)[0] == 200
    before_kb, before = peak_kb(), endings(server)
    connection = server.connect()
    connection.request("POST", "/predict", json.dumps({"n": 5000, "size": 100_000}))  # 500 MB
    time.sleep(0.7)
    assert peak_kb() - before_kb < 20_000
    connection.close()
    assert ended(server, before + 1)


def test_a_pause_that_is_too_long_ends_it_and_a_long_answer_does_not(server):
    status, _, body = ask(server, SSE, n=2, wait_s=2.0)
    assert (status, json.loads(body)["error"]["code"]) == (504, "model.timeout")
    # In all 2 s, more than one piece may take.
    assert ask(server, SSE, n=10, wait_s=0.2)[2].endswith("event: end\ndata: {}\n\n")


def test_an_answer_without_end_is_ended(server):
    before = endings(server)
    status, _, body = ask(server, SSE, n=1000, wait_s=0.05)
    assert status == 200
    assert '"model.timeout"' in body.rstrip().rpartition("\n")[2]
    assert ended(server, before + 1)


def test_the_description_says_that_it_comes_piece_by_piece(server):
    paths = json.loads(server.ask("GET", "/openapi.json")[2])["paths"]
    content = paths["/predict"]["post"]["responses"]["200"]["content"]
    assert content["text/event-stream"]["schema"] == content["application/x-ndjson"]["schema"] == {"type": "string"}
    whole = content["application/json"]["schema"]["properties"]["outputs"]
    assert whole == {"type": "array", "items": {"type": "string"}}


def test_other_protocols_get_the_whole_answer(server):
    status, _, body = server.ask("POST", "/predictions", '{"input": {"n": 2}}')
    assert (status, json.loads(body)["output"]) == (200, ["x", "x"])
    status, _, body = server.ask("POST", "/invocations", '{"inputs": [{"n": 1}]}', {"Content-Type": "application/json"})
    assert (status, json.loads(body)) == (200, {"predictions": [["x"]]})


def test_a_stream_in_hand_is_finished_before_the_server_ends():
    with serving("Steps", env={"CORTEN_DRAIN_S": "5"}) as server:
        server.until()
        connection = server.connect()
        connection.request("POST", "/predict", json.dumps({"n": 5, "wait_s": 0.2}))
        answer = connection.getresponse()
        answer.readline()
        server.signal()
        assert answer.read() == b'"x"\n' * 4
        connection.close()
        assert server.end() == 0


def test_a_stream_that_outlives_the_drain_is_cut_off():
    with serving("Steps", env={"CORTEN_DRAIN_S": "0.5"}) as server:
        server.until()
        connection = server.connect()
        connection.request("POST", "/predict", json.dumps({"n": 50, "wait_s": 0.1}), SSE)
        answer = connection.getresponse()
        answer.readline()
        server.signal()
        assert answer.read().endswith(b'"message":"the server is stopping","path":""}}\n\n')
        connection.close()
        assert server.end() == 3


def test_async_calls_are_worked_on_side_by_side():
    with serving("Waiter") as server:
        server.until()
        seen = []
        threads = [threading.Thread(target=lambda: seen.append(server.predict({"wait_s": 0.5}))) for _ in range(8)]
        began_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [(200, {"outputs": 0.5})] * 8
        assert time.monotonic() - began_s < 2.0


def test_an_async_call_nobody_waits_for_is_cancelled():
    with serving("Waiter", limits={"predict_timeout_s": 0.5}) as server:
        server.until()
        assert server.predict({"wait_s": 30})[0] == 504
        assert ended(server, 1)
        connection = server.connect()
        connection.request("POST", "/predict", '{"wait_s": 0.4}')
        time.sleep(0.1)
        connection.close()
        assert ended(server, 2)
        assert server.predict({"wait_s": 0})[0] == 200
        assert not [line for line in server.log if line["message"] == "the model raised an exception"]
        server.signal()
        assert server.end() == 0


def together(server, count, **arguments):
    """So many at once; gives what each saw and how long all took."""
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(ask(server, SSE, **arguments))) for _ in range(count)]
    began_s = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen, time.monotonic() - began_s


def test_with_streams_generators_run_side_by_side_and_no_more_of_them_than_that():
    with serving("Steps", streams=4) as server:
        server.until()
        events = ("data: " + '"x"\n\ndata: ' * 3)[: -len("data: ")] + "event: end\ndata: {}\n\n"
        seen, took_s = together(server, 4, n=3, wait_s=0.2)
        assert seen == [(200, "text/event-stream", events)] * 4
        assert took_s < 1.5, "one after the other would take 2.4 s"
        seen, took_s = together(server, 5, n=3, wait_s=0.2)
        assert len(seen) == 5
        assert took_s >= 1.2, "the fifth waits for a thread"


def test_with_streams_who_leaves_makes_room_and_who_is_late_is_told():
    with serving("Steps", streams=2, env={"CORTEN_WORKERS": "2"}) as server:
        server.until()
        assert server.logged("ready")[0]["shared"]
        for _ in range(4):
            connection = server.connect()
            connection.request("POST", "/predict", json.dumps({"n": 1000, "wait_s": 0.02}))
            assert connection.getresponse().readline()
            connection.close()
        assert ended(server, 4)
        assert ask(server, n=1)[0] == 200
        assert json.loads(ask(server, SSE, n=1, wait_s=2.0)[2])["error"]["code"] == "model.timeout"
        assert ask(server, {"Accept": "application/json"}, n=2) == (200, "application/json", '{"outputs":["x","x"]}')
        assert ask(server, SSE, n="three")[0] == 422
        server.signal()
        assert server.end() == 0


def test_streams_are_refused_where_calls_run_another_way():
    with serving("AsyncSteps", streams=2) as server:
        assert server.end() == 1
        (line,) = [line for line in server.log if line["level"] == "critical"]
        assert "one event loop" in line["error"]["message"] + line.get("why", "")
