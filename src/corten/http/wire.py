"""Heads of answers as bytes (RFC 9112). The first part is made once a second for each status and content type."""

from __future__ import annotations

import time
from collections import defaultdict

from corten.http.request import HeaderPairs

# What a start answers; of others `http` is asked, whose enum takes half a millisecond to make.
_REASONS = {200: "OK", 503: "Service Unavailable"}
# These have no body, so no content headers (RFC 9110, 15.3.5 and 15.4.5).
BODILESS = frozenset({204, 304})
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOST_LENGTHS = 256
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Heads:
    """Makes heads; `fixed` headers are part of each. `renew` once a second keeps `Date` right."""

    __slots__ = ("_cache", "_date", "_fixed", "ok")

    def __init__(self, fixed: HeaderPairs, unix_time_s: float) -> None:
        self._fixed = encode_headers(fixed)
        self._cache: dict[tuple[int, str], bytes] = {}
        self.ok: defaultdict[str, dict[int, bytes]] = defaultdict(dict)  # whole ones of 200, by content type and length
        self._date = b""
        self.renew(unix_time_s)

    def renew(self, unix_time_s: float) -> None:
        """Set the time answers carry."""
        self._date = _http_date(unix_time_s)
        self._cache.clear()
        self.ok.clear()

    def start(self, status: int, content_type: str) -> bytes:
        """Status line, Date, fixed headers and Content-Type, without the empty line that ends a head."""
        key = (status, content_type)
        head = self._cache.get(key)
        if head is None:
            head = self._cache[key] = self._make(status, content_type)
        return head

    def make_ok(self, content_type: str, size_bytes: int) -> bytes:
        """Put what is missing into `ok`."""
        head = b"%bContent-Length: %d\r\n\r\n" % (self.start(200, content_type), size_bytes)
        if len(self.ok[content_type]) < _MOST_LENGTHS:
            self.ok[content_type][size_bytes] = head
        return head

    def _make(self, status: int, content_type: str) -> bytes:
        line = f"HTTP/1.1 {status} {_REASONS.get(status) or _reason(status)}\r\n".encode()
        content = b"" if status in BODILESS else encode_headers([("Content-Type", content_type)])
        return b"%bDate: %b\r\n%b%b" % (line, self._date, self._fixed, content)


def _reason(status: int) -> str:
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _http_date(unix_time_s: float) -> bytes:
    """IMF-fixdate (RFC 9110, 5.6.7), whatever the locale. `email.utils` would be as much to import as all of this."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(unix_time_s)
    return f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year} {hour:02}:{minute:02}:{second:02} GMT".encode()


def encode_headers(headers: HeaderPairs) -> bytes:
    """Header lines; raises ValueError for a value that would start another line (response splitting)."""
    lines = []
    for name, value in headers:
        line = f"{name}: {value}"
        if not line.isprintable() and any(ord(char) < 32 or ord(char) == 127 for char in line):
            raise ValueError(f"control character in header {name!r}")
        lines.append(line.encode("latin-1", "replace") + b"\r\n")
    return b"".join(lines)
