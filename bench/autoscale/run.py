"""Six loads against the autoscaler and against those of Knative, Kubernetes, Ray Serve and SkyServe, simulated.

    python bench/autoscale/run.py [--seeds 3]

A replica takes 4 requests at a time, a request 0.2 s, a replica 5 s to get ready (30 s in the second load), 16 at most.
Requests arrive by chance (Poisson) and wait in one queue. The others' rules are theirs at their defaults, their targets
mapped to 70 % of the 4 (Ray: 50 %), as read in their sources. Seconds are simulated: nothing here depends on the machine.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from corten.control.autoscale import TICK_S, Bounds, Fleet, Memory, Sample, decide

CONCURRENCY = 4
SERVICE_S = 0.2
MOST = 16
LATE_S = 1.0
TARGET = 0.7 * CONCURRENCY


@dataclass
class World:
    """Replicas with one queue before them. Counters are of all time."""

    rate: Callable[[float], float]
    start_s: float
    chance: random.Random
    now_s: float = 0.0
    ready: int = 1
    starting: list[float] = field(default_factory=list)
    queue: deque[float] = field(default_factory=deque)
    serving: list[tuple[float, float]] = field(default_factory=list)
    arrived: int = 0
    answered: int = 0
    late: int = 0
    busy_s: float = 0.0
    starts: int = 0
    replica_s: float = 0.0

    @property
    def in_flight(self) -> int:
        return len(self.queue) + len(self.serving)

    @property
    def have(self) -> int:
        return self.ready + len(self.starting)

    def want(self, number: int) -> None:
        number = min(max(number, 1), MOST)
        while self.have < number:
            self.starting.append(self.now_s + self.start_s)
            self.starts += 1
        while self.have > number and self.starting:
            self.starting.pop()
        self.ready = min(self.ready, number) if self.have > number else self.ready

    def run(self, until_s: float) -> None:
        while True:
            rate = self.rate(self.now_s)
            arrival_s = self.now_s + (self.chance.expovariate(rate) if rate else math.inf)
            done_s = self.serving[0][0] if self.serving else math.inf
            up_s = min(self.starting, default=math.inf)
            next_s = min(arrival_s, done_s, up_s, self.now_s + 0.5, until_s)
            self.replica_s += (next_s - self.now_s) * self.have
            self.now_s = next_s
            if next_s == done_s:
                _, came_s = heapq.heappop(self.serving)
                self.answered += 1
                self.busy_s += next_s - came_s
                self.late += next_s - came_s > LATE_S
            elif next_s == up_s:
                self.starting.remove(up_s)
                self.ready += 1
            elif next_s == arrival_s:
                self.arrived += 1
                self.queue.append(next_s)
            while self.queue and len(self.serving) < self.ready * CONCURRENCY:
                came_s = self.queue.popleft()
                heapq.heappush(self.serving, (self.now_s + self.chance.expovariate(1 / SERVICE_S), came_s))
            if self.now_s >= until_s:
                return


class Corten:
    tick_s = TICK_S

    def __init__(self, hold_s: float | None = None) -> None:
        self.samples: deque[Sample] = deque(maxlen=int(32 / TICK_S))
        self.memory = Memory()
        self.hold_s = hold_s

    def tick(self, world: World) -> None:
        self.samples.append(Sample(world.now_s, world.answered, world.in_flight, world.busy_s, world.answered))
        fleet = Fleet(world.have, world.ready, world.start_s)
        found = decide(tuple(self.samples), fleet, Bounds(1, MOST, CONCURRENCY), self.memory)
        self.memory = found.memory
        world.want(found.replicas)


class Windows:
    """Means of what was in flight, and of arrivals, over windows."""

    def __init__(self) -> None:
        self.seen: deque[tuple[float, int, int]] = deque()

    def look(self, world: World) -> None:
        self.seen.append((world.now_s, world.in_flight, world.arrived))
        while world.now_s - self.seen[0][0] > 120:
            self.seen.popleft()

    def in_flight(self, now_s: float, window_s: float) -> float:
        return statistics.fmean(each for at_s, each, _ in self.seen if now_s - at_s <= window_s)

    def rate(self, now_s: float, window_s: float) -> float:
        inside = [(at_s, count) for at_s, _, count in self.seen if now_s - at_s <= window_s]
        return (inside[-1][1] - inside[0][1]) / max(window_s, 1e-9)


class Sampled:
    """An autoscaler that looks each second and decides every so often."""

    tick_s = 1.0
    every_s = 2.0

    def __init__(self) -> None:
        self.windows = Windows()
        self.next_s = 0.0

    def tick(self, world: World) -> None:
        self.windows.look(world)
        if world.now_s >= self.next_s:
            self.next_s = world.now_s + self.every_s
            self.decide(world)


class Knative(Sampled):
    """The KPA: knative/serving, pkg/autoscaler/scaling/autoscaler.go."""

    panic_until_s = -1.0
    panic_most = 0

    def decide(self, world: World) -> None:
        stable = math.ceil(self.windows.in_flight(world.now_s, 60) / TARGET)
        panic = math.ceil(self.windows.in_flight(world.now_s, 6) / TARGET)
        stable, panic = (max(each, world.ready // 2) for each in (stable, panic))
        if panic / max(world.ready, 1) >= 2:
            if world.now_s > self.panic_until_s:
                self.panic_most = 0
            self.panic_until_s = world.now_s + 60
        if world.now_s <= self.panic_until_s:
            self.panic_most = max(self.panic_most, panic, world.have)
            world.want(self.panic_most)
        else:
            world.want(stable)


class Hpa(Sampled):
    """HorizontalPodAutoscaler v2 of Kubernetes on a gauge of requests in flight that is 15 s old at most."""

    every_s = 15.0

    def __init__(self) -> None:
        super().__init__()
        self.wishes: deque[tuple[float, int]] = deque()

    def decide(self, world: World) -> None:
        ratio = self.windows.in_flight(world.now_s, 15) / max(world.ready, 1) / TARGET
        wish = world.have if abs(ratio - 1) <= 0.1 else math.ceil(world.ready * ratio)
        self.wishes.append((world.now_s, wish))
        while world.now_s - self.wishes[0][0] > 300:
            self.wishes.popleft()
        if wish > world.have:
            world.want(min(wish, max(world.have + 4, 2 * world.have)))
        else:
            world.want(min(world.have, max(each for _, each in self.wishes)))


class Ray(Sampled):
    """Ray Serve: ongoing requests over 30 s by a target of half; 30 s of wish up, 600 s down; metrics each 10 s."""

    every_s = 10.0
    since_s: float | None = None
    up = False

    def decide(self, world: World) -> None:
        wish = math.ceil(self.windows.in_flight(world.now_s, 30) / (0.5 * CONCURRENCY))
        if wish == world.have:
            self.since_s = None
            return
        if self.since_s is None or self.up != (wish > world.have):
            self.since_s, self.up = world.now_s, wish > world.have
        if world.now_s - self.since_s >= (30 if self.up else 600):
            world.want(wish)
            self.since_s = None


class SkyServe(Sampled):
    """SkyPilot's: arrivals over 60 s by a target; 300 s of wish up, 1200 s down; each 20 s."""

    every_s = 20.0
    since_s: float | None = None
    up = False

    def decide(self, world: World) -> None:
        wish = math.ceil(self.windows.rate(world.now_s, 60) * SERVICE_S / TARGET)
        if wish == world.have:
            self.since_s = None
            return
        if self.since_s is None or self.up != (wish > world.have):
            self.since_s, self.up = world.now_s, wish > world.have
        if world.now_s - self.since_s >= (300 if self.up else 1200):
            world.want(wish)
            self.since_s = None


