"""Who gives memory back when another deployment needs it: a pure choice.

What is kept only to be quick comes first (an earlier revision, then the frozen), then who is awake though nobody asks;
of the same kind the one nobody has asked for longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

LEAST_IDLE_S = 1.0  # an awake one that was asked more recently is in use


class Kind(IntEnum):
    """What can be spared, the first first."""

    FALLBACK = 1  # of the revision before
    FROZEN = 2
    IDLE = 3  # awake, but nobody asks


@dataclass(frozen=True, slots=True)
class Sleeper:
    """What could give its memory back; `idle_s` since it was asked."""

    deployment: str
    kind: Kind
    idle_s: float


def victim(sleepers: Sequence[Sleeper]) -> Sleeper | None:
    """The next that goes; None when nothing can be spared."""
    spared = [one for one in sleepers if one.kind is not Kind.IDLE or one.idle_s >= LEAST_IDLE_S]
    return min(spared, key=lambda one: (one.kind, -one.idle_s, one.deployment), default=None)
