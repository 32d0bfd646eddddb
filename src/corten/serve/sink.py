"""From a model's thread to a client, piece by piece, with room for so much between them.

What the client has not taken stays in a buffer of bounded size; when that is full, the model waits. When the client
leaves, or the time is over, the model's next piece is refused, which ends its generator.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, Protocol

from corten.http import Stream

# What a model may be ahead of its client. The transport holds up to 64 KiB beside it.
_MOST_AHEAD_BYTES = 256 << 10
_GATHER_S = 0.001
# Proxies and browsers give up streams that are silent for long; models may think for long.
_SILENCE_S = 10.0


class GoneError(Exception):
    """Nobody takes the pieces any more."""


class Framing(Protocol):
    """How pieces are written. `first`, `piece` and `last` run where the model runs, and may raise."""

    content_type: str
    ping: bytes  # what says that there is more to come, where the form has it

    def piece(self, value: Any) -> bytes:
        """One piece of the answer."""
        ...

    def last(self) -> bytes:
        """What follows the last piece."""
        ...

    def error(self, code: str, message: str, path: str) -> bytes:
        """What follows instead, when the answer cannot be completed."""
        ...


class Sink:
    """The pieces of one answer. `put` and `aput` are for the model's thread, all else for the server's loop."""

    def __init__(self, framing: Framing, begin: Callable[[], Stream]) -> None:
        self.framing = framing
        self.on_piece: Callable[[], object] = lambda: None
        self.pieces = 0
        self.began = False
        self._begin = begin
        self._loop = asyncio.get_running_loop()
        self._stream: Stream | None = None
        self._changed = threading.Condition()  # guards the four below
        self._waiting: list[bytes] = []
        self._ahead_bytes = 0
        self._scheduled = False
        self._closed = False
        self._room: Callable[[], object] | None = None  # wakes the coroutine that waits for room
        self._ended = False
        self._drain: asyncio.Task[None] | None = None
        self._sent_s = self._loop.time()
        self._pinger = self._loop.call_later(_SILENCE_S, self._ping) if framing.ping else None

    # In the model's thread

    def put(self, value: Any) -> None:
        """Send a piece, wait while the client is far behind. Raises GoneError, and what the framing raises."""
        data = self.framing.piece(value)
        with self._changed:
            # Ends: a client that takes nothing is cut off (http.Limits.write_s), one that leaves closes this.
            self._changed.wait_for(lambda: self._closed or self._ahead_bytes < _MOST_AHEAD_BYTES)
            self._keep(data)

    async def aput(self, value: Any) -> None:
        """The same in a coroutine of the model's loop."""
        data = self.framing.piece(value)
        loop = asyncio.get_running_loop()
        room = asyncio.Event()
        while True:
            with self._changed:
                if self._closed or self._ahead_bytes < _MOST_AHEAD_BYTES:
                    self._keep(data)
                    return
                room.clear()
                self._room = lambda: loop.call_soon_threadsafe(room.set)
            await room.wait()

    def _keep(self, data: bytes) -> None:
        if self._closed:
            raise GoneError
        self.pieces += 1
        self._waiting.append(data)
        self._ahead_bytes += len(data)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._flush_soon)

    # On the server's loop

    def finish(self, last: bytes) -> None:
        """Nothing follows but this; the answer ends when the client has taken what is waiting."""
        with self._changed:
            self._waiting.append(last)
        self._ended = True
        self._stop_pings()
        self._flush()

    def close(self) -> None:
        """Take no more, send no more: the client is gone, or was told an error."""
        self._stop_pings()
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
            self._wake()
        if self._drain is not None:
            self._drain.cancel()

    def refuse_more(self) -> None:
        """Take no more of the model; what is there is still sent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._wake()

    def _flush_soon(self) -> None:
        """Send what is waiting, but not again at once: pieces that come fast are gathered, or threads only hand over to
        each other.
        """
        wait_s = self._sent_s + _GATHER_S - self._loop.time()
        if self.began and wait_s > 0:
            self._loop.call_later(wait_s, self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        if self._drain is not None:
            return
        with self._changed:
            self._scheduled = False
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        stream = self._started()
        stream.write(b"".join(waiting))
        self._sent_s = self._loop.time()
        self.on_piece()
        if stream.congested:
            self._drain = self._loop.create_task(self._drained(stream))
        else:
            self._taken()

    def _started(self) -> Stream:
        if self._stream is None:
            self.began = True
            self._stream = self._begin()
        return self._stream

    async def _drained(self, stream: Stream) -> None:
        try:
            await stream.drain()
        except ConnectionResetError:
            return  # whoever watches the connection closes this
        self._drain = None
        self._taken()

    def _taken(self) -> None:
        with self._changed:
            self._ahead_bytes = sum(map(len, self._waiting))
            more = bool(self._waiting)
            self._changed.notify_all()
            self._wake()
        if more:
            self._flush()
        elif self._ended and self._stream is not None:
            self._stream.end()

    def _wake(self) -> None:
        if self._room is not None:
            self._room()
            self._room = None

    def _ping(self) -> None:
        """Say that it goes on, after a time without a piece. The answer has begun then, whatever comes of it."""
        silent_s = self._loop.time() - self._sent_s
        if silent_s >= _SILENCE_S and self._drain is None:
            self._started().write(self.framing.ping)
            self._sent_s, silent_s = self._loop.time(), 0.0
        self._pinger = self._loop.call_later(max(_SILENCE_S - silent_s, 0.1), self._ping)

    def _stop_pings(self) -> None:
        if self._pinger is not None:
            self._pinger.cancel()
            self._pinger = None
