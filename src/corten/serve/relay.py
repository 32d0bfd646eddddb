"""gRPC on a unix socket before several processes: bytes go to and fro between a client and one of them.

gRPC's library accepts its connections itself, so they cannot be handed over as those of HTTP are, and only TCP ports
can be listened on by many. Each process listens beside the socket, and the master relays to the one with the fewest,
of several to the one that has waited longest.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import cast

from corten.http import UnixAddress


def own_address(shared: UnixAddress, slot: int) -> UnixAddress:
    """Where the worker of that slot listens: `g1` beside `g`."""
    return UnixAddress(Path(f"{shared.path}{slot}"))


class Relays:
    """Makes a protocol for each client. `ready` tells the slots that can be asked."""

    def __init__(self, shared: UnixAddress, ready: Callable[[], Collection[int]]) -> None:
        self._shared = shared
        self._ready = ready
        self._open: Counter[int] = Counter()
        self._turns: dict[int, int] = {}  # which relay was a slot's last
        self._tasks: set[asyncio.Task[None]] = set()

    def accepted(self) -> asyncio.Protocol:
        """The protocol of a client that has connected."""
        return _Side(made=self._begin)

    def _begin(self, client: _Side) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: _Side) -> None:
        for slot in sorted(self._ready(), key=lambda slot: (self._open[slot], self._turns.get(slot, 0))):
            worker = _Side(lost=partial(self._open.subtract, [slot]))
            path = str(own_address(self._shared, slot).path)
            try:
                await asyncio.get_running_loop().create_unix_connection(partial(_same, worker), path)
            except OSError:
                continue  # it is ending
            self._open[slot] += 1
            self._turns[slot] = max(self._turns.values(), default=0) + 1
            client.join(worker)
            return
        client.close()


class _Side(asyncio.Protocol):
    """One of the two connections of a relay."""

    def __init__(
        self, *, made: Callable[[_Side], object] = lambda _: None, lost: Callable[[], object] = lambda: None
    ) -> None:
        self.gone = False
        self.other: _Side | None = None
        self._early = b""  # read before the other side was there
        self._made = made
        self._lost = lost

    def join(self, other: _Side) -> None:
        """From now on what one side reads the other writes."""
        self.other, other.other = other, self
        for side, its_other in ((self, other), (other, self)):
            if side.gone:
                its_other.close()
            else:
                its_other.transport.write(side._early)  # noqa: SLF001 - its own kind
                side.transport.resume_reading()

    def close(self) -> None:
        """Close when what was written is sent."""
        self.transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self.transport = cast("asyncio.Transport", transport)
        self._made(self)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        if self.other is not None:
            self.other.transport.write(data)
        else:
            self._early += data
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        """Part of asyncio.Protocol: who writes here is not read from meanwhile."""
        if self.other is not None and not self.other.gone:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        if self.other is not None and not self.other.gone:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        del exc
        self.gone = True
        self._lost()
        if self.other is not None and not self.other.gone:
            self.other.close()


def _same(side: _Side) -> _Side:
    return side
