"""Memory for replicas: what the machine has left, or what of it the user lets them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from corten.control.records import ReplicaRecord
from corten.core.deployment import ReplicaState
from corten.errors import UsageError
from corten.observe.host import available_bytes, resident_bytes, total_bytes

_RESERVE_SHARE = 0.1  # for everything else on the machine
_MB = 10**6
_GROWN = (ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.FROZEN)


@dataclass(frozen=True, slots=True)
class Memory:
    """`budget_bytes` is what all replicas may have together (0: what the machine has but for a tenth)."""

    budget_bytes: int = 0

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """As `CORTEN_MEMORY_MB` says; raises UsageError `control.bad_memory`."""
        text = env.get("CORTEN_MEMORY_MB", "")
        if text and not (text.isascii() and text.isdigit() and int(text) > 0):
            raise UsageError("control.bad_memory", f"CORTEN_MEMORY_MB is `{text[:40]}`", why="expected a number of MB")
        return cls(int(text or 0) * _MB)

    def left_bytes(self, records: Sequence[ReplicaRecord]) -> int:
        """What more replicas can have."""
        free = int(available_bytes() - _RESERVE_SHARE * total_bytes())
        if self.budget_bytes:
            free = min(free, self.budget_bytes - sum(resident_bytes(one.replica.pid) for one in records))
        return max(0, free)

    def scarce(self, records: Sequence[ReplicaRecord]) -> bool:
        """Whether not even one more like the largest would fit."""
        return 0 < largest_bytes(records) > self.left_bytes(records)

    def takes_another(self, name: str, records: Sequence[ReplicaRecord]) -> bool:
        """Whether another replica of a deployment fits beside all there are. True while nobody knows what one takes."""
        own = [one for one in records if one.replica.deployment == name]
        return largest_bytes(own) <= self.left_bytes(records)


def largest_bytes(records: Sequence[ReplicaRecord]) -> int:
    """What the largest replica holds, of those whose model is loaded; 0 when none is."""
    return max((resident_bytes(one.replica.pid) for one in records if _is_grown(one)), default=0)


def _is_grown(one: ReplicaRecord) -> bool:
    return one.replica.pid > 0 and one.replica.state in _GROWN
