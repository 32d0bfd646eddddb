"""Faults in the middle of operations, with requests coming all the time: how many failed.

`python bench/engine/run.py [--faults a,b] [--operations a,b] [--traffic a,b]` prints a table on stderr and JSON on stdout, and
ends with 1 when a bar is missed. Real processes, real Envoy, an open-loop load; a home of its own that is gone at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corten.control.client import LOST, Client
from corten.core.canary import Canary
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.process import ProcessId
from corten.core.resources import Resources
from corten.errors import CortenError
from corten.ops.change import promote, restart
from corten.ops.deploy import deploy
from corten.ops.status import status
from corten.ops.stop import stop
from corten.ops.up import up
from corten.testing.load import Load, Report

RATE_PER_S = {"unary": 100.0, "stream": 20.0, "upload": 20.0}
BODY = {"unary": b'{"n": 1}', "stream": b'{"n": 1}', "upload": json.dumps({"n": 1, "text": "x" * 1_000_000}).encode()}
SLOWEST_S = 3.0
BEFORE_S, AFTER_S, HEALED_S = 1.0, 1.0, 60.0
MEMORY_BYTES = 160 << 20
MODEL = """
import asyncio
from collections.abc import AsyncIterator

class Stepper:
    async def predict(self, n: int, text: str = "") -> AsyncIterator[int]:
        for step in range(10):
            await asyncio.sleep(0.03)
            yield n + step

class Plain:
    def predict(self, n: int, text: str = "") -> int:
        if n < 0:
            self.held = [bytearray(1 << 20) for _ in range(-n)]
        return n + len(text)
"""


@dataclass
class Place:
    """One deployment under one kind of traffic."""

    home: Home
    port: int
    traffic: str
    image: Digest

    @property
    def name(self) -> str:
        return "stepper" if self.traffic == "stream" else "plain"

    def deploy(self, replicas: int, *, least: int | None = None, canary: Canary | None = None, mark: str = "") -> None:
        settings = Settings(
            replicas=replicas if least is None else least,
            most_replicas=0 if least is None else replicas,
            canary=canary or Canary(),
            env={"MARK": mark},
            resources=Resources(memory_bytes=MEMORY_BYTES),
            drain_s=10,
        )
        deploy(self.image, self.name, settings, home=self.home, port=self.port)

    def one(self):
        return next(each for each in status(home=self.home).deployments if each.name == self.name)

    def pids(self) -> list[int]:
        return [each.pid for each in self.one().replicas if each.pid and each.state == "ready"]

    def well(self) -> bool:
        one = self.one()
        return one.ready >= one.wanted and one.state == "serving"

    def load(self) -> Load:
        return Load(
            self.port,
            f"/{self.name}/predict",
            BODY[self.traffic],
            rate_per_s=RATE_PER_S[self.traffic],
            headers={"content-type": "application/json"},
        )

    def daemon_pid(self) -> int:
        return int(status(home=self.home).parts["daemon"]["pid"])


# What is done meanwhile. Each begins with two replicas ready.


def redeploy(place: Place) -> None:
    restart(place.name, home=place.home)


def canary(place: Place) -> None:
    place.deploy(2, canary=Canary((50,)), mark="canary")
    time.sleep(0.5)
    promote(place.name, home=place.home)


def scale_up(place: Place) -> None:
    place.deploy(4)


def scale_down(place: Place) -> None:
    place.deploy(4)
    until(place.well)
    place.deploy(2)


def nothing(place: Place) -> None:
    del place
    time.sleep(2)


# What goes wrong in the middle of it: each is given back how to mend it.


@contextlib.contextmanager
def none(place: Place) -> Iterator[None]:
    del place
    yield


@contextlib.contextmanager
def beside(work: Callable[[], None], ended: threading.Event) -> Iterator[None]:
    """Work in a thread that is told of the end by `ended`."""
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def sigkill(place: Place) -> Iterator[None]:
    send(place.pids()[0], signal.SIGKILL)
    yield


@contextlib.contextmanager
def sigstop(place: Place) -> Iterator[None]:
    send(place.pids()[0], signal.SIGSTOP)
    yield


@contextlib.contextmanager
def slow(place: Place) -> Iterator[None]:
    """One replica gets half of its time, in pieces of a twentieth of a second."""
    pid, ended = place.pids()[0], threading.Event()

    def halve() -> None:
        while not ended.wait(0.05):
            send(pid, signal.SIGSTOP)
            ended.wait(0.05)
            send(pid, signal.SIGCONT)

    with beside(halve, ended):
        yield


@contextlib.contextmanager
def half_open(place: Place) -> Iterator[None]:
    """Two hundred clients that send half a request and then nothing."""
    clients = [socket.create_connection(("127.0.0.1", place.port)) for _ in range(200)]
    for client in clients:
        client.sendall(f"POST /{place.name}/predict HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{".encode())
    try:
        yield
    finally:
        for client in clients:
            client.close()


@contextlib.contextmanager
def out_of_memory(place: Place) -> Iterator[None]:
    """A replica is filled up from inside, by its own kernel's means: a process of it that takes all its memory."""
    record = place.home.replicas / next(each.id for each in place.one().replicas if each.pid) / "record.json"
    folders = [Path(each) for each in json.loads(record.read_bytes())["groups"] if "memory" in each]
    if not folders:
        raise SystemExit("no memory cgroups here")
    limit = folders[0] / "memory.limit_in_bytes"
    for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        with contextlib.suppress(OSError):
            (folders[0] / name).write_text(str(1 << 20))  # less than it has: it is ended at its next page
    if limit.exists() and int(limit.read_text()) > 64 << 20:
        pid = place.pids()[0]  # it could not be squeezed
        send(pid, signal.SIGKILL)
    yield


