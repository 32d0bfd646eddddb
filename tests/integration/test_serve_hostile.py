"""The real server under input nobody means well: never a 5xx, never invalid JSON, never a hang."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served import Served

HOSTILE = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=150
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from(["x", "inputs", "", "é\x00"]), inner),
    max_leaves=20,
)
BODIES = (
    st.binary(max_size=200)
    | ANY_JSON.map(lambda value: json.dumps(value).encode())
    | ANY_JSON.map(lambda value: json.dumps({"inputs": value}).encode())
    | st.lists(
        st.sampled_from(
            [b'{"inputs":', b"[", b"]", b"1", b",", b"}", b"NaN", b"1e999", b'"\\ud800"', b"\xff", b"null"]
        ),
        max_size=30,
    ).map(b"".join)
)


@pytest.fixture(scope="module", params=["float32", "int8", "string", "json"])
def server(request):
    with Served({"entry": f"any:{request.param}", "limits": {"max_body_bytes": 1 << 20}}) as server:
        server.until()
        server.loaded_cpu_s = server.cpu_s()
        yield server
        assert not [line for line in server.log if line["level"] in {"error", "critical"}]


def strict(body):
    def refuse(text):
        raise AssertionError(f"{text} in an answer")

    return json.loads(body, parse_constant=refuse)


@HOSTILE
@given(body=BODIES)
def test_any_body_is_answered_or_refused_in_strict_json(server, body):
    status, headers, answer = server.ask("POST", "/predict", body)
    assert status in {200, 400, 422}
    assert headers["content-type"] == "application/json"
    told = strict(answer)
    if status == 200:
        assert set(told) == {"outputs"}
    else:
        assert set(told["error"]) == {"code", "message", "path"}
        assert told["error"]["message"]


@HOSTILE
@given(
    pieces=st.lists(
        st.sampled_from(
            [
                b"POST /predict HTTP/1.1\r\n",
                b"GET / HTTP/1.1\r\n",
                b"GET /metrics HTTP/1.0\r\n",
                b"Host: a\r\n",
                b"Content-Length: 2\r\n",
                b"Content-Length: 99\r\n",
                b"Transfer-Encoding: chunked\r\n",
                b"\r\n",
                b"\n",
                b"{}",
                b"0\r\n\r\n",
                b"2\r\n{}\r\n",
                b"Expect: 100-continue\r\n",
                b"Connection: close\r\n",
                b"Upgrade: h2c\r\n",
                b" x\r\n",
                b"X-Request-Id: \xff\xfe\r\n",
                b"traceparent: \x7f\r\n",
                b"Content-Type: \xe9\r\n",
            ]
        )
        | st.binary(max_size=20),
        max_size=14,
    )
)
def test_any_bytes_on_the_wire_get_whole_answers_or_none(server, pieces):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        received = b""
        try:
            sock.sendall(b"".join(pieces))
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                received += piece
        except ConnectionError:
            pass
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
    assert all(status < 500 or status in {501, 505} for status in statuses), received
    heads = re.findall(rb"HTTP/1\.1 (?!100)\d{3} .*?\r\n\r\n", received, re.DOTALL)
    lengths = [int(re.search(rb"Content-Length: (\d+)", head)[1]) for head in heads]
    continues = received.count(b"HTTP/1.1 100 Continue\r\n\r\n") * len(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert len(received) == sum(map(len, heads)) + sum(lengths) + continues


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * (1 << 20), {400, 422}),
        (b'{"inputs":' + b"[" * 900_000, {400, 422}),
        (b'{"inputs":[' + b"[1,2]," * 150_000 + b"[1]]}", {422}),
        (b'{"inputs":{"x":[' + b"[1,2]," * 150_000 + b"[1]]}}", {422}),
        (b'{"inputs":[[' + b"9" * 1_000_000 + b",1]]}", {422}),
        (b'{"inputs":[' + b"{}," * 300_000 + b"{}]}", {422}),
        (b'{"inputs":{' + b",".join(b'"%d":1' % i for i in range(80_000)) + b"}}", {422}),
        (b'{"inputs":"' + b"\\u0000" * 170_000 + b'"}', {422}),
        (b"x" * ((1 << 20) + 1), {413}),
    ],
    ids=["brackets", "deep-inputs", "ragged", "ragged-by-name", "long-number", "objects", "keys", "nul", "too-large"],
)
def test_large_nonsense_is_refused_quickly(server, body, status):
    before_s = server.cpu_s()
    assert server.ask("POST", "/predict", body)[0] in status
    # The server's own time, by what loading took it on this machine: the ragged take twice that, a square of it minutes.
    assert server.cpu_s() - before_s < 10 * server.loaded_cpu_s
    assert server.ask("GET", "/livez")[0] == 200


@pytest.mark.parametrize("row", [b"[1,1]", b"[0.123456,0.654321]"], ids=["short", "long"])
def test_sixteen_megabytes_of_numbers_take_a_small_multiple_of_their_size(row):
    body = b'{"inputs":[' + b",".join([row] * ((16 << 20) // (len(row) + 1) - 10)) + b"]}"
    with Served({"entry": "any:float64"}) as large:
        large.until()
        before_mb = large.peak_mb()
        status, _, answer = large.ask("POST", "/predict", body, timeout_s=60)
        assert status == 200
        assert len(answer) >= len(body)
        # The body, its array (one number in two bytes becomes eight) and the answer; lists of it all took 550.
        assert large.peak_mb() - before_mb < 180


@pytest.fixture(scope="module")
def small():
    """A server for whose sake others are hostile; it and they may have some thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with Served({"entry": "double"}) as server:
        yield server.until()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def waits_s(server, times):
    """How long good requests take; all of them must be answered."""
    waited_s = []
    for _ in range(times):
        asked_s = time.monotonic()
        assert server.predict({"inputs": [[1, 2, 3]]}) == (200, {"outputs": [[2, 4, 6]]})
        waited_s.append(time.monotonic() - asked_s)
    return sorted(waited_s)


def test_a_thousand_slow_connections_keep_nobody_waiting(small):
    alone_s, before_mb = waits_s(small, 40), small.peak_mb()
    beginnings = [b"", b"POST /pre", b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n[1,"]
    with contextlib.ExitStack() as stack:
        for i in range(1000):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", small.port), timeout=10))
            slow.sendall(beginnings[i % len(beginnings)])
        among_s = waits_s(small, 40)
    assert among_s[20] < 3 * alone_s[20] + 0.02
    assert small.peak_mb() - before_mb < 60


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_bodies_of_two_hundred_megabytes_are_refused_in_little_memory(small, chunked):
    before_mb = small.peak_mb()
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 209715200"
    piece = b"%x\r\n%b\r\n" % (1 << 20, b"1" * (1 << 20)) if chunked else b"1" * (1 << 20)
    answers = []
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", small.port), timeout=20)) for _ in range(4)
        ]
        for client in clients:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                for client in clients:
                    client.sendall(piece)
        assert waits_s(small, 10)[5] < 1
        for client in clients:
            with contextlib.suppress(ConnectionError):
                answers.append(client.recv(100))
    assert all(answer.startswith(b"HTTP/1.1 413 ") for answer in answers if answer)
    assert small.peak_mb() - before_mb < 4 * 16 * 2 + 20, "four bodies to the limit, growing"
