"""What the replicas of a deployment are at that take requests: of them, of the gateway, of the kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from corten.control.care import PROBE_TIMEOUT_S
from corten.control.router import Router
from corten.control.state import State
from corten.core.deployment import Replica, ReplicaState


@dataclass(frozen=True, slots=True)
class Ready:
    """Asked by a deployment's name. `jobs` asks a replica for asynchronous jobs, `gone` the kernel for a process."""

    state: State
    router: Router
    jobs: Callable[..., Awaitable[int]]
    gone: Callable[[int], bool]

    async def is_working(self, name: str) -> bool:
        """Whether some replica is at asynchronous jobs, of which the gateway knows nothing."""
        asked = (self.jobs(one.address, timeout_s=PROBE_TIMEOUT_S) for one in self._in(name, ReplicaState.READY))
        return any(await asyncio.gather(*asked))

    def loses_one(self, name: str) -> bool:
        """Whether the process of some replica that has requests is gone."""
        own = self._in(name, ReplicaState.READY, ReplicaState.DRAINING)
        return any(one.pid and self.gone(one.pid) for one in own)

    async def busiest(self, name: str) -> int:
        """How many requests the replica is answering that has most."""
        ready = self._in(name, ReplicaState.READY)
        return max([await self.router.in_flight(one.address) or 0 for one in ready], default=0)

    async def reaches(self, name: str, revision: str) -> bool:
        """Whether the gateway takes some replica of a revision (`r1`) for well."""
        for one in self._in(name, ReplicaState.READY):
            if f"r{one.revision}" == revision and await self.router.routable(one.address):
                return True
        return False

    def _in(self, name: str, *states: ReplicaState) -> list[Replica]:
        return [one.replica for one in self.state.replicas(name) if one.replica.state in states]
