"""A client that keeps its connection sends the same head again and again; only its Content-Length changes.

Parsing is a function of bytes, so a head that was parsed and screened once need not be again: what follows is compared
with it byte by byte, and only where all but the digits of its Content-Length are equal is the parser left out. Nothing
is read more leniently for it: whatever differs goes to the parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_NAMES = (b"\r\nContent-Length: ", b"\r\ncontent-length: ")
_MOST_DIGITS = 10
_LONGEST_HEAD = 4096


class RepeatedHead:
    """A head seen on this connection, in two parts: what comes before the digits of its Content-Length, and behind.

    `note` is the handler's: what it has made of the head, for the next request with the same.
    """

    __slots__ = ("_behind", "_headers", "_position", "before", "method", "note", "target")

    def __init__(
        self, before: bytes, behind: bytes, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> None:
        self.before = before
        self._behind = behind
        self.method = method
        self.target = target
        self._headers = headers
        self._position = next(i for i, (name, _) in enumerate(headers) if name.lower() == b"content-length")
        self.note: Any = None

    def body_of(self, data: bytes, most_bytes: int) -> bytes | None:
        """The body, when the data is one whole request with this head; `data` begins with `before`."""
        start = len(self.before)
        end = data.find(self._behind, start, start + _MOST_DIGITS + len(self._behind))
        if end < 0:
            return None
        digits = data[start:end]
        body = data[end + len(self._behind) :]
        # int() would take signs, spaces and underscores.
        if not digits.isdigit() or int(digits) != len(body) or len(body) > most_bytes:
            return None
        return body

    def headers(self, body: bytes) -> list[tuple[bytes, bytes]]:
        """The head's fields, as they were sent with this body."""
        headers = list(self._headers)
        headers[self._position] = (headers[self._position][0], b"%d" % len(body))
        return headers


def learn(
    data: bytes, method: bytes, target: bytes, headers: Sequence[tuple[bytes, bytes]], body_bytes: int
) -> RepeatedHead | None:
    """What of the data can come again, if it is no more than the request it was parsed to; None if that is not sure."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4 or end > _LONGEST_HEAD or len(data) - end != body_bytes or not body_bytes:
        return None
    for name in _NAMES:
        start = data.find(name, 0, end) + len(name)
        if start >= len(name):
            stop = data.find(b"\r\n", start)
            if data[start:stop] == b"%d" % body_bytes:
                return RepeatedHead(data[:start], data[stop:end], method, target, headers)
    return None
