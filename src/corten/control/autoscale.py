"""How many replicas the requests take: a pure function of what was counted.

The load is told in Erlangs (arrivals a second times seconds of service: how many requests would be in a replica's
hands at once if none had to wait), not in requests in flight: a backlog is no load, and must not be taken for one. To
it comes what piled up and what will pile up while new replicas load, divided by the time it may take to be worked off.

One jump up is at most a doubling (or four); the way down is slow, one quarter at a time, and never below what any
moment of the last minutes called for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

TICK_S = 0.5
UTILISATION = 0.7  # of what a replica may have in flight
FAST_S, SLOW_S = (1.0, 2.0), 30.0  # windows of the arrival rates
SIGNIFICANT = 2.0  # standard deviations by which the fast rate must differ to be believed
WORK_OFF_S = 5.0  # in which a backlog should be gone
HOLD_S = 300.0  # what this long ago was needed is still kept
SHRINK_EVERY_S = 5.0
FIRST_START_S = 5.0  # until a replica was seen to start
TIMINGS_LATE_S = 6.0  # the gateway tells times of service up to so much later than counts
NEWEST = 0.2  # weight of the newest time of service in the smoothed one
BUSY_HOST = 0.9  # share of the processors from which on another replica takes from the others


class Direction(Enum):
    """What a decision does."""

    UP = "up"
    DOWN = "down"
    STAY = "stay"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a deployment. `answered` counts since ever, `in_flight` is of now.

    `busy_s` and `timed`: seconds of service and the number of requests they are of, both since ever.
    """

    at_s: float
    answered: int
    in_flight: int
    busy_s: float = 0.0
    timed: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the user allows, `concurrency` in flight a replica; what the machine has: `room` for so many more replicas.

    `host_busy`: the share of the processors that work, 0 to 1.
    """

    least: int
    most: int
    concurrency: int
    room: int = 64
    host_busy: float = 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What the next decision needs of those before it.

    `service_s`: seconds a request takes where none has to wait (0: not known). `needed`: what each moment of the last
    minutes called for. `shrunk_s`: when it last became fewer.
    """

    service_s: float = 0.0
    needed: tuple[tuple[float, int], ...] = ()
    shrunk_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas from now on, why, and all it was made from."""

    replicas: int
    direction: Direction
    reason: str
    inputs: Mapping[str, Any]
    memory: Memory


@dataclass(frozen=True, slots=True)
class Fleet:
    """The replicas there are: `have` wanted, `ready` of them, each ready `start_s` seconds after its start."""

    have: int
    ready: int
    start_s: float = FIRST_START_S


def decide(samples: Sequence[Sample], fleet: Fleet, bounds: Bounds, memory: Memory) -> Decision:
    """How many replicas from now on, from the samples of the last SLOW_S, oldest first, at least one."""
    now, have, ready = samples[-1], fleet.have, fleet.ready
    most_in_flight = bounds.concurrency * max(ready, 1)
    service_s = _service_s(samples, memory.service_s, most_in_flight)
    load = _load(samples, now, service_s)
    queue = max(0, now.in_flight - most_in_flight)
    # Only a queue shows that replicas are too few: what piles up while others load is counted beside it.
    piling = max(0.0, load - most_in_flight) * fleet.start_s / service_s if service_s else 0.0
    backlog = (queue + piling) * service_s / (bounds.concurrency * WORK_OFF_S)
    at_rest = math.ceil(load / (UTILISATION * bounds.concurrency) - 1e-9)
    need = min(max(math.ceil(load / (UTILISATION * bounds.concurrency) + backlog - 1e-9), bounds.least), bounds.most)
    kept = tuple(
        (at_s, number)
        for at_s, number in (*memory.needed, (now.at_s, max(at_rest, bounds.least)))
        if now.at_s - at_s <= HOLD_S
    )
    kept = _fewer(kept)
    hold = min(max(number for _, number in kept), bounds.most)
    inputs = {
        "load": round(load, 3),
        "service_s": round(service_s, 5),
        "in_flight": now.in_flight,
        "queue": queue,
        "need": need,
        "hold": hold,
        "start_s": round(fleet.start_s, 2),
        "host_busy": round(bounds.host_busy, 2),
        "room": bounds.room,
    }
    memory = Memory(service_s, kept, memory.shrunk_s)

    def answer(replicas: int, direction: Direction, reason: str) -> Decision:
        after = Memory(service_s, kept, now.at_s) if direction is Direction.DOWN else memory
        return Decision(replicas, direction, reason, inputs, after)

    if not bounds.least <= have <= bounds.most:
        within = min(max(have, bounds.least), bounds.most)
        return answer(within, Direction.UP if within > have else Direction.DOWN, "the bounds say so")
    if need > have:
        wanted = min(need, max(2 * have, have + 4))
        allowed = min(wanted, have + max(bounds.room, 0))
        told = f"{load:.1f} requests at a time" + (f", {queue} waiting" if queue else "")
        if allowed <= have:
            return answer(have, Direction.STAY, f"{told}; no memory for another replica")
        if bounds.host_busy >= BUSY_HOST and ready >= have:
            return answer(have, Direction.STAY, f"{told}; the processors are busy, another replica would not help")
        return answer(allowed, Direction.UP, told)
    if hold < have and not queue and ready >= have and now.at_s - memory.shrunk_s >= SHRINK_EVERY_S:
        fewer = max(hold, have - max(1, have // 4))
        return answer(fewer, Direction.DOWN, f"never more than {hold} were needed in {HOLD_S / 60:g} minutes")
    return answer(have, Direction.STAY, "")


def _service_s(samples: Sequence[Sample], known_s: float, most_in_flight: int) -> float:
    """Seconds of service a request, smoothed; believed while nothing waits, for waiting is counted in it."""
    now = samples[-1]
    lately = [each for each in samples if now.at_s - each.at_s <= TIMINGS_LATE_S]
    timed = now.timed - lately[0].timed
    if timed <= 0 or (known_s and any(each.in_flight > most_in_flight for each in lately)):
        return known_s
    seen_s = max(now.busy_s - lately[0].busy_s, 0.0) / timed
    return known_s + NEWEST * (seen_s - known_s) if known_s else seen_s


def _load(samples: Sequence[Sample], now: Sample, service_s: float) -> float:
    """Erlangs: of the slow window, or of a fast one where that is more than chance makes of the slow one."""
    if not service_s:
        return float(now.in_flight)
    load = slow = _rate(samples, now, SLOW_S) * service_s
    for window_s in FAST_S:
        fast = _rate(samples, now, window_s) * service_s
        spread = math.sqrt(max(slow, service_s) * service_s / window_s)
        if fast > slow + SIGNIFICANT * spread:
            load = max(load, fast)
    return load


def _rate(samples: Sequence[Sample], now: Sample, window_s: float) -> float:
    """Arrivals a second: what was answered, and what came and was not yet."""
    before = next((each for each in samples if now.at_s - each.at_s <= window_s + TICK_S / 2), samples[0])
    seconds = now.at_s - before.at_s
    if seconds <= 0:
        return 0.0
    return max(0.0, now.answered + now.in_flight - before.answered - before.in_flight) / seconds


def _fewer(needed: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
    """Without what a later moment outbids: only a rising staircase, seen from the end, can ever be the maximum."""
    kept: list[tuple[float, int]] = []
    for at_s, number in needed:
        while kept and kept[-1][1] <= number:
            kept.pop()
        kept.append((at_s, number))
    return tuple(kept)
