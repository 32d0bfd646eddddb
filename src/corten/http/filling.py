"""The rest of a large body, read by the kernel to where it stays.

What a parser is given was copied three times before it is a body: out of the loop's buffer, piece by piece by the
parser, and to the end of the piece before. A body whose length was told (RFC 9112, 6.2) has nothing to be parsed in it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corten.http.connection import Connection

FILLED_BYTES = 64 << 10  # rests from this size on; smaller ones come in one piece
_LEAST_ROOM = 16 << 10
_GROWTH = 4
# Tensors are at the end of bodies. So laid, they begin where compiled code wants them, whatever comes before; malloc
# does as much for the beginning.
_ALIGNED = 16


class Filling(asyncio.BufferedProtocol):
    """Takes the place of a connection until its request's body is whole, and of that connection no byte more.

    Room is made for four times what has come: a length is only a claim.
    """

    __slots__ = ("_body", "_connection", "_filled", "_size_bytes")

    def __init__(self, connection: Connection, begun: bytes | bytearray, size_bytes: int) -> None:
        self._connection = connection
        self._size_bytes = size_bytes
        self._body = bytearray()
        self._filled = len(begun)
        self._make_room(begun)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Part of asyncio.BufferedProtocol."""
        del sizehint
        if self._filled == len(self._body):
            self._make_room(self._body)
        return memoryview(self._body)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Part of asyncio.BufferedProtocol."""
        self._filled += nbytes
        self._connection.body_has(self._filled)
        if self._filled == self._size_bytes:
            self._connection.body_is(self._body)

    def eof_received(self) -> bool:
        """Part of asyncio.BufferedProtocol."""
        return self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.BufferedProtocol."""
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """Part of asyncio.BufferedProtocol."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Part of asyncio.BufferedProtocol."""
        self._connection.resume_writing()

    def _make_room(self, begun: bytes | bytearray) -> None:
        room = min(self._size_bytes, max(_GROWTH * len(begun), _LEAST_ROOM))
        before = -self._size_bytes % _ALIGNED
        body = bytearray(before + room)
        del body[:before]  # moves where it begins, not what is in it
        body[: len(begun)] = begun
        self._body = body
