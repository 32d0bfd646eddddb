"""One request, answered once: at once or later."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec

from corten.http.repeated import Head, HeaderLines

if TYPE_CHECKING:
    from corten.http.connection import Connection

HeaderPairs = Sequence[tuple[str, str]]
JSON = "application/json"

_encode = msgspec.json.Encoder().encode
_METHODS = {name.encode(): name for name in ("GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")}


class Request(msgspec.Struct, eq=False):  # made a request: an ordinary class would take three times as long to make
    """A whole request. Made by the server; all methods must be called on the loop's thread.

    `head` is what it began with, `body` bytes-like. `started`: an answer was begun; `done`: it is complete. `out` is
    what waits for the answers before it (pipelining).
    """

    _connection: Connection
    head: Head
    body: bytes | bytearray
    keep_alive: bool
    started: bool = False
    done: bool = False
    out: list[bytes] | None = None
    _headers: dict[str, str] | None = None
    _gone_callback: Callable[[], object] | None = None

    @property
    def method(self) -> str:
        """`GET`, `POST` ..."""
        return _METHODS.get(self.head.method) or self.head.method.decode("ascii")

    @property
    def target(self) -> bytes:
        """The request target as received (ASCII)."""
        return self.head.target

    @property
    def version(self) -> str:
        """`1.1` or `1.0`."""
        return self.head.version

    @property
    def raw_headers(self) -> HeaderLines:
        """The header lines in order, as received."""
        return self.head.lines(len(self.body))

    @property
    def path(self) -> str:
        """The target's path, neither decoded nor normalised; the authority of an absolute target is left out."""
        return self._split()[0]

    @property
    def query(self) -> str:
        """What follows the `?`, not decoded; empty when there is none."""
        return self._split()[1]

    @property
    def params(self) -> Mapping[str, str]:
        """The query decoded; the last one wins where a name comes twice."""
        return dict(parse_qsl(self.query, keep_blank_values=True, max_num_fields=100))

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers by lower-case name, repeated ones joined by `, ` (RFC 9110, 5.3). Decoded when asked for."""
        if self._headers is None:
            found: dict[str, str] = {}
            for raw_name, raw_value in self.raw_headers:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip(" \t")
                found[name] = f"{found[name]}, {value}" if name in found else value
            self._headers = found
        return self._headers

    @property
    def answered(self) -> bool:
        """Whether an answer was begun."""
        return self.started

    @property
    def gone(self) -> bool:
        """Whether the client's connection is lost, so that no answer can reach it."""
        return self._connection.lost

    @property
    def peer_uid(self) -> int | None:
        """The user at the other end of a unix socket, as the kernel tells; None for TCP."""
        return self._connection.peer_uid()

    @property
    def leaving(self) -> bool:
        """Whether the client has closed its side. Usually it is gone, but it may still read (`nc -N` does)."""
        return self._connection.half_closed

    def on_gone(self, callback: Callable[[], object]) -> None:
        """Call this if the client goes away before it is answered; a half-closed connection then counts as gone."""
        self._gone_callback = callback

    def respond(
        self,
        status: int,
        body: bytes | bytearray = b"",
        content_type: str = JSON,
        headers: HeaderPairs = (),
    ) -> None:
        """Answer. Once: a second answer raises RuntimeError. Nothing happens if the client is gone."""
        if self.started:
            self._begin()
        self.started = self.done = True
        self._connection.answer(self, status, body, content_type, headers)

    def respond_json(self, status: int, value: Any, headers: HeaderPairs = ()) -> None:
        """Answer with a value msgspec can encode (JSON types, dataclasses, structs, enums)."""
        self.respond(status, _encode(value), JSON, headers)

    def fail(self, status: int, code: str, message: str, *, path: str = "", headers: HeaderPairs = ()) -> None:
        """Answer with `{"error": {"code", "message", "path"}}`."""
        self.respond(status, error_body(code, message, path), JSON, headers)

    def stream(self, status: int, content_type: str, headers: HeaderPairs = (), *, length: int | None = None) -> Stream:
        """Begin an answer that is written piece by piece, exactly `length` bytes in all where that is known.

        Of unknown length: chunked, or ended by closing for HTTP/1.0 clients.
        """
        self._begin()
        chunked = self.version != "1.0" and length is None
        self._connection.begin_stream(self, status, content_type, headers, chunked=chunked, length=length)
        return Stream(self, self._connection, chunked=chunked)

    def abandon(self) -> None:
        """Cut the connection: the only way to tell that an answer begun by `stream` will not be finished."""
        if not self._connection.lost:
            self._connection.abort()

    def lost(self) -> None:
        """Called by the connection when it is lost."""
        callback, self._gone_callback = self._gone_callback, None
        if callback is not None and not self.done:
            callback()

    @property
    def watched(self) -> bool:
        """Whether somebody asked to be told when the client goes away."""
        return self._gone_callback is not None

    @property
    def wants_body(self) -> bool:
        """False for HEAD, whose answer has a head only."""
        return self.head.method != b"HEAD"

    def _begin(self) -> None:
        if self.started:
            raise RuntimeError(f"{self.method} {self.path} was answered before")
        self.started = True

    def _split(self) -> tuple[str, str]:
        target = self.target.decode("latin-1")
        if not target.startswith("/") and "://" in target:
            # Absolute form (RFC 9112, 3.2.2): servers must accept it.
            authority_and_rest = target.partition("://")[2]
            cut = min((i for i in map(authority_and_rest.find, "/?") if i >= 0), default=len(authority_and_rest))
            target = authority_and_rest[cut:]
            target = target if target.startswith("/") else "/" + target
        path, _, query = target.partition("#")[0].partition("?")
        return path, query


class Stream:
    """The body of an answer, written piece by piece."""

    __slots__ = ("_chunked", "_connection", "_request")

    def __init__(self, request: Request, connection: Connection, *, chunked: bool) -> None:
        self._request = request
        self._connection = connection
        self._chunked = chunked

    @property
    def gone(self) -> bool:
        """Whether the client is gone; writing is then pointless but harmless."""
        return self._connection.lost

    @property
    def congested(self) -> bool:
        """Whether what is written now would only wait: for the client, or for answers that come before."""
        return self._connection.congested(self._request)

    def write(self, data: bytes) -> None:
        """Send a piece. Call `await drain()` between large ones."""
        # An empty chunk would end the body (RFC 9112, 7.1).
        if not data or not self._request.wants_body or self._request.done:
            return
        self._connection.write_piece(self._request, b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def drain(self) -> None:
        """Wait until the client has taken most of what was written, and what was asked for before is answered.

        Raises ConnectionResetError when it is gone.
        """
        await self._connection.writable(self._request)

    def end(self) -> None:
        """Complete the answer. Safe to repeat."""
        if self._request.done:
            return
        self._request.done = True
        self._connection.end_stream(self._request, b"0\r\n\r\n" if self._chunked and self._request.wants_body else b"")


Handler = Callable[[Request], None]


def error_body(code: str, message: str, path: str = "") -> bytes:
    """The JSON all errors are told in; `path` points into the request's body (`inputs[3][7]`)."""
    return _encode({"error": {"code": code, "message": message, "path": path}})
