"""The gateway's driver: keeps it at the newest route table, and knows which one is in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from corten.control.routes import steps
from corten.control.tasks import settle
from corten.core.front import Front
from corten.core.route import RouteTable
from corten.core.traffic import Tally, Traffic
from corten.errors import CortenError, EngineError
from corten.gateway.base import Gateway
from corten.gateway.certificate import Certificate

_log = logging.getLogger(__name__)
_APPLY_TIMEOUT_S = 15.0
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 20.0
_RETRY_S = 0.5

GatewayMaker = Callable[[Front], Gateway]


class Router:
    """One gateway behind one front. `on_change` is called when another table is in force."""

    def __init__(self, make: GatewayMaker, front: Front, on_change: Callable[[], None]) -> None:
        self.front = front
        self.trouble = ""
        self.in_force = RouteTable()
        self._make = make
        self._gateway: Gateway | None = None
        self._wanted = RouteTable()
        self._on_change = on_change
        self._dirty = asyncio.Event()
        self._lock = asyncio.Lock()

    @property
    def running(self) -> bool:
        """Whether a gateway is driven."""
        return self._gateway is not None

    @property
    def certificate(self) -> Certificate | None:
        """What a gateway that runs shows its clients."""
        found: Certificate | None = getattr(self._gateway, "certificate", None)
        return found

    @property
    def warning(self) -> str:
        """What should be looked after though the gateway serves; empty for nothing."""
        return str(getattr(self._gateway, "warning", ""))

    @property
    def pid(self) -> int:
        """The gateway's process; 0 when there is none, or it is none of this machine's."""
        return int(getattr(self._gateway, "pid", 0) or 0)

    async def start(self, table: RouteTable) -> None:
        """Adopt or start the gateway with this table; nothing when it is driven already. Raises EngineError."""
        async with self._lock:
            if self._gateway is not None:
                return
            self._wanted = table
            await self._begin()

    async def listen(self, front: Front) -> None:
        """Take requests there from now on. Raises EngineError, UsageError: then it is as it was."""
        async with self._lock:
            if front != self.front and self._gateway is not None:
                try:
                    await settle(self._gateway.listen(front), _START_TIMEOUT_S)
                except TimeoutError as error:
                    raise _too_slow("did not take requests elsewhere") from error
            self.front = front

    async def restart(self, *, cold: bool = False) -> None:
        """Another gateway process in the place of this one; `cold`: after it, with connections refused in between.

        Raises EngineError.
        """
        async with self._lock:
            if self._gateway is None:
                raise EngineError("gateway.silent", "there is no gateway to restart", hint="see `corten status`")
            if cold:
                await self._end()
                await self._begin()
                return
            try:
                await settle(self._gateway.restart(), _START_TIMEOUT_S * 2)
            except TimeoutError as error:
                raise _too_slow("was not replaced") from error

    async def _begin(self) -> None:
        gateway = self._make(self.front)
        try:
            await settle(gateway.start(self._wanted), _START_TIMEOUT_S)
        except TimeoutError as error:
            raise _too_slow("did not start") from error
        self._gateway = gateway
        self._in_force(self._wanted)

    def want(self, table: RouteTable) -> None:
        """This table should be in force."""
        self._wanted = table
        if table != self.in_force:
            self._dirty.set()

    async def run(self) -> None:
        """Apply what is wanted, until cancelled; what the gateway refuses is tried again."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            async with self._lock:
                failed = not await self._apply()
            if failed:
                await asyncio.sleep(_RETRY_S)
                self._dirty.set()

    async def _apply(self) -> bool:
        if self._gateway is None:
            return True
        try:
            for table in steps(self.in_force, self._wanted):
                await settle(self._gateway.apply(table), _APPLY_TIMEOUT_S)
                self._in_force(table)
        except (CortenError, TimeoutError) as error:
            self.trouble = str(error) or f"no acknowledgement within {_APPLY_TIMEOUT_S:g} s"
            _log.error("the gateway did not take the routes: %s", self.trouble)
            self._on_change()
            return False
        return True

    def _in_force(self, table: RouteTable) -> None:
        self.in_force = table
        self.trouble = ""
        self._on_change()

    def open_to(self, address: str) -> bool:
        """Whether the table in force lists this upstream for new requests."""
        return any(
            each.address == address and not each.draining
            for route in self.in_force.deployments
            for share in route.revisions
            for each in share.endpoints
        )

    def sends_to(self, address: str) -> bool:
        """Whether it does so with a share of the requests above nothing."""
        return any(
            each.address == address and not each.draining
            for route in self.in_force.deployments
            for share in route.revisions
            if share.weight
            for each in share.endpoints
        )

    async def routable(self, address: str) -> bool:
        """Whether requests may go there now; False when the gateway cannot tell."""
        if self._gateway is None:
            return False
        try:
            return await settle(self._gateway.routable(address), _RETRY_S * 4)
        except (CortenError, TimeoutError):
            return False

    async def in_flight(self, address: str) -> int | None:
        """Requests this upstream is answering; None when the gateway cannot tell."""
        if self._gateway is None:
            return 0
        try:
            return await settle(self._gateway.in_flight(address), _RETRY_S * 4)
        except (CortenError, TimeoutError):
            return None

    async def answers(self) -> Mapping[str, Tally]:
        """What the gateway counted of each upstream, by address; nothing when it cannot tell."""
        if self._gateway is None:
            return {}
        try:
            return await settle(self._gateway.answers(), _RETRY_S * 4)
        except (CortenError, TimeoutError):
            return {}

    async def traffic(self) -> Mapping[tuple[str, str], Traffic] | None:
        """What the gateway counted of each revision; None when it cannot tell."""
        if self._gateway is None:
            return None
        try:
            return await settle(self._gateway.traffic(), _RETRY_S * 4)
        except (CortenError, TimeoutError):
            return None

    def shares(self, deployment: str) -> Mapping[str, int]:
        """The weights in force, by revision label."""
        routes = (route for route in self.in_force.deployments if route.deployment == deployment)
        return {share.revision: share.weight for route in routes for share in route.revisions}

    async def stop(self) -> None:
        """Drain and end the gateway, if there is one."""
        async with self._lock:
            await self._end()
            self._in_force(RouteTable())

    async def _end(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is None:
            return
        try:
            await settle(gateway.stop(), _STOP_TIMEOUT_S)
        except (CortenError, TimeoutError) as error:
            _log.error("the gateway was not ended in order (%s): %s", type(error).__name__, error)

    async def detach(self) -> None:
        """Leave the gateway to itself."""
        async with self._lock:
            gateway, self._gateway = self._gateway, None
            if gateway is not None:
                await settle(gateway.detach(), _STOP_TIMEOUT_S)


def _too_slow(what: str) -> EngineError:
    return EngineError("gateway.start_timeout", f"the gateway {what}", why=f"not within {_START_TIMEOUT_S:g} s")
