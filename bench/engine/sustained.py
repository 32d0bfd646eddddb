"""Half an hour under load with a new image deployed every twenty seconds: what fails, and what grows.

`python bench/engine/sustained.py [--minutes 30] [--every 20] [--rate N] [--out FILE]` finds the rate the machine holds through
a redeploy (or takes yours), sends it for so long, and prints a verdict; 1 when a request failed or something grows. Needs a C
compiler for the load generator (bench/serve/openloop.c), and ends by itself two minutes after its time at the latest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import openloop
from place import MODEL, Place, Site, beside, site, until

from corten.errors import CortenError
from corten.ops.gc import gc
from corten.ops.up import up

SAMPLE_S, PROBE_S = 10.0, 10.0
COLLECT_EVERY = 5  # redeploys
LEAST, MOST = 200.0, 6400.0
HELD_P99_MS, MARGIN = 500.0, 0.8  # half an hour has worse moments than a dozen seconds
# What may be more in the last quarter of the time than in the second: a share of it, and so much besides.
GROWTH, SLACK = 0.05, {"rss_mb": 3.0, "files": 32, "disk_mb": 8.0, "state_mb": 1.5}
LOGS_MB = 150.0  # two of 64 MB, and what comes until somebody looks


@dataclass(frozen=True)
class Sample:
    """One look. Memory is resident megabytes, of replicas the largest one's; `files` are open descriptors.

    The home is counted without the gateway's logs, which are set aside at 64 MB; the state is the database.
    """

    at_s: float
    daemon_rss_mb: float
    envoy_rss_mb: float
    replica_rss_mb: float
    daemon_files: int
    envoy_files: int
    replica_files: int
    home_disk_mb: float
    logs_mb: float
    state_disk_mb: float
    replicas: int


@dataclass
class Churn:
    """Deploys of a model that is another one each time."""

    here: Site
    place: Place
    every_s: float
    ended: threading.Event = field(default_factory=threading.Event)
    took_s: list[float] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    freed_mb: float = 0.0

    def once(self) -> None:
        number = len(self.took_s) + len(self.trouble) + 1
        (self.here.root / "model.py").write_text(f"{MODEL}\nNUMBER = {number}\n")
        began_s = time.monotonic()
        try:
            up(f"{self.here.root / 'model.py'}:Plain", home=self.here.home, port=self.here.port, replicas=2)
            self.took_s.append(time.monotonic() - began_s)
            if number % COLLECT_EVERY == 0:
                self.freed_mb += gc(home=self.here.home).freed_bytes / 1e6
        except CortenError as error:
            self.trouble.append(str(error))

    def run(self) -> None:
        next_s = time.monotonic()
        while not self.ended.wait(max(0.0, next_s - time.monotonic())):
            self.once()
            next_s += self.every_s


def highest_rate(program: Path, place: Place, churn: Churn) -> float:
    """Four fifths of the rate at which nothing fails and 99 of 100 are answered in half a second, a redeploy included."""
    low, high = LEAST, MOST
    while high / low > 1.15:
        rate_per_s = (low * high) ** 0.5
        with beside(churn.once, threading.Event()):
            found = openloop.load(program, place, rate_per_s, PROBE_S)
        held = not found["failed"] and found["p99_us"] / 1e3 <= HELD_P99_MS and found["per_s"] >= 0.97 * rate_per_s
        sys.stderr.write(f"{rate_per_s:6.0f}/s: {'held' if held else 'not held'}, {json.dumps(found)}\n")
        low, high = (rate_per_s, high) if held else (low, rate_per_s)
    return round(low * MARGIN)


def rss_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    return 0.0


def files(pid: int) -> int:
    with contextlib.suppress(OSError):
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return 0


def disk_mb(folder: Path) -> float:
    """What it takes on disk; hard links once."""
    told = subprocess.run(["du", "-sk", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return int(told.stdout.split()[0]) / 1024


def look(place: Place, at_s: float) -> Sample:
    daemon, envoy = place.daemon_pid(), place.gateway_pid()
    pids = [each.pid for each in place.one().replicas if each.pid]
    logs_mb = sum(each.stat().st_size for each in (place.home.state / "gateway").glob("*.log*")) / (1 << 20)
    return Sample(
        at_s=round(at_s, 1),
        daemon_rss_mb=round(rss_mb(daemon), 1),
        envoy_rss_mb=round(rss_mb(envoy), 1),
        replica_rss_mb=round(max(map(rss_mb, pids), default=0.0), 1),
        daemon_files=files(daemon),
        envoy_files=files(envoy),
        replica_files=max(map(files, pids), default=0),
        home_disk_mb=round(disk_mb(place.home.root) - logs_mb, 1),
        logs_mb=round(logs_mb, 1),
        state_disk_mb=round((place.home.state / "corten.db").stat().st_size / (1 << 20), 2),
        replicas=len(pids),
    )


def watch(place: Place, samples: list[Sample], ended: threading.Event) -> None:
    began_s = time.monotonic()
    while not ended.wait(SAMPLE_S):
        with contextlib.suppress(CortenError, StopIteration, OSError):
            samples.append(look(place, time.monotonic() - began_s))


def growth(samples: Sequence[Sample]) -> dict[str, dict[str, object]]:
    """Of each figure: its medians in the second and in the last quarter, the most, and whether that is flat."""
    quarter = max(1, len(samples) // 4)
    found: dict[str, dict[str, object]] = {}
    for name in asdict(samples[0]):
        kind = {"rss_mb": "rss_mb", "files": "files", "disk_mb": "disk_mb"}.get(name.partition("_")[2])
        if kind is None:
            continue
        values = [asdict(each)[name] for each in samples]
        then, now = statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])
        slack = SLACK["state_mb" if name.startswith("state") else kind]
        found[name] = {
            "second": round(then, 2),
            "last": round(now, 2),
            "most": max(values),
            "flat": now <= then * (1 + GROWTH) + slack,
        }
    return found


def verdict(run: dict, churn: Churn, grown: dict[str, dict[str, object]], samples: Sequence[Sample]) -> list[str]:
    """What is not as it should be."""
    wrong = [f"{run['failed']} requests failed, {run['unsent']} of them never sent"] if run["failed"] else []
    wrong += [f"a redeploy failed: {each}" for each in churn.trouble]
    if (most := max(each.logs_mb for each in samples)) > LOGS_MB:
        wrong.append(f"{most:.0f} MB of logs")
    wrong += [f"{name} grows: {one['second']} to {one['last']}" for name, one in grown.items() if not one["flat"]]
    if run["per_s"] < 0.97 * run["rate"]:
        wrong.append(f"the rate was not held: {run['per_s']} of {run['rate']}/s")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=20.0, metavar="S", help="seconds from one redeploy to the next")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second (default: what the machine holds)")
    parser.add_argument("--out", type=Path, help="where to put the JSON (default: stdout)")
    chosen = parser.parse_args()
    samples: list[Sample] = []
    with site() as here:
        program = openloop.build(here.root)
        place = here.place("unary")
        churn = Churn(here, place, chosen.every)
        churn.once()
        until(place.well)
        rate_per_s = chosen.rate or highest_rate(program, place, churn)
        until(place.well)
        churn.took_s.clear()
        sys.stderr.write(f"{rate_per_s:.0f} requests a second for {chosen.minutes:g} minutes\n")
        watched = threading.Event()
        with beside(churn.run, churn.ended), beside(lambda: watch(place, samples, watched), watched):
            run = openloop.load(program, place, rate_per_s, chosen.minutes * 60)
        healed = until(place.well)
    grown = growth(samples)
    wrong = verdict(run, churn, grown, samples) + ([] if healed else ["not well in the end"])
    took = {"redeploys": len(churn.took_s), "median_s": round(statistics.median(churn.took_s), 2)}
    sys.stderr.write(
        f"{run['failed']} of {rate_per_s * chosen.minutes * 60:.0f} requests failed, p50 {run['p50_us'] / 1e3:.1f} ms, "
        f"p99 {run['p99_us'] / 1e3:.1f} ms, slowest {run['max_us'] / 1e3:.0f} ms; {json.dumps(took)}; "
        f"{churn.freed_mb:.0f} MB collected\n"
    )
    for name, one in grown.items():
        sys.stderr.write(f"{name:16} {one['second']:8} -> {one['last']:8} (most {one['most']})\n")
    sys.stderr.write(("MISSED: " + "; ".join(wrong) if wrong else "MET: nothing failed, nothing grows") + "\n")
    found = {"rate_per_s": rate_per_s, "minutes": chosen.minutes, "load": run, **took, "wrong": wrong, "growth": grown}
    told = json.dumps({**found, "samples": [asdict(each) for each in samples]}, indent=1)
    chosen.out.write_text(told) if chosen.out else print(told)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
