"""Memory for replicas: what the machine has left, or what of it the user lets them have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from corten.control.records import ReplicaRecord
from corten.core.deployment import ReplicaState
from corten.errors import UsageError
from corten.observe.host import available_bytes, resident_bytes, total_bytes

_RESERVE_SHARE = 0.1  # for everything else on the machine
_MB = 10**6
_GROWN = (ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.FROZEN)


@dataclass(slots=True)
class Memory:
    """`budget_bytes` is what all replicas may have together (0: what the machine has but for a tenth).

    What a replica of each deployment takes is learned while one is there, and remembered until the daemon ends.
    """

    budget_bytes: int = 0
    _sizes: dict[str, int] = field(default_factory=dict)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """As `CORTEN_MEMORY_MB` says; raises UsageError `control.bad_memory`."""
        text = env.get("CORTEN_MEMORY_MB", "")
        if text and not (text.isascii() and text.isdigit() and int(text) > 0):
            raise UsageError("control.bad_memory", f"CORTEN_MEMORY_MB is `{text[:40]}`", why="expected a number of MB")
        return cls(int(text or 0) * _MB)

    def learn(self, records: Sequence[ReplicaRecord]) -> None:
        """See what those that have loaded take."""
        for name in {one.replica.deployment for one in records}:
            if size := max(
                (_resident(one) for one in records if _is_grown(one) and one.replica.deployment == name), default=0
            ):
                self._sizes[name] = size

    def left_bytes(self, records: Sequence[ReplicaRecord]) -> int:
        """What more replicas can have; below 0 when they have too much. Those that load will take what they do then."""
        free = int(available_bytes() - _RESERVE_SHARE * total_bytes())
        if self.budget_bytes:
            free = min(free, self.budget_bytes - sum(map(_resident, records)))
        loading = [one for one in records if one.replica.state is ReplicaState.STARTING and one.replica.pid]
        return free - sum(max(0, self._sizes.get(one.replica.deployment, 0) - _resident(one)) for one in loading)

    def lacks(self, name: str, records: Sequence[ReplicaRecord]) -> bool:
        """Whether one more replica of a deployment does not fit. False while nobody knows what one takes."""
        return self._sizes.get(name, 0) > self.left_bytes(records)

    def takes_another(self, name: str, records: Sequence[ReplicaRecord]) -> bool:
        """Whether one more would fit if all that is frozen gave way."""
        frozen = sum(_resident(one) for one in records if one.replica.state is ReplicaState.FROZEN)
        return self._sizes.get(name, 0) <= self.left_bytes(records) + frozen


def _resident(one: ReplicaRecord) -> int:
    return resident_bytes(one.replica.pid) if one.replica.pid else 0


def _is_grown(one: ReplicaRecord) -> bool:
    return one.replica.state in _GROWN
