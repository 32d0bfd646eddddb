"""What goes wrong: each is a context that does it, and mends what does not mend itself."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from place import Place, beside, send, until

from corten.control.client import Client
from corten.errors import CortenError
from corten.ops.gateway import restart_gateway


@contextlib.contextmanager
def none(place: Place) -> Iterator[None]:
    del place
    yield


@contextlib.contextmanager
def sigkill(place: Place) -> Iterator[None]:
    send(place.victim().pid, signal.SIGKILL)
    yield


@contextlib.contextmanager
def sigstop(place: Place) -> Iterator[None]:
    send(place.victim().pid, signal.SIGSTOP)
    yield


@contextlib.contextmanager
def slow(place: Place) -> Iterator[None]:
    """One replica gets half of its time, in pieces of a twentieth of a second."""
    pid, ended = place.victim().pid, threading.Event()

    def halve() -> None:
        while not ended.wait(0.05):
            send(pid, signal.SIGSTOP)
            ended.wait(0.05)
            send(pid, signal.SIGCONT)

    with beside(halve, ended):
        yield


@contextlib.contextmanager
def errors(place: Place) -> Iterator[None]:
    """One replica answers each prediction with an error of its model, until it is replaced or the operation is over."""
    until(lambda: place.one().ready > 0, 20)  # before it serves there is nothing to answer wrongly
    victim = place.victim()
    mark = Path(victim.address).with_name("broken")
    mark.touch()
    began_s = time.monotonic()
    try:
        yield
        replicas = [each for each in place.one().replicas if each.state == "ready"]
        if len(replicas) > 1 and until(lambda: all(each.id != victim.id for each in place.one().replicas), 20):
            place.notes.append(f"gone after {time.monotonic() - began_s:.1f} s")
    finally:
        mark.unlink(missing_ok=True)  # it may be gone with its replica


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
    """A replica takes 64 MB more with each request, until the kernel ends it at its limit."""
    victim = place.victim()
    before = len(ended_for_memory(place))
    Path(victim.address).with_name("hungry").touch()
    yield
    if not until(lambda: len(ended_for_memory(place)) > before, 10):
        place.notes.append("not ended by the kernel")


def ended_for_memory(place: Place) -> list[str]:
    return [each["message"] for each in journal(place) if each["step"] == "exited" and "memory" in each["message"]]


def journal(place: Place) -> list[dict]:
    """All lines, which are told in parts."""
    found: list[dict] = []
    while True:
        after = found[-1]["seq"] if found else 0
        part = Client(place.home).get(f"/v1/deployments/{place.name}/events", after=after)["events"]
        if not part:
            return found
        found += part


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


def kill_daemon(place: Place) -> None:
    with contextlib.suppress(CortenError):
        send(Client(place.home).get("/v1/status")["pid"], signal.SIGKILL)


@contextlib.contextmanager
def reborn(place: Place, **variables: str) -> Iterator[None]:
    """Another daemon in the place of this one, with these variables; at the end one without."""
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    kill_daemon(place)
    until(lambda: bool(place.daemon_pid()))
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name)
        os.environ.update(before)
        kill_daemon(place)
        until(lambda: bool(place.daemon_pid()))


def wall_clock(place: Place) -> Path:
    return place.home.root.parent / "clock"


def set_clock(place: Place, hours: float) -> None:
    new = wall_clock(place).with_suffix(".new")
    new.write_text(f"{hours * 3600:.0f}\n")
    new.replace(wall_clock(place))  # in one step: nobody reads half of it


@contextlib.contextmanager
def under_another_clock(place: Place) -> Iterator[None]:
    """The daemon's wall clock is what a file says; its steady one stays, as the kernel's does."""
    library = wall_clock(place).with_suffix(".so")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, Path(__file__).with_name("clock.c")], check=True)
    set_clock(place, 0)
    with reborn(place, LD_PRELOAD=str(library), CORTEN_BENCH_CLOCK=str(wall_clock(place))):
        yield


@contextlib.contextmanager
def clock_jump(place: Place) -> Iterator[None]:
    """Seven hours forward, half a second later eleven back, and there the daemon dies: the next one lives in the past."""
    ended = threading.Event()

    def jump() -> None:
        set_clock(place, 7)
        ended.wait(0.5)
        set_clock(place, -4)
        ended.wait(0.5)
        kill_daemon(place)

    with beside(jump, ended):
        yield
    place.notes.append(f"daemon's clock {round((daemon_clock_s(place) - time.time()) / 3600)} h off")
    set_clock(place, 0)


def daemon_clock_s(place: Place) -> float:
    """The time of the daemon's last journal line, by its own clock."""
    return float(journal(place)[-1]["at_s"])


