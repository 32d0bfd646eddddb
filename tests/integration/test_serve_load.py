"""The real server with many clients at once: stopping, overload, clients that leave."""

from __future__ import annotations

import concurrent.futures
import json
import time

import pytest
from served import Client, Served


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize(
    ("entry", "body", "outputs"),
    [
        ("double", b'{"inputs":[[1,2,3]]}', [[2, 4, 6]]),
        ("sleepy", b'{"seconds":0.005,"text":"a"}', "a"),
    ],
    ids=["fast", "slow"],
)
def test_stopping_under_load_fails_no_request(unix, entry, body, outputs):
    with Served({"entry": entry}, unix=unix) as server:
        server.until()
        clients = [Client(server, body, lambda answer: answer == {"outputs": outputs}) for _ in range(32)]
        for client in clients:
            client.start()
        time.sleep(1.0)
        server.signal()
        for client in clients:
            client.join(10)
        assert [client.failure for client in clients if client.failure] == []
        assert all(client.told_to_close for client in clients)
        assert sum(client.answered for client in clients) > 100
        assert server.end() == 0


def test_answers_belong_to_their_requests_under_load():
    with Served({"entry": "double"}) as server:
        server.until()
        clients = []
        for number in range(24):
            rows = [[number, row, -number] for row in range(1 + number % 4)]
            expected = {"outputs": [[2 * value for value in row] for row in rows]}
            body = json.dumps({"inputs": rows}).encode()
            clients.append(Client(server, body, lambda answer, expected=expected: answer == expected))
        for client in clients:
            client.start()
        time.sleep(1.0)
        for client in clients:
            client.stop.set()
        for client in clients:
            client.join(10)
        assert [client.failure for client in clients if client.failure] == []


def timed(work):
    """How long it took, in seconds."""
    start_s = time.monotonic()
    work()
    return time.monotonic() - start_s


def test_overload_is_shed_and_the_server_recovers():
    limits = {"queue": 20, "predict_timeout_s": 5}
    with Served({"entry": "sleepy", "limits": limits, "batching": {"max_rows": 1}}) as server:
        server.until()
        body = b'{"seconds":0.02,"text":"a"}'
        alone_s = timed(lambda: [server.ask("POST", "/predict", body) for _ in range(20)]) / 20
        with concurrent.futures.ThreadPoolExecutor(60) as pool:
            start_s = time.monotonic()
            answers = [pool.submit(server.ask, "POST", "/predict", body) for _ in range(240)]
            statuses = [answer.result()[0] for answer in answers]
            took_s = time.monotonic() - start_s
        good = statuses.count(200)
        assert set(statuses) == {200, 429}
        assert good * alone_s > 0.6 * took_s, "most of what it does for one client after the other is still done"
        assert timed(lambda: server.ask("POST", "/predict", body)) < 15 * alone_s, "no queue of twenty is before it"


def test_the_probes_answer_while_the_model_is_busy():
    with Served({"entry": "sleepy"}) as server:
        server.until()
        with concurrent.futures.ThreadPoolExecutor() as pool:
            slow = pool.submit(server.ask, "POST", "/predict", b'{"seconds":1}')
            time.sleep(0.1)
            for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/"):
                assert server.ask("GET", path)[0] == 200
            assert not slow.done(), "all were answered before the model was done"
            assert slow.result()[0] == 200


def test_clients_that_leave_do_not_make_the_model_work():
    with Served({"entry": "sleepy", "batching": {"max_rows": 1}}) as server:
        server.until()
        connections = [server.connect() for _ in range(20)]
        for connection in connections:
            connection.request("POST", "/predict", b'{"seconds":0.5}')
        time.sleep(0.1)
        for connection in connections:
            connection.close()
        start_s = time.monotonic()
        assert server.ask("POST", "/predict", b'{"text":"a"}')[0] == 200
        assert time.monotonic() - start_s < 2, "twenty calls of half a second would be before it"
        assert b'corten_requests_total{code="499"} 19' in server.ask("GET", "/metrics")[2]


def test_large_bodies_and_answers_go_through_whole():
    with Served({"entry": "any:float64"}) as server:
        rows = [[float(i), i / 7] for i in range(100_000)]
        status, answer = server.until().predict({"inputs": rows}, timeout_s=30)
        assert status == 200
        assert answer["outputs"] == rows


FORM = b'--b0\r\nContent-Disposition: form-data; name="x"; filename="t.csv"\r\n\r\n%b--b0--\r\n'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"inputs":[' + b"[1,1]," * ((16 << 20) // 6 - 10) + b"[1,1]]}", {}),
        (FORM % (b"1,1\n" * (1 << 18) + b"\r\n"), {"Content-Type": "multipart/form-data; boundary=b0"}),
    ],
    ids=["json", "csv in a form"],
)
def test_others_are_answered_while_a_large_body_is_read_and_written(body, headers):
    with Served({"entry": "any:float64"}) as server, concurrent.futures.ThreadPoolExecutor() as pool:
        server.until()
        start_s = time.monotonic()
        large = pool.submit(server.ask, "POST", "/predict", body, headers, timeout_s=60)
        waited_s = []
        while not large.done():
            asked_s = time.monotonic()
            assert server.ask("GET", "/livez")[0] == 200
            waited_s.append(time.monotonic() - asked_s)
        assert large.result()[0] == 200
        took_s = time.monotonic() - start_s
        assert max(waited_s) < 0.5 * took_s, "the loop is not held up"
        assert sorted(waited_s)[len(waited_s) // 2] < 0.1


def test_without_uvloop_it_serves_on_pythons_own_loop(tmp_path):
    (tmp_path / "uvloop.py").write_text("raise ImportError('not here')\n")
    with Served({"entry": "double"}, modules=tmp_path) as server:
        server.until()
        assert server.predict({"inputs": [[1, 2, 3]]}) == (200, {"outputs": [[2, 4, 6]]})
        clients = [Client(server, b'{"inputs":[[1,2,3]]}', lambda answer: "outputs" in answer) for _ in range(8)]
        for client in clients:
            client.start()
        time.sleep(0.3)
        server.signal()
        for client in clients:
            client.join(10)
        assert [client.failure for client in clients if client.failure] == []
        assert server.end() == 0
