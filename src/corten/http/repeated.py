"""What a request begins with, and a client that sends the same again and again: only its Content-Length changes.

Parsing is a function of bytes, so a head that was parsed and screened once need not be again: what follows is compared
with it byte by byte, and only where all but the digits of its Content-Length are equal is the parser left out. Nothing
is read more leniently for it: whatever differs goes to the parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HeaderLines = Sequence[tuple[bytes, bytes]]

_NAMES = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_MOST_DIGITS = 10
_LONGEST_HEAD = 4096
# Of one server: 8 MB at worst, whoever connects.
_MOST_HEADS = 32
_MOST_SIZES = 64


class Head:
    """The parsed head of a request: its lines in order, `usual` where its answer needs no more than a length.

    `note` is the handler's: what it has made of the head. Requests that repeat a head share it, and so the note.
    """

    __slots__ = ("_lines", "keep_alive", "method", "note", "target", "usual", "version")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        lines: HeaderLines,
        keep_alive: bool,  # noqa: FBT001
        version: str,
    ) -> None:
        self.method = method
        self.target = target
        self.keep_alive = keep_alive
        self.version = version
        self.usual = version == "1.1" and method != b"HEAD"
        self.note: Any = None
        self._lines = lines

    def lines(self, body_bytes: int) -> HeaderLines:
        """The header lines as they were sent with a body of this size."""
        del body_bytes
        return self._lines


class RepeatedHead(Head):
    """A head that was seen, in two parts: what comes before the digits of its Content-Length, and behind.

    `known` has it whole for some sizes of the request: it need then only be compared.
    """

    __slots__ = ("_after", "_behind", "_position", "_start", "_stop", "before", "known")

    def __init__(self, head: Head, before: bytes, behind: bytes) -> None:
        super().__init__(head.method, head.target, head.lines(0), head.keep_alive, head.version)
        self.note = head.note
        self.before = before
        self.known: dict[int, bytes] = {}
        self._behind = behind
        self._after = len(behind)
        self._start = len(before)
        self._stop = self._start + _MOST_DIGITS + self._after
        self._position = next(i for i, (name, _) in enumerate(self._lines) if name.lower() == b"content-length")

    def body_of(self, data: bytes, most_bytes: int) -> bytes | None:
        """The body, when the data is one whole request with this head."""
        if not data.startswith(self.before):
            return None
        start = self._start
        end = data.find(self._behind, start, self._stop)
        if end < 0:
            return None
        digits = data[start:end]
        body = data[end + self._after :]
        # int() would take signs, spaces and underscores.
        if digits.isdigit() and int(digits) == len(body) and len(body) <= most_bytes:
            if len(self.known) < _MOST_SIZES:
                self.known[len(data)] = data[: end + self._after]
            return body
        return None

    def lines(self, body_bytes: int) -> HeaderLines:
        """See Head."""
        lines = list(self._lines)
        lines[self._position] = (lines[self._position][0], b"%d" % body_bytes)
        return lines


class KnownHeads:
    """The heads a server saw lately, each once: clients send the same over many connections."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[tuple[bytes, bytes], RepeatedHead] = {}

    def learn(self, data: bytes, head: Head, body_bytes: int) -> RepeatedHead | None:
        """What of the data can come again, if it is no more than the request it was parsed to; None in doubt."""
        parts = _parts(data, body_bytes)
        if parts is None:
            return None
        found = self._seen.get(parts)
        if found is None:
            if len(self._seen) >= _MOST_HEADS:
                self._seen.clear()
            found = self._seen[parts] = RepeatedHead(head, *parts)
        return found


def _parts(data: bytes, body_bytes: int) -> tuple[bytes, bytes] | None:
    end = data.find(b"\r\n\r\n") + 4
    if end < 4 or end > _LONGEST_HEAD or len(data) - end != body_bytes or not body_bytes:
        return None
    for name in _NAMES:
        start = data.find(name, 0, end) + len(name)
        if start >= len(name):
            stop = data.find(b"\r\n", start)
            if data[start:stop] == b"%d" % body_bytes:
                return data[:start], data[stop:end]
    return None
