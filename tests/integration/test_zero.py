"""None while nobody asks, and what else makes requests wait: real processes, real Envoy, a small real image."""

import concurrent.futures
import http.client
import json
import os
import random
import signal
import socket
import threading
import time
from collections import Counter

import pytest
from tiny_service import Load, until

from corten.control.client import connect
from corten.core.deployment import Settings
from corten.core.rest import Rest, Strategy
from corten.errors import UnhealthyError
from corten.ops.change import rollback
from corten.ops.deploy import deploy
from corten.ops.predict import predict
from corten.ops.status import status
from corten.ops.stop import stop
from corten.ops.why import why
from corten.testing.tiny_image import TinyImage

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not TinyImage.possible(), reason="no Python below /usr to make an image of"),
]
SOON = Rest(freeze_after_s=0.5, stop_after_s=3600.0)


def up(place, rest=SOON, *, strategy=Strategy.AUTO, least=0, **env):
    env = {key: str(value) for key, value in env.items()}
    settings = Settings(replicas=least, most_replicas=1, rest=rest, strategy=strategy, env=env)
    return deploy(place.image, "tiny", settings, home=place.home, port=place.port)


def post(place, timeout_s=30.0):
    """One request on a connection of its own: (status, Retry-After, document)."""
    connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=timeout_s)
    try:
        connection.request("POST", "/tiny/predict", b"{}")
        answer = connection.getresponse()
        return answer.status, answer.headers["retry-after"], json.loads(answer.read())
    finally:
        connection.close()


def crowd(place, size):
    """So many at once."""
    with concurrent.futures.ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda _: post(place), range(size)))


def state(place):
    return place.one().state


def answers(address):
    """Whether a replica answers on its socket, within a moment."""
    with socket.socket(socket.AF_UNIX) as direct:
        direct.settimeout(0.3)
        direct.connect(address)
        direct.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
        try:
            return bool(direct.recv(1))
        except TimeoutError:
            return False


def test_it_is_frozen_then_stopped_and_each_time_the_next_request_wakes_it(place):
    up(place, Rest(freeze_after_s=0.5, stop_after_s=4.0))
    pids = place.pids()
    until(lambda: state(place) == "frozen", "it is frozen")
    frozen = place.one().replicas[0]
    assert (frozen.pid, place.one().ready) == (pids[0], 0)
    assert not answers(frozen.address)
    assert post(place)[0] == 200
    until(lambda: place.pids() == pids, "the same process answers")
    until(lambda: state(place) == "stopped", "it is stopped")
    assert place.one().replicas == ()
    # All who come while it starts are answered by the one that is started.
    assert {answer[0] for answer in crowd(place, 40)} == {200}
    assert len(place.one().replicas) == 1
    told = [one.message for one in why("tiny", home=place.home).decisions]
    assert "0 to 1 replicas: a request waits" in told
    assert any("frozen: no request for" in line for line in told)


def test_who_asks_how_one_at_rest_is_hears_that_it_is_well_and_lets_it_sleep(place):
    up(place, ANSWER="x")
    until(lambda: state(place) == "frozen", "it is frozen")
    for path in ("livez", "readyz"):
        connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=5)
        connection.request("GET", f"/tiny/{path}")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, {"status": "resting"})
        assert answer.headers["content-type"] == "application/json"
        connection.close()
    time.sleep(1.0)
    assert state(place) == "frozen"
    assert place.ask() == "x"


def test_why_tells_of_this_life_only(place):
    place.deploy(ANSWER="a")
    place.deploy(ANSWER="b")
    stop("tiny", home=place.home)
    place.deploy(ANSWER="c")
    assert [each.message for each in why("tiny", home=place.home).decisions] == ["r1", "r1 serves"]


def test_more_than_may_wait_are_told_to_come_back_and_who_leaves_is_forgotten(place):
    up(place, Rest(freeze_after_s=0.5, stop_after_s=0.6, hold_requests=3), LOAD_S=1.5)
    until(lambda: state(place) == "stopped", "it is stopped")
    answers = crowd(place, 10)
    told = Counter((status, document.get("error", {}).get("code")) for status, _, document in answers)
    assert told == {(200, None): 3, (503, "hold.too_many"): 7}
    assert all(int(retry_s) >= 1 for status, retry_s, _ in answers if status == 503)
    until(lambda: state(place) == "stopped", "it is stopped")
    with pytest.raises(TimeoutError):
        post(place, timeout_s=0.3)
    until(lambda: place.one().waiting == 0, "nobody waits any more")


def test_who_would_wait_for_too_long_is_told_so_and_the_start_goes_on(place):
    up(place, Rest(freeze_after_s=0.5, stop_after_s=0.6, hold_s=0.4), LOAD_S=2)
    until(lambda: state(place) == "stopped", "it is stopped")
    code, retry_s, document = post(place)
    assert (code, document["error"]["code"]) == (503, "hold.too_long")
    assert int(retry_s) >= 1
    until(lambda: post(place)[0] == 200, "it is there")


def test_without_the_daemon_requests_for_one_at_rest_wait_some_seconds_for_another(place):
    up(place)
    for brought_back in (True, False):
        until(lambda: state(place) == "frozen", "it is frozen")
        os.kill(place.daemon_pid(), signal.SIGKILL)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(crowd, place, 20)
            time.sleep(0.5)
            assert not asked.done()
            if brought_back:
                assert state(place) in ("frozen", "resting", "serving", "degraded")
            told = asked.result(60)
        if brought_back:
            assert [code for code, _, _ in told] == [200] * 20
        else:
            assert {(code, document["error"]["code"]) for code, _, document in told} == {(503, "gateway.no_controller")}
            assert all(int(retry_s) >= 1 for _, retry_s, _ in told)
    assert state(place) in ("frozen", "resting")
    assert post(place)[0] == 200


