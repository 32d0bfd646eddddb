"""When a deployment nobody asks goes to rest, and when it wakes: a pure function.

Awake -> frozen (memory kept, awake again in milliseconds) -> stopped (started again in the time it takes to load).
What takes long to start stays frozen for longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

SHORTEST_S, LONGEST_S = 60.0, 900.0  # without a request, until it is frozen
STARTS = 10  # so many starts could have been made meanwhile
STOP_AFTER = 3  # times as long, until it is stopped


class Tier(Enum):
    """How much of a deployment is there."""

    AWAKE = "awake"
    FROZEN = "frozen"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Quiet:
    """What is seen of a deployment that may rest. Times in seconds.

    `idle_s`: since its last request, or since it woke. `waiting` requests are held. `busy` are in its hands.
    `start_s`: how long a start takes. `freeze_after_s`, `stop_after_s`: the user's word (0: none). `rolling`: a rollout
    goes on.
    """

    tier: Tier
    idle_s: float
    waiting: int = 0
    busy: int = 0
    start_s: float = 0.0
    freeze_after_s: float = 0.0
    stop_after_s: float = 0.0
    rolling: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """What it should be from now on, why (empty: as before), and all that was decided from."""

    tier: Tier
    reason: str
    inputs: Mapping[str, Any]


def freeze_after_s(quiet: Quiet) -> float:
    """Without a request for so long, it is frozen."""
    return quiet.freeze_after_s or min(max(STARTS * quiet.start_s, SHORTEST_S), LONGEST_S)


def stop_after_s(quiet: Quiet) -> float:
    """Without a request for so long, it is stopped; never before it is frozen."""
    return max(quiet.stop_after_s or STOP_AFTER * freeze_after_s(quiet), freeze_after_s(quiet))


def decide(quiet: Quiet) -> Turn:
    """What a deployment should be from now on."""
    frozen_s, stopped_s = freeze_after_s(quiet), stop_after_s(quiet)
    inputs = {
        "idle_s": round(quiet.idle_s, 2),
        "waiting": quiet.waiting,
        "in_flight": quiet.busy,
        "start_s": round(quiet.start_s, 2),
        "freeze_after_s": round(frozen_s, 2),
        "stop_after_s": round(stopped_s, 2),
    }
    if quiet.waiting:
        reason = "" if quiet.tier is Tier.AWAKE else "a request waits"
        return Turn(Tier.AWAKE, reason, inputs)
    if quiet.busy or quiet.rolling:
        return Turn(quiet.tier, "", inputs)
    idle = f"no request for {quiet.idle_s:.0f} s"
    if quiet.tier is not Tier.STOPPED and quiet.idle_s >= stopped_s:
        return Turn(Tier.STOPPED, idle, inputs)
    if quiet.tier is Tier.AWAKE and quiet.idle_s >= frozen_s:
        return Turn(Tier.FROZEN, idle, inputs)
    return Turn(quiet.tier, "", inputs)
