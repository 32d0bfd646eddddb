"""What becomes of replicas nobody asks, and of requests nobody can answer yet."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Rest:
    """Times in seconds.

    Where none need be there, the last replica is frozen after `freeze_after_s` without a request and stopped after
    `stop_after_s` (0: by how long it takes to start). A request that finds nobody ready waits up to `hold_s`, at most
    `hold_requests` at a time. One replica of the revision before stays frozen for `keep_previous_s`.
    """

    freeze_after_s: float = 0.0
    stop_after_s: float = 0.0
    hold_s: float = 60.0
    hold_requests: int = 1000
    keep_previous_s: float = 600.0


class Strategy(Enum):
    """How one revision follows another."""

    AUTO = "auto"  # surge, unless two copies do not fit into the memory
    SURGE = "surge"  # the new one is started beside the old
    SWAP = "hold-and-swap"  # requests wait while the old one ends and the new one starts