@contextlib.contextmanager
def disk_full(place: Place) -> Iterator[None]:
    filler = place.home.root / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as stream:
        while True:
            stream.write(bytes(1 << 20))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def daemon_killed(place: Place) -> Iterator[None]:
    """Eight times, at random moments of the operation."""
    chance, ended = random.Random(7), threading.Event()

    def kill() -> None:
        for _ in range(8):
            if ended.wait(chance.uniform(0.02, 0.4)):
                return
            with contextlib.suppress(CortenError):
                send(Client(place.home).get("/v1/status")["pid"], signal.SIGKILL)

    with beside(kill, ended):
        yield


OPERATIONS = {
    "nothing": nothing,
    "redeploy": redeploy,
    "canary": canary,
    "scale up": scale_up,
    "scale down": scale_down,
}
FAULTS: dict[str, Callable[[Place], contextlib.AbstractContextManager[None]]] = {
    "none": none,
    "SIGKILL": sigkill,
    "SIGSTOP": sigstop,
    "slow": slow,
    "half-open": half_open,
    "OOM": out_of_memory,
    "disk full": disk_full,
    "daemon killed": daemon_killed,
}
# A stream that had begun cannot be asked of another replica: as many as were under way may fail.
SPARED = {("stream", fault) for fault in ("SIGKILL", "SIGSTOP", "OOM")}


@dataclass(frozen=True)
class Cell:
    fault: str
    operation: str
    traffic: str
    report: Report
    healed: bool
    trouble: str = ""

    @property
    def met(self) -> bool:
        most = RATE_PER_S["stream"] if (self.traffic, self.fault) in SPARED else 0
        slowest_s = 10 * SLOWEST_S if self.fault == "slow" else SLOWEST_S
        return self.healed and self.report.failed <= most and self.report.latency_s(1.0) <= slowest_s

    def as_dict(self) -> dict[str, object]:
        where = {"fault": self.fault, "operation": self.operation, "traffic": self.traffic}
        return {**where, "met": self.met, "healed": self.healed, "trouble": self.trouble, **self.report.as_dict()}


def first(report: Report) -> str:
    """What failed, with the words of the first."""
    return f"{dict(report.reasons)} {report.failures[0].detail[:160]}" if report.failures else ""


def send(pid: int, number: signal.Signals) -> None:
    if process := ProcessId.of(pid):
        process.send(number)


def until(holds: Callable[[], bool], within_s: float = HEALED_S) -> bool:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(CortenError):
            if holds():
                return True
        time.sleep(0.05)
    return False


