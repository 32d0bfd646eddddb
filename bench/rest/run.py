"""How long the first request waits at a deployment at rest, and what kills, swaps and rollbacks cost requests.

`python bench/rest/run.py [--times 20]` prints JSON: real processes, real Envoy, a home of its own that is gone at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from corten.core.home import Home
from corten.core.rest import Strategy
from corten.ops.change import rollback
from corten.ops.status import status
from corten.ops.stop import stop
from corten.ops.up import up
from corten.testing.load import Load, Report

FROZEN_BAR_MS, STOPPED_BAR_MS, ROLLBACK_BAR_MS = 20.0, 300.0, 1000.0
RATE_PER_S = 100
MODEL = """
class Echo:
    def predict(self, x: float) -> float:
        return x * {factor}
"""
SETTINGS = """
name = "echo"
source = "echo.py:Echo"
replicas = "{replicas}"
freeze_after_s = 0.3
stop_after_s = {stop_after_s}
"""


class Place:
    """A home, a port and a project that is rewritten for each deploy."""

    def __init__(self, root: Path, port: int) -> None:
        self.home, self.port, self.project = Home(root / "home"), port, root / "project"
        self.project.mkdir()
        self.home.root.mkdir(mode=0o755)

    def up(self, *, factor: int = 1, replicas: str = "1", stop_after_s: float = 3600, strategy: Strategy | None = None):
        (self.project / "echo.py").write_text(MODEL.format(factor=factor))
        (self.project / "corten.toml").write_text(SETTINGS.format(replicas=replicas, stop_after_s=stop_after_s))
        return up(self.project, home=self.home, port=self.port, strategy=strategy)

    def one(self):
        return status("echo", home=self.home).deployments[0]

    def ready_pid(self) -> int:
        """The process of the one that takes requests; 0 when there is none."""
        one = self.one()
        return next((each.pid for each in one.replicas if each.state == "ready" and one.ready), 0)

    def until(self, state: str) -> None:
        deadline_s = time.monotonic() + 60
        while self.one().state != state:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"not {state} within a minute: {self.one()}")
            time.sleep(0.05)

    def ask_ms(self) -> float:
        """One request on a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        began_s = time.perf_counter()
        connection.request("POST", "/echo/predict", b'{"x": 1}', {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"status {answer.status}")
        return (time.perf_counter() - began_s) * 1e3


@contextlib.contextmanager
def place() -> Iterator[Place]:
    root = Path(tempfile.mkdtemp(prefix="corten-rest-", dir="/tmp"))
    root.chmod(0o755)  # replicas run as another user
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Place(root, port)
    try:
        yield here
    finally:
        stop(home=here.home)
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def load(here: Place) -> Iterator[dict[str, object]]:
    """100 requests a second, open loop, in a thread of their own; the report is in the dictionary afterwards."""
    told: dict[str, object] = {}
    ending = threading.Event()

    async def main() -> Report:
        running = Load(
            here.port, "/echo/predict", b'{"x": 1}', rate_per_s=RATE_PER_S, headers={"content-type": "application/json"}
        ).start()
        await asyncio.get_running_loop().run_in_executor(None, ending.wait)
        return await running.stop()

    def work() -> None:
        told.update(asyncio.run(main()).as_dict())

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.5)
    try:
        yield told
    finally:
        time.sleep(0.5)
        ending.set()
        thread.join()


def figures(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median_ms": round(statistics.median(ordered), 1),
        "p90_ms": round(ordered[int(0.9 * (len(ordered) - 1))], 1),
        "max_ms": round(ordered[-1], 1),
        "times": len(ordered),
    }


def summary(told: dict[str, object]) -> dict[str, object]:
    return {key: told[key] for key in ("ok", "failed", "reasons")} | {"max_ms": told["latency_ms"]["max"]}


def waking(here: Place, times: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for state, stop_after_s, rounds in (("frozen", 3600.0, times), ("stopped", 0.35, max(3, times // 2))):
        here.up(replicas="0..1", stop_after_s=stop_after_s)
        first, warm = [], []
        for _ in range(rounds):
            here.until(state)
            time.sleep(0.2)
            first.append(here.ask_ms())
            warm += [here.ask_ms() for _ in range(3)]
        found[state] = {"first": figures(first), "warm": figures(warm)}
    return found


def kills(here: Place, times: int) -> dict[str, object]:
    here.up()
    with load(here) as told:
        for _ in range(times):
            while not (victim := here.ready_pid()):  # 0 would be all of ours
                time.sleep(0.05)
            os.kill(victim, signal.SIGKILL)
            while here.ready_pid() in (0, victim):
                time.sleep(0.05)
            time.sleep(0.5)
    return {"kills": times, **summary(told)}


def swaps(here: Place, times: int) -> dict[str, object]:
    with load(here) as told:
        for number in range(times):
            here.up(factor=100 + number, strategy=Strategy.SWAP)
    return {"swaps": times, **summary(told)}


def rollbacks(here: Place, times: int) -> dict[str, object]:
    here.up(factor=2)
    took = []
    with load(here) as told:
        for _ in range(times):
            while not any(each.state == "frozen" for each in here.one().replicas):
                time.sleep(0.05)
            began_s = time.perf_counter()
            rollback("echo", home=here.home)
            took.append((time.perf_counter() - began_s) * 1e3)
    return {"rollback": figures(took), **summary(told)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    few = max(3, times // 4)
    with place() as here:
        found = {"wake": waking(here, times), "kill -9 of the only replica": kills(here, few)}
        found |= {"hold-and-swap": swaps(here, few), "rollback to the frozen one": rollbacks(here, few)}
    wake = found["wake"]
    verdicts = {
        f"frozen: median <= {FROZEN_BAR_MS:g} ms": wake["frozen"]["first"]["median_ms"] <= FROZEN_BAR_MS,
        f"stopped, no model to load: median <= {STOPPED_BAR_MS:g} ms": wake["stopped"]["first"]["median_ms"]
        <= STOPPED_BAR_MS,
        f"rollback: max <= {ROLLBACK_BAR_MS:g} ms": found["rollback to the frozen one"]["rollback"]["max_ms"]
        <= ROLLBACK_BAR_MS,
        "no request failed": not any(one.get("failed") for one in found.values()),
    }
    print(json.dumps({**found, "met": verdicts}, indent=1))
    return 0 if all(verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