LOADS: dict[str, tuple[float, float, Callable[[float], float]]] = {
    "step 5 to 100/s": (600, 5, lambda t: 5 if t < 60 else 100),
    "the same, 30 s to start": (600, 30, lambda t: 5 if t < 60 else 100),
    "ramp 5 to 150/s": (420, 5, lambda t: min(150, 5 + max(0, t - 60) * 145 / 300)),
    "20 s bursts of 120/s each 120 s": (900, 5, lambda t: 120 if t % 120 >= 100 else 5),
    "plateau of 100/s, 60 to 360 s": (1500, 5, lambda t: 100 if 60 <= t < 360 else 5),
    "steady 40/s from one replica": (300, 5, lambda _: 40),
}
SCALERS = {"Corten": Corten, "Knative": Knative, "HPA v2": Hpa, "Ray Serve": Ray, "SkyServe": SkyServe}


def life(scaler_name: str, load: str, seed: int) -> dict[str, float]:
    length_s, start_s, rate = LOADS[load]
    world = World(rate, start_s, random.Random(seed))
    scaler = SCALERS[scaler_name]()
    first_start_s = None
    while world.now_s < length_s:
        world.run(min(world.now_s + scaler.tick_s, length_s))
        before = world.starts
        scaler.tick(world)
        if world.starts > before and first_start_s is None and world.now_s > 60:
            first_start_s = world.now_s - 60
    waiting = sum(world.now_s - came_s > LATE_S for came_s in world.queue)
    share = (world.late + waiting) / max(world.arrived, 1)
    return {
        "late": share, "replica_s": world.replica_s, "starts": world.starts, "first_start_s": first_start_s or math.inf
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    for load in LOADS:
        for name in SCALERS:
            lives = [life(name, load, seed) for seed in range(options.seeds)]
            results.setdefault(load, {})[name] = {key: statistics.fmean(one[key] for one in lives) for key in lives[0]}
        told = "  ".join(
            f"{name} {100 * one['late']:5.2f} % {one['replica_s']:6.0f} {one['starts']:4.0f}"
            for name, one in results[load].items()
        )
        print(f"{load:32} {told}", file=sys.stderr)
    better = sum(one["Corten"]["late"] <= min(each["late"] for each in one.values()) for one in results.values())
    print(f"fewest late requests in {better} of {len(results)} loads", file=sys.stderr)
    print(json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
