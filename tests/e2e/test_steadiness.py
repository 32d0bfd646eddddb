"""What may happen to a running service, with load on it: not one request fails."""

import json
import os
import signal
import time

import pytest
from stories import RATE_PER_S, Load, ask, until

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network, pytest.mark.examples]


def body_of(digits_model):
    return {"inputs": digits_model["rows"][:1].tolist()}


def test_a_redeploy_loses_no_request_and_ends_on_the_new_model(corten, port, digits_model):
    first, second = digits_model["paths"]
    url = corten.up(first, "--replicas", "2", "--port", port)["url"]
    with Load(url, body_of(digits_model)) as load:
        again = corten.up(second, "--replicas", "2")
    assert again["revision"] == "r2"
    assert load.report["failed"] == 0, load.report
    assert load.report["ok"] >= RATE_PER_S
    assert set(load.report["revisions"]) == {"r1", "r2"}
    status, answer = ask(url, {"inputs": digits_model["rows"].tolist()})
    assert status == 200
    assert answer["outputs"] == digits_model["models"][1].predict(digits_model["rows"]).tolist()


def test_redeploying_a_single_replica_loses_no_request(corten, port, digits_model):
    first, second = digits_model["paths"]
    url = corten.up(first, "--port", port)["url"]
    with Load(url, body_of(digits_model)) as load:
        for path in (second, first, second):
            corten.up(path)
    assert load.report["failed"] == 0, load.report


def test_killing_one_of_two_replicas_loses_no_request_and_it_comes_back(corten, port, digits_model):
    url = corten.up(digits_model["paths"][0], "--replicas", "2", "--port", port)["url"]
    victim = corten.deployment("digits")["replicas"][0]
    with Load(url, body_of(digits_model)) as load:
        os.kill(victim["pid"], signal.SIGKILL)
        until(
            lambda: (
                (now := corten.deployment("digits"))["ready"] == 2
                and victim["pid"] not in [replica["pid"] for replica in now["replicas"]]
            ),
            "a replacement is ready",
        )
    assert load.report["failed"] == 0, load.report


def test_killing_the_daemon_leaves_the_service_answering_and_status_adopts_it(corten, port, digits_model):
    url = corten.up(digits_model["paths"][0], "--replicas", "2", "--port", port)["url"]
    before = corten.run("status", "--json").json
    with Load(url, body_of(digits_model)) as load:
        os.kill(before["daemon"]["pid"], signal.SIGKILL)
        time.sleep(4)
        after = corten.run("status", "--json").json
    assert load.report["failed"] == 0, load.report
    assert after["daemon"]["pid"] != before["daemon"]["pid"]
    assert after["gateway"]["pid"] == before["gateway"]["pid"]
    pids = [[replica["pid"] for replica in seen["deployments"][0]["replicas"]] for seen in (before, after)]
    assert sorted(pids[0]) == sorted(pids[1])
    assert after["deployments"][0]["ready"] == 2
    # The adopted service can be changed: the daemon really has it in hand.
    assert corten.up(digits_model["paths"][1], "--replicas", "2")["revision"] == "r2"


def test_killing_the_gateway_brings_it_back_on_the_same_port(corten, port, digits_model):
    url = corten.up(digits_model["paths"][0], "--port", port)["url"]
    killed = corten.run("status", "--json").json["gateway"]["pid"]
    os.kill(killed, signal.SIGKILL)

    def answers():
        try:
            return ask(url, body_of(digits_model))[0] == 200
        except OSError:
            return False

    until(answers, "the gateway answers again", deadline_s=10)
    assert corten.run("status", "--json").json["gateway"]["pid"] != killed


def test_a_model_that_cannot_load_never_takes_traffic(corten, port, digits_model, folder):
    url = corten.up(digits_model["paths"][0], "--name", "digits", "--port", port)["url"]
    (folder / "broken.py").write_text(
        "class Broken:\n"
        "    def __init__(self) -> None:\n"
        "        raise RuntimeError('no weights here')\n\n"
        "    def predict(self, text: str) -> str:\n"
        "        return text\n"
    )
    with Load(url, body_of(digits_model)) as load:
        failed = corten.run("up", f"{folder / 'broken.py'}:Broken", "--name", "digits", "--json", code=6)
    error = failed.json["error"]
    assert "no weights here" in json.dumps(error)
    assert error["hint"]
    assert load.report["failed"] == 0, load.report
    assert set(load.report["revisions"]) == {"r1"}
    now = corten.deployment("digits")
    assert now["revision"] == "r1"
    assert now["ready"] == 1


def test_rollback_brings_the_revision_before_back(corten, port, digits_model):
    rows = digits_model["rows"]
    url = corten.up(digits_model["paths"][0], "--port", port)["url"]
    corten.up(digits_model["paths"][1])
    with Load(url, body_of(digits_model)) as load:
        back = corten.run("rollback", "digits", "--json").json
    assert load.report["failed"] == 0, load.report
    assert ask(url, {"inputs": rows.tolist()})[1]["outputs"] == digits_model["models"][0].predict(rows).tolist()
    first = corten.run("status", "--json").json["deployments"][0]
    assert back["revision"] == first["revision"]


def test_a_drill_breaks_it_and_nobody_notices(corten, port, digits_model):
    corten.up(digits_model["paths"][0], "--replicas", "2", "--port", port)
    done = corten.run("drill", "digits", "--only", "hang,daemon", "--rate", RATE_PER_S, "--json").json
    assert [score["scenario"] for score in done["scores"]] == ["hang", "daemon"]
    for score in done["scores"]:
        assert score["passed"], score
        assert score["failed"] == 0
        assert score["ok"] > RATE_PER_S
    why = corten.run("why", "digits", "--json").json["decisions"]
    assert any("stopped by a signal" in each["message"] for each in why)


def test_a_restart_replaces_every_replica_by_the_same_image(corten, port, digits_model):
    corten.up(digits_model["paths"][0], "--replicas", "2", "--port", port)
    before = corten.deployment("digits")
    again = corten.run("restart", "digits", "--json").json
    after = corten.deployment("digits")
    assert again["revision"] == "r2"
    assert after["image"] == before["image"]
    pids = [{replica["pid"] for replica in one["replicas"]} for one in (before, after)]
    assert not pids[0] & pids[1]
