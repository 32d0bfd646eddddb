"""A replica of several processes: real ones, killed and stopped as they would be."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from served import Client, Served

TWO = {"CORTEN_WORKERS": "2", "CORTEN_THREADS": "1"}
ENDED = "a process ended"


def descendants(pid):
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found[1:]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(true, timeout_s=15):
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        if true():
            return True
        time.sleep(0.02)
    return False


def kill(server, worker):
    ended = len(server.logged(ENDED, 0))
    os.kill(worker, signal.SIGKILL)
    # What the master hands over before it has seen the worker's line end is lost with the worker.
    assert len(server.logged(ENDED, ended + 1)) > ended


def asked(server):
    """Which process answered a request over a new connection, and a number it drew."""
    status, answer = server.predict({})
    assert status == 200
    return answer["outputs"]


def workers(server):
    return {asked(server)[0] for _ in range(8)}


def metric(server, name):
    text = server.ask("GET", "/metrics")[2].decode()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])


def memory_kb(pids):
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_connections_are_shared_out_evenly(unix):
    with Served({"entry": "identity"}, env=TWO, unix=unix) as server:
        server.until()
        connections = [server.connect() for _ in range(10)]
        answered = Counter()
        for connection in connections:
            connection.request("POST", "/predict", b"{}")
            answered[json.loads(connection.getresponse().read())["outputs"][0]] += 1
        for connection in connections:
            connection.close()
        assert sorted(answered.values()) == [5, 5]
        assert server.process.pid not in answered


def test_forked_workers_do_not_draw_the_same_numbers():
    with Served({"entry": "identity"}, env=TWO) as server:
        server.until()
        drawn = [asked(server) for _ in range(8)]
        assert len({number for _, number in drawn}) == 8


def test_the_replica_counts_as_one():
    with Served({"entry": "identity"}, env=TWO) as server:
        server.until()
        for _ in range(20):
            asked(server)
        assert until(lambda: metric(server, 'corten_requests_total{code="200"}') == 20)
        # Another worker may be asked, which hears of the first one's a tenth of a second later.
        assert until(lambda: metric(server, "corten_request_seconds_count") == 20)
        assert until(lambda: metric(server, "corten_ready") == 1)
        assert metric(server, "process_resident_memory_bytes") > 1 << 20


def test_each_worker_tells_the_distributions_that_one_of_them_watches():
    with Served({"entry": "double"}, env=TWO) as server:
        server.until()
        for _ in range(20):
            assert server.predict({"inputs": [[1, 2, 3]]})[0] == 200
            time.sleep(0.01)

        def watched():
            status, _, body = server.ask("GET", "/drift")
            return status == 200 and json.loads(body)["rows"] >= 2

        assert until(lambda: all(watched() for _ in range(4)))
        assert until(lambda: metric(server, 'corten_feature_mean{side="output",feature="y[2]"}') == 6)


def test_any_worker_tells_what_became_of_a_job():
    with Served({"entry": "identity"}, env=TWO) as server:
        server.until()
        status, _, body = server.ask("POST", "/predict", b"{}", {"Prefer": "respond-async"})
        assert status == 202
        place = f"/jobs/{json.loads(body)['id']}"

        def told():
            return json.loads(server.ask("GET", place)[2])["status"]

        assert until(lambda: [told() for _ in range(4)] == ["succeeded"] * 4)


def test_a_killed_worker_is_replaced_while_the_other_answers():
    with Served({"entry": "identity"}, env=TWO) as server:
        server.until()
        before = workers(server)
        assert until(lambda: metric(server, 'corten_requests_total{code="200"}') == 8)
        killed = min(before)
        kill(server, killed)
        for _ in range(20):
            assert asked(server)[0] != killed
        assert until(lambda: len(workers(server)) == 2)
        assert until(lambda: max(before) in workers(server))
        # What the dead one had counted stays.
        assert until(lambda: metric(server, 'corten_requests_total{code="200"}') >= 28 + 8)
        server.signal()
        assert server.end() == 0


def test_workers_are_made_anew_when_what_they_were_forked_from_is_killed():
    with Served({"entry": "identity"}, env=TWO) as server:
        server.until()
        before = workers(server)
        (template,) = [pid for pid in descendants(server.process.pid) if before & set(descendants(pid))]
        os.kill(template, signal.SIGKILL)
        assert until(lambda: not any(map(alive, before)), 5)

        def again():
            with contextlib.suppress(OSError, AssertionError):
                return len(workers(server)) == 2
            return False

        assert until(again)


def test_nobody_outlives_the_master():
    with Served({"entry": "identity"}, env=TWO) as server:
        server.until()
        others = descendants(server.process.pid)
        assert len(others) == 3
        server.process.kill()
        assert until(lambda: not any(map(alive, others)), 5)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize(
    ("entry", "body", "outputs"),
    [("double", b'{"inputs":[[1,2,3]]}', [[2, 4, 6]]), ("sleepy", b'{"seconds":0.005,"text":"a"}', "a")],
    ids=["fast", "slow"],
)
def test_stopping_under_load_fails_no_request(unix, entry, body, outputs):
    with Served({"entry": entry}, env=TWO, unix=unix) as server:
        server.until()
        clients = [Client(server, body, lambda answer: answer == {"outputs": outputs}) for _ in range(16)]
        for client in clients:
            client.start()
        time.sleep(0.5)
        server.signal()
        for client in clients:
            client.join(10)
        assert [client.failure for client in clients if client.failure] == []
        assert all(client.told_to_close for client in clients)
        assert server.end() == 0


def test_what_is_unanswered_at_the_end_is_told_by_the_exit_code():
    with Served({"entry": "identity"}, env={**TWO, "CORTEN_DRAIN_S": "0.3"}) as server:
        server.until()
        connection = server.connect()
        connection.request("POST", "/predict", b'{"seconds": 20}')
        time.sleep(0.2)
        server.signal()
        assert server.end() == 3
        connection.close()


def test_a_model_with_threads_of_its_own_is_loaded_by_each_worker():
    with Served({"entry": "threads"}, env=TWO) as server:
        server.until()
        assert len(workers(server)) == 2
        assert "threads" in server.logged("each worker loads the model itself")[0]["reason"]
        killed = min(workers(server))
        kill(server, killed)
        assert until(lambda: len(workers(server) - {killed}) == 2)


def test_a_model_that_does_not_load_ends_the_replica():
    with Served({"entry": "load-never"}, env=TWO) as server:
        assert server.end() == 1
        (line,) = server.logged("the model could not be loaded")
        assert line["error"]["message"].startswith("no weights in")


def test_it_is_alive_and_not_ready_while_it_loads():
    with Served({"entry": "load-slowly:4"}, env=TWO) as server:
        server.until("/livez", timeout_s=4)
        assert server.ask("GET", "/readyz")[0] == 503
        server.until()


def test_a_second_worker_takes_a_small_part_of_the_first_ones_memory():
    with Served({"entry": "large:100"}) as alone:
        alone.until()
        one_kb = memory_kb([alone.process.pid])
    with (
        Served({"entry": "large:100"}, env={"CORTEN_WORKERS": "2"}) as two,
        Served({"entry": "large:100"}, env={"CORTEN_WORKERS": "3"}) as three,
    ):
        sums = []
        for server in (two, three):
            server.until()
            for _ in range(12):
                assert server.predict({"inputs": [[1, 2, 3]]})[0] == 200
            sums.append(memory_kb([server.process.pid, *descendants(server.process.pid)]))
    assert one_kb > 100 << 10
    assert sums[1] - sums[0] < 0.35 * one_kb
