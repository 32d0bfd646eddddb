"""Deployments that rest while nobody asks, and the only replica killed: through the console script, with real models."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin

import pytest
from stories import Load, ask, ask_whole, predict_at, until

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network]

MODEL = """
import time

class Slow:
    def predict(self, seconds: float = 0.0) -> float:
        time.sleep(seconds)
        return seconds
"""
SETTINGS = """
name = "slow"
source = "slow.py:Slow"
replicas = "0..2"
freeze_after_s = 0.7
stop_after_s = {stop_after_s}
grpc = true
"""
GRPC = """
import sys
import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[1], channel_args=[("grpc.default_authority", "slow.localhost")])
assert client.is_server_ready(client_timeout=60)
"""


@pytest.fixture
def project(tmp_path):
    """The model and its settings; call it with the time until it is stopped."""

    def write(stop_after_s):
        (tmp_path / "slow.py").write_text(MODEL)
        (tmp_path / "corten.toml").write_text(SETTINGS.format(stop_after_s=stop_after_s))
        return tmp_path

    return write


def state(corten, name="slow"):
    return corten.deployment(name)["state"]


def test_nobody_asks_it_freezes_a_request_wakes_it_and_a_job_keeps_it_awake(corten, port, project):
    url = corten.up(project(3600), "--port", port)["url"]
    until(lambda: state(corten) == "frozen", "it is frozen")
    assert "nobody asks; the next request wakes it" in corten.run("status").out
    assert ask(url, {"seconds": 0.0}) == (200, {"outputs": 0.0})
    later = {"Prefer": "respond-async", "content-type": "application/json"}
    status, headers, _ = ask_whole("POST", url + "predict", b'{"seconds": 3}', later)
    assert status == 202
    place = urljoin(url + "predict", headers["location"])
    time.sleep(1.5)
    assert state(corten) == "serving"
    status, _, body = ask_whole("GET", place, headers={"Prefer": "wait=20"})
    assert json.loads(body)["status"] == "succeeded"
    until(lambda: state(corten) == "frozen", "it is frozen again")
    assert json.loads(ask_whole("GET", place)[2])["status"] == "succeeded"
    told = corten.run("why", "slow").out
    assert "1 to 0 replicas, frozen: no request for" in told
    assert "0 to 1 replicas: a request waits" in told


def test_on_every_engine_a_request_wakes_what_is_frozen_and_waits_for_what_is_stopped(own, engine, port, project):
    url = own.up(project(3600), "--port", port, "--engine", engine.name)["url"]
    until(lambda: state(own) == "frozen", "it is frozen")
    (asleep,) = own.deployment("slow")["replicas"]
    assert paused(engine) == (engine.name != "embedded")
    with pytest.raises(TimeoutError):
        predict_at(asleep["address"], {"seconds": 0.0}, timeout_s=1)
    assert ask(url, {"seconds": 0.0}) == (200, {"outputs": 0.0})
    (awake,) = own.deployment("slow")["replicas"]
    assert (awake["id"], awake["pid"]) == (asleep["id"], asleep["pid"])

    own.up(project(0.8), "--engine", engine.name)
    until(lambda: state(own) == "stopped", "it is stopped")
    until(lambda: engine.running() == [], "no container runs")
    # One of the revision before may be there, frozen.
    assert {one["state"] for one in own.deployment("slow")["replicas"] if one["revision"] == "r2"} == set()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(url, {"seconds": 0.0}, timeout_s=100), range(4)))
    assert answers == [(200, {"outputs": 0.0})] * 4
    told = own.run("why", "slow").out
    assert "1 to 0 replicas, frozen: no request for" in told
    assert "0 to 1 replicas: a request waits" in told


def paused(engine):
    """Whether a container engine says that the one it has is paused."""
    return bool(engine.containers()) and b'"paused"' in engine.ask("inspect", *engine.containers())


@pytest.mark.clients
def test_a_call_of_grpc_waits_for_one_that_is_stopped(corten, port, project):
    corten.up(project(0.8), "--port", port)
    python = os.environ.get("CORTEN_CLIENTS_PYTHON") or sys.executable
    until(lambda: state(corten) == "stopped", "it is stopped")
    done = subprocess.run(
        [python, "-c", GRPC, f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


def test_kill_9_of_the_only_replica_costs_no_prediction(corten, port, digits_model):
    url = corten.up(digits_model["paths"][0], "--name", "digits", "--port", port)["url"]
    rows = digits_model["rows"][:1].tolist()
    with Load(url, {"inputs": rows}, 8) as load:
        victim = ready_pid(corten)
        os.kill(victim, signal.SIGKILL)
        until(lambda: ready_pid(corten) not in (None, victim), "another one")
    assert load.report["failed"] == 0, load.report


def ready_pid(corten):
    """The process of the one that takes requests; None when there is none."""
    one = corten.deployment("digits")
    return next((each["pid"] for each in one["replicas"] if each["state"] == "ready" and one["ready"]), 0) or None
