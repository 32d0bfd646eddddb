"""Memory for replicas: what the machine has left, or what of it the user lets them have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from corten.control.records import ReplicaRecord
from corten.core.deployment import ReplicaState
from corten.errors import UsageError
from corten.observe.host import available_bytes, total_bytes
from corten.observe.memory import tree_bytes

_RESERVE_SHARE = 0.1  # for everything else on the machine
_MB = 10**6
_GROWN = (ReplicaState.READY, ReplicaState.DRAINING, ReplicaState.FROZEN)


@dataclass(slots=True)
class Memory:
    """`budget_bytes` is what all replicas may have together (0: what the machine has but for a tenth).

    What a replica of each deployment takes is learned while one is there, and remembered until the daemon ends.
    `promised` are the replicas that have their room and are about to take it. `held` says what a replica has by its
    process, `available` and `total` what the machine has.
    """

    budget_bytes: int = 0
    held: Callable[[int], int] = tree_bytes
    available: Callable[[], int] = available_bytes
    total: Callable[[], int] = total_bytes
    promised: set[str] = field(default_factory=set)
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
                (self._held(one) for one in records if _is_grown(one) and one.replica.deployment == name), default=0
            ):
                self._sizes[name] = size

    def left_bytes(self, records: Sequence[ReplicaRecord]) -> int:
        """What more replicas can have; below 0 when they have too much. Those that load will take what they do then."""
        free = int(self.available() - _RESERVE_SHARE * self.total())
        if self.budget_bytes:
            free = min(free, self.budget_bytes - sum(map(self._held, records)))
        loading = [one for one in records if one.replica.state is ReplicaState.STARTING and self._has_room(one)]
        return free - sum(max(0, self._sizes.get(one.replica.deployment, 0) - self._held(one)) for one in loading)

    def lacks(self, name: str, records: Sequence[ReplicaRecord]) -> bool:
        """Whether one more replica of a deployment does not fit. False while nobody knows what one takes."""
        return self._sizes.get(name, 0) > self.left_bytes(records)

    def takes_another(self, name: str, records: Sequence[ReplicaRecord]) -> bool:
        """Whether one more would fit if all that is frozen gave way."""
        frozen = sum(self._held(one) for one in records if one.replica.state is ReplicaState.FROZEN)
        return self._sizes.get(name, 0) <= self.left_bytes(records) + frozen

    def room(self, name: str, records: Sequence[ReplicaRecord]) -> int:
        """How many more replicas of a deployment fit beside those of all; one while nobody knows what one takes."""
        size = self._sizes.get(name, 0)
        return max(0, self.left_bytes(records) // size) if size else 1

    def _has_room(self, one: ReplicaRecord) -> bool:
        return bool(one.replica.pid) or one.replica.id in self.promised

    def _held(self, one: ReplicaRecord) -> int:
        return self.held(one.replica.pid) if one.replica.pid else 0


def _is_grown(one: ReplicaRecord) -> bool:
    return one.replica.state in _GROWN