def test_a_daemon_killed_while_it_freezes_and_wakes_leaves_nothing_undone(place):
    up(place, Rest(freeze_after_s=0.2, stop_after_s=0.8))
    chance = random.Random(3)
    for _ in range(6):
        asking = threading.Thread(target=post, args=(place,))
        victim = place.daemon_pid()
        threading.Timer(chance.uniform(0.0, 1.2), os.kill, (victim, signal.SIGKILL)).start()
        time.sleep(chance.uniform(0.0, 0.9))
        asking.start()
        asking.join()  # answered or refused, never left
        until(lambda victim=victim: place.daemon_pid() != victim, "another daemon")
    assert post(place)[0] == 200
    until(lambda: state(place) == "stopped", "it is stopped")
    started = [each for each in place.processes() if each not in (place.daemon_pid(), gateway_pid(place))]
    assert started == []


def gateway_pid(place):
    return status(home=place.home).as_dict()["gateway"]["pid"]


def ready_pid(place):
    """The process of the one that takes requests; None when there is none (0 would be all of ours)."""
    one = place.one()
    return next((each.pid for each in one.replicas if each.state == "ready" and one.ready), 0) or None


def another(place, before):
    found = ready_pid(place)
    return found if found != before else None


def test_the_only_replica_killed_three_times_under_load_costs_no_request(place):
    place.deploy(ANSWER="x")
    with Load(place) as load:
        victim = until(lambda: ready_pid(place), "it is there")
        for _ in range(3):
            # Seven tries outlast three ends at once, if none of them comes too soon: that would be for chance to say.
            assert post(place)[0] == 200
            os.kill(victim, signal.SIGKILL)
            victim = until(lambda before=victim: another(place, before), "another one")
    assert load.report["failures"] == []


def test_a_swap_holds_requests_and_loses_none_also_when_it_fails(place):
    up(place, least=1, ANSWER="old")
    with Load(place) as load:
        up(place, least=1, strategy=Strategy.SWAP, ANSWER="new")
        with pytest.raises(UnhealthyError) as caught:
            up(place, least=1, strategy=Strategy.SWAP, BROKEN=1)
        until(lambda: place.one().ready == 1, "r2 is there again")
        time.sleep(0.2)
    assert load.report["failed"] == 0, load.report
    assert set(load.report["revisions"]) == {"r1", "r2"}
    assert "r2 is started again" in caught.value.what
    assert place.ask() == "new"
    # Never two at once: each start came after the end of what was before.
    steps = [(one["step"], one["message"]) for one in connect(place.home).get("/v1/deployments/tiny/events")["events"]]
    first_end = next(index for index, step in enumerate(steps) if step[0] == "exited")
    second_start = [index for index, step in enumerate(steps) if step[0] == "start"][1]
    assert first_end < second_start


def test_a_swap_is_chosen_where_two_do_not_fit_and_survives_the_daemons_end(place, monkeypatch):
    monkeypatch.setenv("CORTEN_MEMORY_MB", "24")  # one tiny replica takes about 15
    up(place, least=1, ANSWER="old")
    killer = threading.Timer(0.25, os.kill, (place.daemon_pid(), signal.SIGKILL))
    killer.start()
    up(place, least=1, ANSWER="new", LOAD_S=0.5)
    killer.join()
    assert place.ask() == "new"
    assert why("tiny", home=place.home).decisions[-1].message == "r2 serves"
    assert next(one for one in why("tiny", home=place.home).decisions if one.message == "r1 to r2").data["swap"]


def test_a_rollback_wakes_the_revision_that_was_kept_frozen(place):
    up(place, least=1, ANSWER="first")
    first = place.pids()
    up(place, least=1, ANSWER="second")
    until(lambda: {each.state for each in place.one().replicas} == {"ready", "frozen"}, "the first one is frozen")
    with Load(place) as load:
        for answer in ("first", "second", "first"):
            rollback("tiny", home=place.home)
            assert place.ask() == answer
            until(lambda: {each.state for each in place.one().replicas} == {"ready", "frozen"}, "the other is frozen")
    assert load.report["failed"] == 0, load.report
    assert place.pids() == first


def running(place):
    return sum(bool(each.pid) for one in status(home=place.home).deployments for each in one.replicas)


def test_ten_deployments_take_turns_in_memory_for_three(place, monkeypatch):
    monkeypatch.setenv("CORTEN_MEMORY_MB", "60")  # one takes about 15
    names = [f"m{number}" for number in range(10)]
    rest = Rest(freeze_after_s=2.0)
    for name in names:
        settings = Settings(replicas=0, most_replicas=1, rest=rest, env={"ANSWER": name})
        deploy(place.image, name, settings, home=place.home, port=place.port)
    for name in random.Random(5).choices(names, k=8):
        assert predict(name, {}, home=place.home)["outputs"] == name
        until(lambda: running(place) <= 4, "who gave way has ended")
    told = [line.message for name in names for line in why(name, home=place.home).decisions]
    assert any(message.endswith("needs its memory") for message in told)
