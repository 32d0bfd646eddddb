"""The bytes of a pickle, read in order: each read is complete or an error with its position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, NoReturn

from corten.adapters.standins import KEEP_BYTES, Opaque

_MAX_LINE_BYTES = 1 << 20


@dataclass(slots=True)
class BrokenPickleError(Exception):
    """Not a pickle from this byte on, and why."""

    offset: int
    why: str


@dataclass(slots=True)
class Budget:
    """Opcodes still allowed; shared by the pickles within a file."""

    left: int


class ModelBytes:
    """A stream with its position; every read is complete or fails."""

    def __init__(self, stream: BinaryIO, size_bytes: int, *, seekable: bool) -> None:
        self._stream = stream
        self._size_bytes = size_bytes
        self._seekable = seekable
        self.position = 0
        self.arrays = 0

    def fail(self, why: str) -> NoReturn:
        """Give up here. Raises BrokenPickleError."""
        raise BrokenPickleError(self.position, why)

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes, which must be few."""
        data = self._stream.read(count)
        if len(data) != count:
            self.fail(f"the file ends {count - len(data)} bytes early")
        self.position += count
        return data

    def keep_or_skip(self, count: int) -> bytes | Opaque:
        """`count` bytes if they are few, else pass over them."""
        if count <= KEEP_BYTES:
            return self.take(count)
        if count > self._size_bytes - self.position:
            self.fail(f"{count} bytes announced where the file has {max(self._size_bytes - self.position, 0)}")
        if self._seekable:
            self._stream.seek(count, 1)
            self.position += count
            return Opaque(count)
        left = count
        while left:
            left -= len(self.take(min(left, 1 << 20)))
        return Opaque(count)

    def line(self) -> bytes:
        """A line without its end."""
        data = self._stream.readline(_MAX_LINE_BYTES)
        if not data.endswith(b"\n"):
            self.fail("a line has no end")
        self.position += len(data)
        return data[:-1]

    def number(self, size_bytes: int) -> int:
        """An unsigned little-endian integer."""
        return int.from_bytes(self.take(size_bytes), "little")
