"""A gateway that routes nothing: for tests of what drives gateways."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from corten.core.front import Front
from corten.core.route import Endpoint, RouteTable
from corten.core.traffic import Tally, Traffic
from corten.errors import EngineError


@dataclass(slots=True)
class Wire:
    """What outlives a gateway object: the "process". Give the same one to a second gateway to have it adopted.

    `table` is in force, `applied` all that ever were, in order. `unhealthy` upstreams are not routable. `busy` are
    requests by upstream, `answers` what was counted of each, `traffic` by deployment and revision. `apply_s` is how
    long a table takes to be in force. `fail_next` is raised by the next `start` or `apply`.
    """

    running: bool = False
    starts: int = 0
    table: RouteTable = field(default_factory=RouteTable)
    applied: list[RouteTable] = field(default_factory=list)
    unhealthy: set[str] = field(default_factory=set)
    busy: dict[str, int] = field(default_factory=dict)
    traffic: dict[tuple[str, str], Traffic] = field(default_factory=dict)
    answers: dict[str, Tally] = field(default_factory=dict)
    apply_s: float = 0.0
    fail_next: EngineError | None = None
    front: Front | None = None


class MemoryGateway:
    """See `gateway.base.Gateway` for the verbs."""

    def __init__(self, wire: Wire | None = None) -> None:
        self.wire = wire or Wire()

    async def start(self, table: RouteTable) -> None:
        """Adopts a running wire."""
        self._fail()
        if not self.wire.running:
            self.wire.running = True
            self.wire.starts += 1
        self._put(table)

    async def apply(self, table: RouteTable) -> None:
        """In force after `apply_s`."""
        self._fail()
        await asyncio.sleep(self.wire.apply_s)
        if not self.wire.running:
            raise EngineError("gateway.missing", "the gateway is not running")
        self._put(table)

    async def listen(self, front: Front) -> None:
        """Remembered as `wire.front`."""
        self._fail()
        self.wire.front = front

    async def routable(self, address: str) -> bool:
        """Listed, not draining and not among the unhealthy."""
        endpoint = self._endpoints().get(address)
        return endpoint is not None and not endpoint.draining and address not in self.wire.unhealthy

    async def in_flight(self, address: str) -> int:
        """What the test put into `busy`."""
        return self.wire.busy.get(address, 0)

    async def traffic(self) -> Mapping[tuple[str, str], Traffic]:
        """What the test put into `traffic`."""
        return dict(self.wire.traffic)

    async def answers(self) -> Mapping[str, Tally]:
        """What the test put into `answers`."""
        return dict(self.wire.answers)

    async def restart(self) -> None:
        """Counted as a start."""
        self._fail()
        self.wire.starts += 1

    async def stop(self) -> None:
        """Ends the wire."""
        self.wire.running = False
        self.wire.table = RouteTable()

    async def detach(self) -> None:
        """Leaves the wire running."""

    def weights(self, deployment: str) -> Mapping[str, int]:
        """The shares in force, by revision, those without any left out."""
        return {
            share.revision: share.weight
            for route in self.wire.table.deployments
            if route.deployment == deployment
            for share in route.revisions
            if share.weight
        }

    def _put(self, table: RouteTable) -> None:
        self.wire.table = table
        self.wire.applied.append(table)

    def _endpoints(self) -> dict[str, Endpoint]:
        routes = self.wire.table.deployments
        return {each.address: each for route in routes for share in route.revisions for each in share.endpoints}

    def _fail(self) -> None:
        error, self.wire.fail_next = self.wire.fail_next, None
        if error is not None:
            raise error