async def play(place: Place, fault: str, operation: str) -> Cell:
    await asyncio.to_thread(place.deploy, 2)
    if not await asyncio.to_thread(until, place.well):
        raise SystemExit(f"not well before {fault} during {operation}: {place.one()}")
    async with place.load() as load:
        await asyncio.sleep(BEFORE_S)
        trouble = await asyncio.to_thread(both, place, fault, operation)
        healed = await asyncio.to_thread(until, place.well)
        await asyncio.sleep(AFTER_S)
    return Cell(fault, operation, place.traffic, load.report, healed, trouble)


def both(place: Place, fault: str, operation: str) -> str:
    """The operation, and a moment after it began the fault; gives what the operation complained of."""
    trouble: list[str] = []

    def operate() -> None:
        for _ in range(20):  # as a user would who is told that the daemon is gone
            try:
                OPERATIONS[operation](place)
            except CortenError as error:
                trouble.append(f"{error.code}: {error}")
                if error.code == LOST:
                    continue
            return

    thread = threading.Thread(target=operate)
    with contextlib.ExitStack() as stack:
        if fault == "disk full":  # from the first moment on: it must not begin what it cannot write down
            stack.enter_context(FAULTS[fault](place))
        thread.start()
        if fault != "disk full":
            time.sleep(0.3)
            stack.enter_context(FAULTS[fault](place))
        thread.join(120)
        time.sleep(1)
    return "; ".join(trouble)[:300]


def mounted(root: Path) -> bool:
    """A small disk for the home, so that it can be filled."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200m,mode=0755", "tmpfs", str(root)]
    return os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument("--traffic", default="unary,stream,upload")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nothing is left behind then either
    root = Path(tempfile.mkdtemp(prefix="corten-bench-engine-", dir="/tmp"))
    root.chmod(0o755)
    small = mounted(root)
    cells: list[Cell] = []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = Home(root / "home")
    (root / "model.py").write_text(MODEL)
    try:
        for traffic in chosen.traffic.split(","):
            kind = "Stepper" if traffic == "stream" else "Plain"
            built = up(f"{root / 'model.py'}:{kind}", home=home, port=port).built.digest
            place = Place(home, port, traffic, built)
            for fault in chosen.faults.split(","):
                if fault == "disk full" and not small:
                    continue
                for operation in chosen.operations.split(","):
                    cell = asyncio.run(play(place, fault, operation))
                    cells.append(cell)
                    report = cell.report
                    sys.stderr.write(
                        f"{'ok  ' if cell.met else 'MISS'} {traffic:7} {fault:14} {operation:10} {report.failed:4} of "
                        f"{report.ok + report.failed:5} failed, slowest {report.latency_s(1.0):6.3f} s "
                        f"{first(report)} {'' if cell.healed else 'NOT HEALED'} {cell.trouble}\n"
                    )
                    sys.stderr.flush()
            stop(place.name, home=home)
        table(cells)
    finally:
        with contextlib.suppress(CortenError):
            stop(home=home)
        if small:
            subprocess.run(["umount", "-l", str(root)], check=False)
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps([cell.as_dict() for cell in cells], indent=1))
    return 0 if all(cell.met for cell in cells) else 1


def table(cells: list[Cell]) -> None:
    """Failed requests, of all that were sent."""
    for traffic in dict.fromkeys(cell.traffic for cell in cells):
        mine = [cell for cell in cells if cell.traffic == traffic]
        operations = list(dict.fromkeys(cell.operation for cell in mine))
        sys.stderr.write(f"\n| {traffic} | " + " | ".join(operations) + " |\n|---|" + "--:|" * len(operations) + "\n")
        for fault in dict.fromkeys(cell.fault for cell in mine):
            row = {cell.operation: cell.report for cell in mine if cell.fault == fault}
            words = [f"{row[each].failed} of {row[each].ok + row[each].failed}" for each in operations]
            sys.stderr.write(f"| {fault} | " + " | ".join(words) + " |\n")


if __name__ == "__main__":
    sys.exit(main())
