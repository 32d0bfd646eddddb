"""A connection without a network: bytes go in by `feed`, bytes come out in `sent`."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field

import pytest

from corten.http import Limits, Request, Server
from corten.http.connection import Connection

HOST = b"Host: test\r\n"


class FakeTransport:
    def __init__(self):
        self.sent = b""
        self.unsent_bytes = 0
        self.shut = self.closed = self.aborted = self.paused = False
        self.protocol = None

    def write(self, data):
        self.sent += data

    def writelines(self, pieces):
        self.sent += b"".join(pieces)

    def write_eof(self):
        self.shut = True

    def can_write_eof(self):
        return True

    def close(self):
        self.closed = True

    def abort(self):
        self.aborted = True

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False

    def get_write_buffer_size(self):
        return self.unsent_bytes

    def set_protocol(self, protocol):
        self.protocol = protocol

    def deliver(self, data):
        """Give it to whoever is the protocol, as a loop would."""
        while data and isinstance(self.protocol, asyncio.BufferedProtocol):
            room = self.protocol.get_buffer(-1)
            taken = min(len(room), len(data))
            room[:taken] = data[:taken]
            del room
            self.protocol.buffer_updated(taken)
            data = data[taken:]
        if data:
            self.protocol.data_received(data)


@dataclass
class Wire:
    limits: Limits
    requests: list[Request] = field(default_factory=list)
    refusals: list[tuple[int, str]] = field(default_factory=list)
    answer_at_once: bool = True

    def __post_init__(self):
        self.server = Server(self._handle, self.limits, on_refused=lambda *what: self.refusals.append(what))
        self.transport = FakeTransport()
        self.connection = Connection(self.server)
        self.transport.set_protocol(self.connection)
        self.connection.connection_made(self.transport)

    def _handle(self, request):
        self.requests.append(request)
        if self.answer_at_once:
            request.respond(200, request.body or request.target, "text/plain")

    def feed(self, *pieces):
        for piece in pieces:
            self.transport.deliver(piece)
        return self

    def after(self, seconds):
        """Let time pass and sweep."""
        self.server.now_s += seconds
        self.connection.sweep(self.server.now_s)
        return self

    @property
    def sent(self):
        return self.transport.sent

    @property
    def statuses(self):
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.sent)]

    @property
    def bodies(self):
        return [part.partition(b"\r\n\r\n")[2] for part in re.split(rb"HTTP/1\.1 \d{3} ", self.sent)[1:]]

    @property
    def ended(self):
        return self.transport.shut or self.transport.closed or self.transport.aborted


@pytest.fixture
def wire():
    """Makes wires; their servers live on a loop that is closed at the end."""
    loop = asyncio.new_event_loop()
    made = []

    def make(*, answer_at_once=True, **limits):
        async def inside():
            return Wire(Limits(**limits), answer_at_once=answer_at_once)

        made.append(loop.run_until_complete(inside()))
        return made[-1]

    yield make
    for one in made:
        one.connection.connection_lost(None)
        loop.run_until_complete(one.server.close())
    loop.close()
