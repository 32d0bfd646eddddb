"""The bars of one machine that the fault matrix does not show: B1 to B4, B7, B8, B10 and B11 of README.md.

`python bench/engine/bars.py [--only B7,B11] [--out FILE]` prints one line a bar on stderr, and JSON; 1 when one is missed. About
five minutes; to be run with nothing else on the machine. B5 is bench/rest, B6 bench/autoscale, B9 tests/simulation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import openloop
from place import Place, Site, beside, send, site, until

from corten.control.client import connect
from corten.errors import CortenError
from corten.ops.change import restart
from corten.ops.gateway import restart_gateway
from corten.ops.stop import stop
from corten.testing.load import Report

SWAPS, SWAP_RATE_PER_S, SWAP_BAR_S = 50, 150.0, 0.15
ANSWERED_BAR_S = 3.0
ASKED = 3000
IDLE_BAR_MB, UP_BAR_S = 130.0, 0.5
HEAVY_S, HEAVY_BAR_MS = 16.0, 10.0
RATES = (250, 500, 1000, 1500, 2000, 3000)
REQUEST = b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n" + b'{"n": 1}'


def told(report: Report) -> dict[str, object]:
    return {
        "failed": report.failed,
        "asked": report.failed + report.ok,
        "slowest_ms": round(report.latency_s(1.0) * 1e3),
        **({"reasons": report.reasons} if report.failed else {}),
    }


def under_load(place: Place, work: Callable[[], object], rate_per_s: float = 0.0) -> Report:
    async def main() -> Report:
        async with place.load(rate_per_s) as load:
            await asyncio.sleep(1)
            await asyncio.to_thread(work)
            await asyncio.sleep(1)
        return load.report

    return asyncio.run(main())


def b1(here: Site) -> dict[str, object]:
    """Fifty redeploys of a single replica, with unary requests and with streams; what a deploy takes beside the start."""
    found: dict[str, object] = {}
    for traffic in ("unary", "stream"):
        place = here.place(traffic)
        place.deploy(1)
        until(place.well)
        over_s: list[float] = []

        def swap(place: Place = place, over_s: list[float] = over_s) -> None:
            for _ in range(SWAPS):
                began_s = time.monotonic()
                restart(place.name, home=place.home)
                over_s.append(time.monotonic() - began_s - start_s(place))

        report = under_load(place, swap, SWAP_RATE_PER_S if traffic == "unary" else 0.0)
        found[traffic] = {**told(report), "beyond_start_s": round(statistics.median(over_s), 3)}
        stop(place.name, home=here.home)
    met = all(one["failed"] == 0 and one["beyond_start_s"] <= SWAP_BAR_S for one in found.values())
    return {**found, "met": met}


def start_s(place: Place) -> float:
    """How long the newest replica took from its start until it was ready."""
    events = connect(place.home).get(f"/v1/deployments/{place.name}/events")["events"]
    ready = [each for each in events if each["step"] == "ready"]
    return float(ready[-1]["data"]["seconds"])


def b2(here: Site) -> dict[str, object]:
    """One of two replicas killed, five times."""

    def kill(place: Place) -> None:
        for _ in range(5):
            send(place.victim().pid, signal.SIGKILL)
            time.sleep(0.3)
            until(place.well)

    return of_two(here, kill)


def b3(here: Site) -> dict[str, object]:
    """One of two replicas stopped by a signal, three times."""

    def hang(place: Place) -> None:
        for _ in range(3):
            victim = place.victim()
            send(victim.pid, signal.SIGSTOP)
            until(lambda victim=victim: place.well() and all(each.id != victim.id for each in place.one().replicas))

    return of_two(here, hang)


def b4(here: Site) -> dict[str, object]:
    """The gateway replaced, and the control daemon killed."""

    def replace(place: Place) -> None:
        restart_gateway(home=place.home)
        for _ in range(3):
            send(place.daemon_pid(), signal.SIGKILL)
            time.sleep(0.5)

    return of_two(here, replace)


def of_two(here: Site, harm: Callable[[Place], None]) -> dict[str, object]:
    place = here.place("unary")
    place.deploy(2)
    until(place.well)
    report = under_load(place, lambda: harm(place))
    return {**told(report), "met": not report.failed and report.latency_s(1.0) <= ANSWERED_BAR_S}


def b7(here: Site) -> dict[str, object]:
    """One connection, one request after the other: through the gateway, and at the replica's own socket."""
    place = here.place("unary")
    place.deploy(1)
    until(place.well)
    address = place.victim().address

    def through() -> socket.socket:
        made = socket.create_connection(("127.0.0.1", place.port))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def direct() -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.connect(address)
        return made

    rounds = [(asked(through, f"/{place.name}/predict"), asked(direct, "/predict")) for _ in range(3)]
    gateway, replica = (min(each) for each in zip(*rounds, strict=True))
    return {
        "gateway_p50_ms": round(gateway, 3),
        "replica_p50_ms": round(replica, 3),
        "added_ms": round(gateway - replica, 3),
        "met": gateway - replica <= 0.27,  # kamal-proxy's, as measured on a machine of this kind
    }


