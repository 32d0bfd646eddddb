"""What a gateway is to the controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from corten.core.front import Front
from corten.core.route import RouteTable
from corten.core.traffic import Tally, Traffic


class Gateway(Protocol):
    """Routes requests by a table. Goes on serving when the process that drives it dies."""

    async def start(self, table: RouteTable) -> None:
        """Adopt the running gateway or start one, serving `table`. Raises EngineError (missing, port taken ...)."""
        ...

    async def apply(self, table: RouteTable) -> None:
        """Make-before-break switch to another table; returns when it is in force. Raises EngineError if refused."""
        ...

    async def listen(self, front: Front) -> None:
        """Take requests there from now on, and nowhere else. Raises EngineError, UsageError, with all as it was."""
        ...

    async def routable(self, address: str) -> bool:
        """Whether requests may go to this upstream now: known to the gateway, healthy, not draining."""
        ...

    async def in_flight(self, address: str) -> int:
        """Requests this upstream is answering now; 0 for an unknown one."""
        ...

    async def traffic(self) -> Mapping[tuple[str, str], Traffic]:
        """What was counted of each revision, by deployment and revision label, since the gateway started."""
        ...

    async def answers(self) -> Mapping[str, Tally]:
        """What was counted of each upstream, by address, since the gateway started or got to know it."""
        ...

    async def restart(self) -> None:
        """Put a new process in the place of the one that runs, without losing a request. Raises EngineError."""
        ...

    async def stop(self) -> None:
        """Drain, then end the gateway process."""
        ...

    async def detach(self) -> None:
        """Let go of the gateway process without ending it."""
        ...
