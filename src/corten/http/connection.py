"""One client's connection: parses, and bounds what a client can take up.

Strictness is llhttp's (no leniency is switched on): Content-Length with Transfer-Encoding, duplicate or listed
lengths, bare LF, folded headers, spaces before a colon are errors (RFC 9112, 6.3 and 11.2: request smuggling). Added
here: exactly one Host (3.2), no transfer coding but `chunked`, only HTTP/1.0 and 1.1, no tunnels. Offers of another
protocol are passed over (RFC 9110, 7.8): Java's client makes one, of HTTP/2, with its first request to anybody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from corten.http.answering import Answering, Phase
from corten.http.filling import FILLED_BYTES, Filling
from corten.http.repeated import Head, RepeatedHead
from corten.http.request import JSON, Request, error_body
from corten.http.screening import Refusal, body_too_large, head_too_large, screen_head, screen_head_size
from corten.http.wire import CONTINUE

if TYPE_CHECKING:
    from corten.http.server import Server

# Heads in a row that were not the one before; after that nobody looks any more (proxies number their requests).
_MOST_CHANGES = 16
# After a refusal the rest of the request is read and dropped, or the client would see a reset instead of the answer
# (RFC 9112, 9.6), but not for ever.
LINGER_S = 2.0

# Names of this module are found faster than members of a class, and these are asked for with every piece of data.
_IDLE, _HEAD, _BODY, _CLOSING, _LINGERING = Phase
_NO_HEAD = Head(b"", b"", (), keep_alive=False, version="1.1")


class Connection(Answering):
    """The protocol object of one connection: the half that reads, on that which answers."""

    __slots__ = (
        "_body",
        "_changes",
        "_chunk_bytes",
        "_expects",
        "_filling",
        "_head",
        "_head_bytes",
        "_headers",
        "_keep_alive",
        "_measured",
        "_method",
        "_parser",
        "_refusal",
        "_repeated",
        "_silent_bytes",
        "_size_bytes",
        "_target",
        "_version",
    )

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._expects = False  # the client waits for `100 Continue`
        self._filling = False  # the rest of the body is read past the parser
        self._refusal: Refusal | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._target = b""
        self._body: bytes | bytearray = b""
        self._chunk_bytes = 0  # of the piece of data being parsed
        self._head_bytes = 0  # of the pieces before it, while a head is read
        self._size_bytes = 0  # of the body
        self._measured = False  # whether it was seen if the rest of the body is long
        self._silent_bytes = 0  # received since the last byte of body
        self._method = b""
        self._version = "1.1"
        self._keep_alive = True
        self._head = _NO_HEAD  # of the last request
        self._repeated: RepeatedHead | None = None  # what the last request began with; the parser is between requests
        self._changes = 0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._begin(cast("asyncio.Transport", transport))
        self._parser = HttpRequestParser(self)
        self.server.opened(self)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        phase = self.phase
        if phase is _LINGERING or phase is _CLOSING:
            return
        repeated = self._repeated
        if repeated is not None:
            known = repeated.known.get(len(data))
            if known is not None and data.startswith(known):
                body: bytes | None = data[len(known) :]
            else:
                body = repeated.body_of(data, self._limits.body_bytes)
            if body is not None:
                self._changes = 0
                queue = self._queue
                request = Request(self, repeated, body, repeated.keep_alive)
                queue.append(request)
                server = self.server
                server.in_flight += 1
                server.handle(request)
                if len(queue) > self._limits.pipelined:
                    self._pause()
                return
        self._parse(data, may_repeat=phase is _IDLE and self._changes < _MOST_CHANGES)

    def _parse(self, data: bytes, *, may_repeat: bool) -> None:
        self._repeated = None
        self._chunk_bytes = len(data)
        try:
            try:
                self._parser.feed_data(data)
            except HttpParserUpgrade as offer:
                self._pass_over(memoryview(data), offer)
                may_repeat = False
        except (HttpParserError, Refusal) as error:
            self._parse_failed(error)
        else:
            if self.phase is not _IDLE:
                self._check_partial()
            elif may_repeat and self._version == "1.1" and not self._expects:
                self._repeated = self.server.known_heads.learn(data, self._head, self._size_bytes)
                self._changes += 1
            if len(self._queue) > self._limits.pipelined:
                self._pause()

    def _pass_over(self, rest: memoryview, offer: HttpParserUpgrade) -> None:
        """Read a request once more, without its offer of another protocol: to httptools it ends with its head."""
        while True:
            if self._method == b"CONNECT":
                self._refusal = Refusal(400, "http.upgrade", "this server is no tunnel")
                raise self._refusal
            rest = rest[offer.args[0] :]
            head = b"%b %b HTTP/%b\r\n" % (self._method, self._target, self._version.encode())
            kept = [b"%b: %b\r\n" % line for line in self._headers if line[0].lower() != b"upgrade"]
            self.phase = _IDLE
            self._parser = HttpRequestParser(self)
            self._parser.feed_data(b"".join((head, *kept, b"\r\n")))
            try:
                self._parser.feed_data(rest)
            except HttpParserUpgrade as another:
                offer = another
            else:
                return

    def eof_received(self) -> bool:
        """Part of asyncio.Protocol; True keeps our side open for the answers that are owed."""
        self.half_closed = True
        if not self._queue or any(request.watched for request in self._queue):
            return False
        self._enter(_CLOSING)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        del exc
        self.lost = True
        self.server.closed(self)
        self._wake()
        while self._queue:
            request = self._queue.popleft()
            self.server.in_flight -= 1
            request.lost()

    # httptools callbacks

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        if self.phase is not _IDLE:  # a pipelined request behind one that closes
            raise Refusal(400, "http.malformed", "nothing may follow")
        self.phase = _HEAD
        self.since_s = self.server.now_s
        self._headers = []
        self._target = b""

    def on_url(self, url: bytes) -> None:
        """Part of httptools' protocol; comes in pieces."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol. Trailers come here too, after the head; they are dropped."""
        if self.phase is _HEAD:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        parser = self._parser
        self._keep_alive = parser.should_keep_alive()
        self._method = parser.get_method()
        self._version = parser.get_http_version()
        limits = self._limits
        try:
            # Only when all that was received could be too much is it worth counting what of it is the head.
            if self._head_bytes + self._chunk_bytes > limits.header_bytes:
                screen_head_size(self._target, self._headers, limits)
            self._expects = screen_head(self._headers, self._version, limits)
        except Refusal as refusal:
            self._refusal = refusal  # httptools wraps what its callbacks raise
            raise
        self.phase = _BODY
        self._measured = False
        self._head_bytes = self._size_bytes = self._silent_bytes = 0

    def on_body(self, piece: bytes) -> None:
        """Part of httptools' protocol."""
        self._size_bytes += len(piece)
        self._silent_bytes = 0
        if self._size_bytes > self._limits.body_bytes:
            self._refusal = body_too_large(self._limits)
            raise self._refusal
        if not self._limits.keep_bodies:
            return
        if not self._body:
            self._body = piece
            return
        if isinstance(self._body, bytes):
            # A list of pieces would cost 40 bytes for each one-byte chunk.
            self._body = bytearray(self._body)
        self._body += piece

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        if not self._parser.should_upgrade():
            self._complete()

    # Large bodies

    def body_has(self, size_bytes: int) -> None:
        """So much of the body is there."""
        self._size_bytes = size_bytes

    def body_is(self, body: bytearray) -> None:
        """The body is whole: what comes next is another request."""
        self._parse_again()
        self._body = body
        self._complete()
        if len(self._queue) > self._limits.pipelined:
            self._pause()

    def _fill(self) -> None:
        """Read the rest of the body past the parser, if it is long and its length is told. It only gets shorter."""
        self._measured = True
        told = next((int(value) for name, value in self._headers if name.lower() == b"content-length"), 0)
        rest_bytes = told - self._size_bytes
        if rest_bytes >= FILLED_BYTES and self._limits.keep_bodies:
            self._filling = True
            self._transport.set_protocol(Filling(self, self._body, told))
            self._body = b""

    def _parse_again(self) -> None:
        self._filling = False
        self._parser = HttpRequestParser(self)  # the one before waits for a body
        self._transport.set_protocol(self)

    def _complete(self) -> None:
        head = self._head = Head(self._method, self._target, self._headers, self._keep_alive, self._version)
        request = Request(self, head, self._body, self._keep_alive)
        self._body = b""
        self.phase = _IDLE if self._keep_alive else _CLOSING
        self._queue.append(request)
        self.server.in_flight += 1
        self.server.handle(request)

    # For the server

    def turn_away(self) -> None:
        """Say that the server is full, without reading."""
        self._refuse(Refusal(503, "http.too_many_connections", "too many connections"))

    def sweep(self, now_s: float) -> None:
        """End what takes too long. Called once a second."""
        limits = self._limits
        for_s = now_s - self.since_s
        if self._stalls(now_s):
            self.abort()
        elif self._unsent_bytes:
            return
        elif self.phase is _IDLE:
            if for_s > limits.idle_s and not self._queue:
                self.close()
        elif self.phase is _HEAD:
            if for_s > limits.header_s:
                self._refuse(Refusal(408, "http.slow_headers", f"headers took more than {limits.header_s:g} s"))
        elif self.phase is _BODY:
            allowed_s = limits.body_s + self._size_bytes / limits.body_rate_bytes_s
            if for_s > allowed_s and not self._congested:
                self._refuse(Refusal(408, "http.slow_body", f"the body took more than {allowed_s:.0f} s"))
        elif self.phase is _LINGERING and for_s > LINGER_S:
            self.abort()

    # Inside

    def _parse_failed(self, error: Exception) -> None:
        if self.phase is _CLOSING or self.phase is _LINGERING:
            return  # it came behind a request that closes the connection
        self._refuse(self._refusal or Refusal(400, "http.malformed", f"not HTTP/1.1: {error}"))

    def _check_partial(self) -> None:
        """Look after a request that is not complete: bound what is kept of it, and answer `Expect`."""
        limits = self._limits
        if self.phase is _HEAD:
            # Pieces of one unfinished header stay in the parser, so they are counted as received.
            self._head_bytes += self._chunk_bytes
            if self._head_bytes > limits.header_bytes:
                self._refuse(head_too_large(limits))
        elif self.phase is _BODY:
            if self._expects and not self._queue:
                self._expects = False
                if self._size_bytes == 0:
                    self._transport.write(CONTINUE)
            if not self._expects and not self._measured:
                self._fill()
            # Trailers and chunk extensions are bytes that bring no body. The piece in hand may have brought some.
            if self._silent_bytes > limits.header_bytes:
                self._refuse(Refusal(431, "http.trailers_too_large", "too much between the pieces of the body"))
            self._silent_bytes += self._chunk_bytes

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what cannot become a request, after the answers that are owed; the connection ends with it."""
        if self._filling:
            self._parse_again()
        self._enter(_CLOSING)
        self.server.refused(refusal.status, refusal.code)
        request = Request(self, _NO_HEAD, b"", _NO_HEAD.keep_alive)
        self._queue.append(request)
        self.server.in_flight += 1
        request.respond(refusal.status, error_body(refusal.code, refusal.message), JSON)