def asked(dial: Callable[[], socket.socket], path: str) -> float:
    """The median time of an answer in milliseconds."""
    request, took_s = REQUEST % path.encode(), []
    with dial() as connection:
        for _ in range(ASKED):
            began_s = time.perf_counter()
            connection.sendall(request)
            if not connection.recv(65536).startswith(b"HTTP/1.1 200"):
                raise SystemExit("not a 200")
            took_s.append(time.perf_counter() - began_s)
    return statistics.median(took_s) * 1e3


def b8(here: Site) -> dict[str, object]:
    """Daemon and gateway with one deployment nobody asks, and how long they take to be up (replica and all)."""
    place = here.place("unary")
    stop(home=here.home)
    time.sleep(1)
    began_s = time.monotonic()
    connect(here.home)
    daemon_s = time.monotonic() - began_s
    place.deploy(1)
    up_s = time.monotonic() - began_s - start_s(place)
    until(place.well)
    time.sleep(3)
    weights = {name: memory_mb(pid) for name, pid in (("daemon", place.daemon_pid()), ("gateway", place.gateway_pid()))}
    rss = round(sum(each["rss"] for each in weights.values()), 1)
    pss = round(sum(each["pss"] for each in weights.values()), 1)
    met = rss <= IDLE_BAR_MB and up_s <= UP_BAR_S
    return {**weights, "rss_mb": rss, "pss_mb": pss, "daemon_s": round(daemon_s, 2), "up_s": round(up_s, 2), "met": met}


def memory_mb(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return {
        name.lower(): round(sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024, 1)
        for name in ("Rss", "Pss")
    }


def b10(here: Site) -> dict[str, object]:
    """A new revision whose model cannot be loaded, by the console script: what its user is told, and its clients see."""
    place = here.place("unary")
    place.deploy(2)
    until(place.well)
    before = place.one()
    broken = here.root / "broken.py"
    broken.write_text('class Plain:\n    def __init__(self) -> None:\n        raise RuntimeError("no weights here")\n')
    broken.write_text(broken.read_text() + "\n    def predict(self, n: int) -> int:\n        return n\n")
    words = [sys.executable, "-m", "corten", "up", f"{broken}:Plain", "--name", place.name, "--replicas", "2"]
    done: list[subprocess.CompletedProcess] = []

    def deploy() -> None:
        environment = {"CORTEN_HOME": str(here.home.root), "PATH": "/usr/local/bin:/usr/bin:/bin"}
        done.append(subprocess.run(words, env=environment, capture_output=True, text=True, check=False))

    report = under_load(place, deploy)
    after = place.one()
    reason = "no weights here" in done[0].stderr
    untouched = {each.id for each in before.replicas if each.state == "ready"} <= {each.id for each in after.replicas}
    met = not report.failed and done[0].returncode == 6 and reason and untouched
    return {
        **told(report),
        "exit": done[0].returncode,
        "reason told": reason,
        "old one untouched": untouched,
        "met": met,
    }


def b11(here: Site) -> dict[str, object]:
    """Rollouts of both replicas one after the other, at rising rates: the highest at which p95 rises by 10 ms at most."""
    program = openloop.build(here.root)
    place = here.place("unary")
    place.deploy(2)
    until(place.well)
    highest: dict[str, object] = {"rate": 0}
    rows = []
    for rate_per_s in RATES:
        calm = openloop.load(program, place, rate_per_s, HEAVY_S / 2)
        ended, rollouts = threading.Event(), [0]

        def roll(ended: threading.Event = ended, rollouts: list[int] = rollouts) -> None:
            while not ended.wait(1.0):
                restart(place.name, home=place.home)
                rollouts[0] += 1

        with beside(roll, ended):
            busy = openloop.load(program, place, rate_per_s, HEAVY_S)
        until(place.well)
        rise_ms = round((busy["p95_us"] - calm["p95_us"]) / 1e3, 1)
        row = {"rate": rate_per_s, "held": busy["per_s"], "failed": busy["failed"], "rollouts": rollouts[0]}
        rows.append({**row, "p95_calm_ms": calm["p95_us"] / 1e3, "p95_ms": busy["p95_us"] / 1e3, "rise_ms": rise_ms})
        sys.stderr.write(f"     {rows[-1]}\n")
        if not busy["failed"] and rise_ms <= HEAVY_BAR_MS:
            highest = rows[-1]
        if busy["per_s"] < 0.95 * rate_per_s:
            break
    return {"rows": rows, "highest": highest, "met": bool(highest["rate"]) and not any(each["failed"] for each in rows)}


BARS = {"B1": b1, "B2": b2, "B3": b3, "B4": b4, "B7": b7, "B8": b8, "B10": b10, "B11": b11}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(BARS))
    parser.add_argument("--out", type=Path, help="where to put the JSON (default: stdout)")
    chosen = parser.parse_args()
    found: dict[str, dict[str, object]] = {}
    with site() as here:
        for name in chosen.only.split(","):
            try:
                found[name] = BARS[name](here)
            except CortenError as error:
                found[name] = {"met": False, "error": str(error)}
            line = {key: value for key, value in found[name].items() if key not in ("met", "rows")}
            sys.stderr.write(f"{'ok  ' if found[name]['met'] else 'MISS'} {name:4} {json.dumps(line)}\n")
            sys.stderr.flush()
    text = json.dumps(found, indent=1)
    chosen.out.write_text(text) if chosen.out else print(text)
    return 0 if all(each["met"] for each in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
