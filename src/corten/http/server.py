"""The server: listeners, the set of connections, one clock, draining."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from corten.http.address import Address
from corten.http.answering import Phase
from corten.http.connection import Connection
from corten.http.limits import Limits
from corten.http.listener import Listener, open_listener
from corten.http.repeated import KnownHeads
from corten.http.request import Handler, HeaderPairs, Request
from corten.http.wire import Heads

_log = logging.getLogger(__name__)
_SWEEP_S = 1.0
_DRAIN_POLL_S = 0.01
_LAST_CHANCE_S = 0.1  # for the request of a connection that was made just before
_BACKLOG = 1024


def _ignore(status: int, code: str) -> None:
    del status, code


class Server:
    """Serves one handler on any number of addresses. Make it inside a running loop.

    `headers` go into every answer. `on_refused(status, code)` is called for what was answered without reaching the
    handler (malformed, too large, too slow). `in_flight` counts requests without a complete answer.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits | None = None,
        *,
        headers: HeaderPairs = (),
        on_refused: Callable[[int, str], None] = _ignore,
    ) -> None:
        self.limits = limits or Limits()
        self.in_flight = 0
        self.draining = False
        self.refused = on_refused
        self.heads = Heads(headers, time.time())
        self.known_heads = KnownHeads()
        self._handler = handler
        self._connections: set[Connection] = set()
        self._listeners: list[Listener] = []
        self._loop = asyncio.get_running_loop()
        # One coarse clock for all connections: reading a clock for every request costs more than it tells.
        self.now_s = self._loop.time()
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def listen(self, address: Address, *, mode: int = 0o600, backlog: int = _BACKLOG) -> Address:
        """Start to accept; returns the address with the port the kernel chose.

        A stale unix socket is replaced in one step; a living one, or a taken port, raises UsageError. `mode` is the
        unix socket's. Connections are made when this returns.
        """
        listener = await open_listener(address, lambda: Connection(self), mode=mode, backlog=backlog)
        self._listeners.append(listener)
        return listener.bound.address

    async def adopt(self, connected: socket.socket) -> None:
        """Serve a connection that somebody else accepted. Nothing happens when it is gone already."""
        try:
            await self._loop.connect_accepted_socket(lambda: Connection(self), connected)
        except OSError:
            connected.close()

    async def drain(self, deadline_s: float, *, linger_s: float = 0.5) -> bool:
        """Finish: answers carry `Connection: close` from now on. True when nothing was left after `deadline_s`.

        For `linger_s` connections are still accepted and idle ones kept, so that a request already under way meets no
        reset; it ends early when nobody is connected. Then the listeners are closed, and a moment later, for those who
        had just connected, idle connections.
        """
        self.draining = True
        end_s = self._loop.time() + deadline_s
        linger_end_s = min(end_s, self._loop.time() + linger_s)
        await self._until(lambda: not self._connections, linger_end_s)
        waiting = [connected for listener in self._listeners for connected in listener.bound.waiting()]
        self._stop_listening()
        for connected in waiting:
            await self.adopt(connected)
        await self._until(lambda: not self._connections, min(end_s, self._loop.time() + _LAST_CHANCE_S))
        for connection in list(self._connections):
            if connection.phase is Phase.IDLE and not connection.busy:
                connection.close()
        return await self._until(lambda: not any(c.busy for c in self._connections), end_s)

    async def close(self) -> None:
        """Stop at once: listeners, connections, the clock. Safe to repeat."""
        self._sweeper.cancel()
        self._stop_listening()
        for connection in list(self._connections):
            connection.abort()
        await self._until(lambda: not self._connections, self._loop.time() + 1.0)

    # For connections

    def opened(self, connection: Connection) -> None:
        """A client has connected."""
        self._connections.add(connection)
        if len(self._connections) > self.limits.connections:
            connection.turn_away()

    def closed(self, connection: Connection) -> None:
        """A client is gone."""
        self._connections.discard(connection)

    def handle(self, request: Request) -> None:
        """Give a request to the handler; what it raises becomes a 500."""
        try:
            self._handler(request)
        except Exception:
            _log.exception("handler failed", extra={"method": request.method, "path": request.path})
            if not request.answered:
                request.fail(500, "http.handler_failed", "the request could not be answered")
            elif not request.done:
                request.abandon()

    # Inside

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(_SWEEP_S, self._sweep)
        self.now_s = now_s = self._loop.time()
        self.heads.renew(time.time())
        for connection in list(self._connections):
            connection.sweep(now_s)

    def _stop_listening(self) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()

    async def _until(self, done: Callable[[], bool], end_s: float) -> bool:
        while not done():
            left_s = end_s - self._loop.time()
            if left_s <= 0:
                return False
            await asyncio.sleep(min(_DRAIN_POLL_S, left_s))
        return True
