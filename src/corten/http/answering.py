"""The half of a connection that answers: in the order of the requests, no faster than the client takes it up."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from corten.http.request import HeaderPairs, Request
from corten.http.wire import BODILESS, encode_headers

if TYPE_CHECKING:
    from corten.http.server import Server

# Larger bodies are handed to the transport beside their head instead of being copied behind it.
_COPY_BYTES = 64 << 10


class Phase(Enum):
    """What a connection is reading."""

    IDLE = "idle"  # nothing of a next request yet
    HEAD = "head"
    BODY = "body"
    CLOSING = "closing"  # nothing more is read; answers may still go out
    LINGERING = "lingering"  # the last answer is sent; what still comes is dropped


# Names of this module are found faster than members of a class, and these are asked for with every answer.
_IDLE, _HEAD, _BODY, _CLOSING, _LINGERING = Phase


class Answering(asyncio.Protocol):
    """Keeps the queue of requests that are owed an answer, and writes. Whoever reads puts them in."""

    __slots__ = (
        "_congested",
        "_limits",
        "_queue",
        "_stalled_s",
        "_transport",
        "_unsent_bytes",
        "_waiters",
        "_write_now",
        "_writing_paused",
        "half_closed",
        "lost",
        "phase",
        "server",
        "since_s",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self._limits = server.limits
        self.lost = False
        self.phase = _IDLE
        self.since_s = server.now_s  # when the phase began
        self.half_closed = False  # the client sends no more
        self._queue: deque[Request] = deque()  # requests without a complete answer, oldest first
        self._congested = False  # reading is paused
        self._writing_paused = False
        self._unsent_bytes = 0  # at the last sweep
        self._stalled_s = 0.0  # when the client last took some of it
        self._waiters: list[asyncio.Future[None]] = []

    def _begin(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._write_now = transport.write

    def peer_uid(self) -> int | None:
        """SO_PEERCRED of unix(7); None for TCP."""
        connected = self._transport.get_extra_info("socket")
        if connected is None or connected.family != socket.AF_UNIX:
            return None
        credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        uid: int = struct.unpack("3i", credentials)[1]
        return uid

    # asyncio.Protocol

    def pause_writing(self) -> None:
        """Part of asyncio.Protocol: the client does not read, so nothing more is read from it."""
        self._writing_paused = True
        self._pause()

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self._writing_paused = False
        self._wake()
        self._unpause()

    # Answers

    def answer(
        self, request: Request, status: int, body: bytes | bytearray, content_type: str, headers: HeaderPairs
    ) -> None:
        """Send a whole answer, or keep it until those before it are sent."""
        if self.lost:
            return
        server = self.server
        queue = self._queue
        last_and_stays = len(queue) == 1 and self.phase is _IDLE and not server.draining and request.head.usual
        if last_and_stays and status == 200 and not headers and len(body) <= _COPY_BYTES:
            # The usual answer: what follows would do the same in more steps.
            size_bytes = len(body)
            head = server.heads.ok[content_type].get(size_bytes) or server.heads.make_ok(content_type, size_bytes)
            self._write_now(head + body)
            queue.popleft()
            server.in_flight -= 1
            self.since_s = server.now_s
            if self._congested:
                self._unpause()
            return
        head = server.heads.start(status, content_type)
        if headers:
            head += encode_headers(headers)
        close = self._closes(request)
        if close or request.version == "1.0":
            head += _connection_header(close=close)
        if status in BODILESS:
            self._send(request, head + b"\r\n", b"")
        else:
            sized = b"%bContent-Length: %d\r\n\r\n" % (head, len(body))
            self._send(request, sized, body if request.wants_body else b"")

    def begin_stream(
        self,
        request: Request,
        status: int,
        content_type: str,
        headers: HeaderPairs,
        *,
        chunked: bool,
        length: int | None = None,
    ) -> None:
        """Send the head of an answer whose body comes in pieces; without `chunked` and `length` closing ends it."""
        if self.lost:
            return
        request.keep_alive = request.keep_alive and (chunked or length is not None)
        close = self._closes(request)
        framing = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        if length is not None:
            framing = b"Content-Length: %d\r\n" % length
        more = encode_headers(headers) + framing + (_connection_header(close=True) if close else b"")
        self.write_piece(request, b"%b%b\r\n" % (self.server.heads.start(status, content_type), more))
        request.keep_alive = not close

    def write_piece(self, request: Request, data: bytes) -> None:
        """Send a part of an answer, or keep it until it is its turn."""
        if self.lost:
            return
        if self._queue[0] is request:
            self._transport.write(data)
        elif request.out is None:
            request.out = [data]
        else:
            request.out.append(data)

    def end_stream(self, request: Request, last: bytes) -> None:
        """Send the end of an answer."""
        if not self.lost:
            self._send(request, last, b"")

    def congested(self, request: Request) -> bool:
        """Whether more of this answer would wait here."""
        return not self.lost and (self._writing_paused or self._queue[0] is not request)

    async def writable(self, request: Request) -> None:
        """Wait until it is this answer's turn and the client has read enough of what was written.

        Raises ConnectionResetError when it is gone.
        """
        while not request.done and self.congested(request):
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self.lost:
            raise ConnectionResetError("the client is gone")

    # For the server

    @property
    def busy(self) -> bool:
        """Whether something is owed to this client: an answer, or the rest of its request is on its way."""
        return bool(self._queue) or self.phase is _HEAD or self.phase is _BODY or self._unsent()

    def close(self) -> None:
        """Close when what was written is sent."""
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    # Inside

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.since_s = self.server.now_s

    def _closes(self, request: Request) -> bool:
        if not request.keep_alive or self.half_closed:
            return True
        # The last answer owed is the one that says so: those pipelined behind it would be lost.
        return self.server.draining and self._queue[-1] is request and self.phase is _IDLE

    def _send(self, request: Request, head: bytes, body: bytes | bytearray) -> None:
        queue = self._queue
        if queue[0] is not request:
            request.out = [*(request.out or ()), head, bytes(body)]
            return
        self._write(head, body)
        queue.popleft()
        self.server.in_flight -= 1
        last = request
        while queue:
            last_or_next = queue[0]
            self._write_kept(last_or_next)
            if not last_or_next.done:
                self._wake()  # its writer may have waited for its turn
                break
            last = queue.popleft()
            self.server.in_flight -= 1
        if not queue:
            self._all_answered(last)
        if self._congested:
            self._unpause()

    def _write(self, head: bytes, body: bytes | bytearray) -> None:
        if len(body) <= _COPY_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.writelines([head, body])

    def _write_kept(self, request: Request) -> None:
        if request.out:
            self._transport.writelines(request.out)
            request.out = None

    def _all_answered(self, last: Request) -> None:
        if self.lost:
            return
        draining = self.server.draining and self.phase is _IDLE
        if self.half_closed:
            self.close()
        elif not last.keep_alive or self.phase is _CLOSING or draining:
            self._linger()
        elif self.phase is _IDLE:
            self.since_s = self.server.now_s

    def _linger(self) -> None:
        self._enter(_LINGERING)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self.close()

    def _pause(self) -> None:
        if not self._congested and not self.lost:
            self._congested = True
            self._transport.pause_reading()

    def _unpause(self) -> None:
        if self.lost or self._writing_paused or len(self._queue) > self._limits.pipelined:
            return
        if self._congested:
            self._congested = False
            self._transport.resume_reading()

    def _stalls(self, now_s: float) -> bool:
        """Whether nothing of what is to be sent was taken for too long. While it moves, it may take any time."""
        before, self._unsent_bytes = self._unsent_bytes, self._transport.get_write_buffer_size()
        if not self._unsent_bytes:
            return False
        if not before or self._unsent_bytes < before:
            self._stalled_s = now_s
        if self.phase is _LINGERING:
            self.since_s = now_s  # lingering begins when the last byte is out
        return now_s - self._stalled_s > self._limits.write_s

    def _unsent(self) -> bool:
        return not self.lost and self._transport.get_write_buffer_size() > 0

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _connection_header(*, close: bool) -> bytes:
    return b"Connection: close\r\n" if close else b"Connection: keep-alive\r\n"