@contextlib.contextmanager
def daemon_killed(place: Place) -> Iterator[None]:
    """Eight times, at random moments of the operation."""
    chance, ended = random.Random(7), threading.Event()

    def kill() -> None:
        for _ in range(8):
            if ended.wait(chance.uniform(0.02, 0.4)):
                return
            kill_daemon(place)

    with beside(kill, ended):
        yield


def dying_mark(place: Place) -> Path:
    return place.home.root.parent / "dying"


@contextlib.contextmanager
def mortal(place: Place) -> Iterator[None]:
    """The daemon is one that can be told to die at each line of its journal (inside/sitecustomize.py)."""
    with reborn(place, PYTHONPATH=inside(), CORTEN_BENCH_DYING=str(dying_mark(place))):
        yield


def inside() -> str:
    return os.pathsep.join(filter(None, (str(Path(__file__).parent / "inside"), os.environ.get("PYTHONPATH"))))


@contextlib.contextmanager
def daemon_killed_at_each_line(place: Place) -> Iterator[None]:
    mark = dying_mark(place)
    mark.touch()
    began_s = time.monotonic()
    try:
        yield
        until(place.well)
    finally:
        deaths = mark.stat().st_size
        mark.unlink()
        place.notes.append(f"{deaths} deaths in {time.monotonic() - began_s:.1f} s")


@contextlib.contextmanager
def replaceable(place: Place) -> Iterator[None]:
    """A gateway that was replaced has three seconds for its last answers, not ten minutes: so it can be each time."""
    with reborn(place, PYTHONPATH=inside(), CORTEN_BENCH_HANDOVER_S="2"):
        restart_gateway(cold=True, home=place.home)
        yield
    restart_gateway(cold=True, home=place.home)


@contextlib.contextmanager
def gateway_restarted(place: Place) -> Iterator[None]:
    """Another Envoy in the place of this one."""

    def done() -> bool:  # refused while the one before still answers what came to it in the cell before
        found = restart_gateway(home=place.home)
        return bool(found["was"] != found["pid"])

    if not until(done, 20):
        place.notes.append("not restarted")
    yield


@dataclass(frozen=True)
class Fault:
    """`around` is what all its cells live in; an `early` one is there before the operation begins."""

    inject: Callable[[Place], contextlib.AbstractContextManager[None]]
    around: Callable[[Place], contextlib.AbstractContextManager[None]] = none
    early: bool = False


FAULTS = {
    "none": Fault(none),
    "SIGKILL": Fault(sigkill),
    "SIGSTOP": Fault(sigstop),
    "slow": Fault(slow),
    "5xx": Fault(errors),
    "half-open": Fault(half_open),
    "OOM": Fault(out_of_memory),
    "disk full": Fault(disk_full, early=True),  # it must not begin what it cannot write down
    "clock jump": Fault(clock_jump, under_another_clock),
    "daemon killed": Fault(daemon_killed),
    "daemon killed at each line": Fault(daemon_killed_at_each_line, mortal, early=True),
    "gateway restart": Fault(gateway_restarted, replaceable),
}
