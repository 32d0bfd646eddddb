"""Deployments that are asked by gRPC: what fails there fails behind an answer of 200, and is sent again as the rest is."""

import json
import os
import signal
import subprocess
import threading
import time

import pytest

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network, pytest.mark.curl]

MODEL = """
class Echo:
    def predict(self, x: float) -> float:
        return {answer}
"""
# ModelInferRequest: model_name "echo", one input "x" of FP64 and shape [1], its contents as raw bytes (1.0).
REQUEST = bytes.fromhex("0a046563686f2a0c0a0178120446503634" + "1a0101" + "3a08" + "000000000000f03f")


def call(port, folder):
    """One call; its grpc-status."""
    frame = folder / "request"
    frame.write_bytes(b"\0" + len(REQUEST).to_bytes(4, "big") + REQUEST)
    done = subprocess.run(
        [
            "curl", "-s", "--http2-prior-knowledge", "--max-time", "60", "-o", "/dev/null", "-D", "-",
            "-H", "content-type: application/grpc", "-H", "te: trailers", "-H", "x-corten-deployment: echo",
            "--data-binary", f"@{frame}", f"http://127.0.0.1:{port}/inference.GRPCInferenceService/ModelInfer",
        ],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    found = [line for line in done.stdout.splitlines() if line.startswith("grpc-status:")]
    return found[-1].partition(":")[2].strip() if found else done.stdout + done.stderr


def test_a_canary_that_fails_over_grpc_is_rolled_back(corten, port, tmp_path):
    (tmp_path / "corten.toml").write_text('name = "echo"\nsource = "echo.py:Echo"\ngrpc = true\n')
    (tmp_path / "echo.py").write_text(MODEL.format(answer="x * 2"))
    corten.up(tmp_path, "--port", port)
    assert call(port, tmp_path) == "0"
    (tmp_path / "echo.py").write_text(MODEL.format(answer="x / 0"))
    ended = threading.Event()
    seen = []

    def ask():
        while not ended.is_set():
            seen.append(call(port, tmp_path))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        done = corten.run("up", tmp_path, "--canary", "50,75", "--wait", code=6)
    finally:
        ended.set()
        asking.join()
    assert "r2 was rolled back; r1 serves as before" in done.err
    assert "requests failed" in done.err
    assert set(seen) == {"0", "13"}
    assert call(port, tmp_path) == "0"


SLOW = """
import time

class Echo:
    def predict(self, x: float) -> float:
        time.sleep(0.3)
        return x
"""


def ready_pid(corten):
    """The process of the one replica; 0 while none is ready."""
    replicas = json.loads(corten.run("status", "echo", "--json").out)["deployments"][0]["replicas"]
    return next((each["pid"] for each in replicas if each["state"] == "ready"), 0)


def until(value):
    deadline_s = time.monotonic() + 30
    while not (found := value()):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    return found


def test_calls_in_the_hands_of_the_only_replica_when_it_is_killed_are_answered_by_the_next(corten, port, tmp_path):
    (tmp_path / "corten.toml").write_text('name = "echo"\nsource = "echo.py:Echo"\ngrpc = true\n')
    (tmp_path / "echo.py").write_text(SLOW)
    corten.up(tmp_path, "--port", port)
    ended, seen = threading.Event(), []

    def ask(folder):
        folder.mkdir()
        while not ended.is_set():
            seen.append(call(port, folder))

    asking = [threading.Thread(target=ask, args=(tmp_path / str(number),)) for number in range(4)]
    for thread in asking:
        thread.start()
    try:
        for _ in range(3):
            time.sleep(1.0)  # calls are in its hands
            os.kill(until(lambda: ready_pid(corten)), signal.SIGKILL)
        until(lambda: ready_pid(corten))
        time.sleep(1.0)
    finally:
        ended.set()
        for thread in asking:
            thread.join()
    assert set(seen) == {"0"}
    assert len(seen) > 6
