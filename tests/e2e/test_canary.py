"""A new revision on a share of the requests: what becomes of it, and of the requests."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from stories import Load, ask, until

from corten.core.home import Home
from corten.ops.status import status

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network]

MODEL = """
class Echo:
    def predict(self, x: float) -> float:
        return {answer}
"""


@pytest.fixture
def echo(tmp_path):
    """Write the model anew: `echo("x * 2")`."""

    def write(answer):
        path = tmp_path / "echo.py"
        path.write_text(MODEL.format(answer=answer))
        return f"{path}:Echo"

    return write


def test_a_broken_canary_is_rolled_back_after_a_handful_of_requests(corten, port, echo):
    url = corten.up(echo("x * 2"), "--name", "echo", "--port", port)["url"]
    with Load(url, {"x": 1.0}) as load:
        done = corten.run("up", echo("x / 0"), "--name", "echo", "--canary", "auto", "--wait", code=6)
    assert "r2 was rolled back; r1 serves as before" in done.err
    assert 1 <= load.report["failed"] <= 10, load.report  # each is asked twice, and both count
    assert corten.deployment("echo")["revision"] == "r1"
    why = corten.run("why", "echo").out
    assert "r2 given up" in why
    assert "log-likelihood ratio" in why
    assert ask(url, {"x": 2.0}) == (200, {"outputs": 4.0})


def test_a_canary_that_does_well_gets_all_requests_and_none_fails_though_the_daemon_dies_twice(corten, port, echo):
    url = corten.up(echo("x * 2"), "--name", "echo", "--port", port)["url"]
    home = Home(corten.home)

    def kill_the_daemon_at(share):
        # Asked within this process: a command each time takes so long on a busy machine that the share has moved on.
        until(lambda: status("echo", home=home).deployments[0].rollout["share"] == share, f"a share of {share} %")
        os.kill(corten.daemon_pid(), signal.SIGKILL)

    def kill_twice():
        kill_the_daemon_at(30)
        kill_the_daemon_at(60)

    with Load(url, {"x": 1.0}) as load, ThreadPoolExecutor(1) as beside:
        killing = beside.submit(kill_twice)
        done = corten.up(echo("x * 3"), "--name", "echo", "--canary", "30,60", "--wait")
        killing.result()
    assert (done["revision"], done["share"]) == ("r2", 100)
    assert load.report["failed"] == 0, load.report
    shares = [
        one["data"]["share"] for one in corten.run("why", "echo", "--json").json["decisions"] if one["step"] == "canary"
    ]
    assert shares == [60, 100]
    assert ask(url, {"x": 2.0}) == (200, {"outputs": 6.0})


def test_a_canary_of_the_users_own_stays_until_the_user_says_otherwise(corten, port, echo):
    url = corten.up(echo("x * 2"), "--name", "echo", "--port", port)["url"]
    done = corten.up(echo("x * 3"), "--name", "echo", "--canary", "50%")
    assert (done["revision"], done["share"]) == ("r2", 50)
    answers = {ask(url, {"x": 1.0})[1]["outputs"] for _ in range(40)}
    assert answers == {2.0, 3.0}
    status = corten.run("status").out
    assert "r2 has 50 % of the requests" in status
    back = corten.run("rollback", "echo", "--json").json
    assert back["revision"] == "r1"
    until(lambda: {ask(url, {"x": 1.0})[1]["outputs"] for _ in range(20)} == {2.0}, "r1 has all requests")
    corten.up(echo("x * 4"), "--name", "echo", "--canary", "10%")
    promoted = corten.run("promote", "echo", "--json").json
    assert (promoted["revision"], promoted["share"]) == ("r3", 100)
    assert ask(url, {"x": 1.0}) == (200, {"outputs": 4.0})
    done = corten.run("promote", "echo", code=3)
    assert "control.no_canary" in done.err


def test_a_mirrored_revision_is_compared_and_answers_nobody(corten, port, echo):
    url = corten.up(echo("x * 2"), "--name", "echo", "--port", port)["url"]
    done = corten.up(echo("x * 2 if x < 5 else x * 3"), "--name", "echo", "--mirror", "100")
    assert (done["revision"], done["share"]) == ("r2", 0)

    def compared():
        return corten.deployment("echo")["rollout"]["compared"] or {"same": 0, "differing": 0, "failed": 0}

    def ask_until(x, what):
        def asked_and_found():
            assert ask(url, {"x": x}) == (200, {"outputs": x * 2})
            return compared()[what] >= 3

        until(asked_and_found, what)

    ask_until(1.0, "same")
    ask_until(7.0, "differing")
    found = compared()
    assert (found["failed"], found["at"], found["largest"]) == (0, "outputs", 7.0)
    assert "r2 gets copies of 100 % of the requests; of " in corten.run("status").out
    # With the serving replica dead, the one in the shadow stands in for nobody; the daemon's death loses little.
    os.kill(corten.daemon_pid(), signal.SIGKILL)
    assert compared()["differing"] >= found["differing"] - 3
    (serving,) = (each for each in corten.deployment("echo")["replicas"] if each["revision"] == "r1")
    os.kill(serving["pid"], signal.SIGKILL)
    answers = []
    until(lambda: answers.append(ask(url, {"x": 7.0})[0:2]) or answers[-1][0] == 200, "r1 is back")
    assert {document["outputs"] for status, document in answers if status == 200} == {14.0}
    promoted = corten.run("promote", "echo", "--to", "50", "--json").json
    assert promoted["share"] == 50
    until(lambda: {ask(url, {"x": 7.0})[1]["outputs"] for _ in range(20)} == {14.0, 21.0}, "both answer")
    told = [one for one in corten.run("why", "echo", "--json").json["decisions"] if one["step"] == "canary"]
    assert told[-1]["data"]["compared"]["differing"] >= 1
