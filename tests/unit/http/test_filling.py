"""Large bodies are read past the parser, and nobody can tell."""

from __future__ import annotations

import asyncio
import ctypes
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corten.http.answering import Phase
from corten.http.filling import FILLED_BYTES, Filling

HOST = b"Host: test\r\n"
BODY = bytes(range(256)) * 1200  # 300 kB
HEAD = b"POST /p HTTP/1.1\r\n" + HOST + b"%bContent-Length: %d\r\n\r\n"
SMALL = b"POST /q HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc"


def post(body=BODY, more=b""):
    return HEAD % (more, len(body)) + body


def halves(data, at):
    return data[:at], data[at:]


def test_the_rest_of_a_large_body_is_read_past_the_parser_and_what_follows_is_parsed_again(wire):
    begun, rest = halves(post(), 1000)
    one = wire().feed(begun)
    assert isinstance(one.transport.protocol, Filling)
    one.feed(rest + SMALL)
    assert one.transport.protocol is one.connection
    assert [bytes(request.body) for request in one.requests] == [BODY, b"abc"]
    assert one.statuses == [200, 200]


def test_a_body_that_came_in_one_piece_with_its_head_needs_none(wire):
    one = wire().feed(post())
    assert one.transport.protocol is one.connection
    assert [request.body for request in one.requests] == [BODY]


def test_a_short_rest_is_left_to_the_parser(wire):
    data = post()
    one = wire().feed(data[: 1 - FILLED_BYTES])
    assert one.transport.protocol is one.connection


def test_a_large_body_behind_an_offer_of_another_protocol_is_read_as_others_are(wire):
    begun, rest = halves(post(more=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), 1000)
    one = wire().feed(begun)
    assert isinstance(one.transport.protocol, Filling)
    one.feed(rest + SMALL)
    assert [bytes(request.body) for request in one.requests] == [BODY, b"abc"]
    assert one.statuses == [200, 200]


def test_chunks_are_always_parsed(wire):
    chunk = b"%x\r\n%b\r\n" % (len(BODY), BODY)
    data = b"POST /p HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
    one = wire().feed(*halves(data, 1000))
    assert [bytes(request.body) for request in one.requests] == [BODY]


def test_who_closes_behind_a_large_body_is_answered_and_read_no_further(wire):
    one = wire().feed(*halves(post(more=b"Connection: close\r\n") + SMALL, 1000))
    assert one.statuses == [200]
    assert one.ended


def test_a_large_body_that_stops_coming_ends_in_408_and_the_rest_of_it_is_dropped(wire):
    one = wire(body_s=20, body_rate_bytes_s=1000).feed(post()[:100_000]).after(121)
    assert one.statuses == [408]
    one.feed(BODY, SMALL)
    assert one.statuses == [408]
    assert len(one.requests) == 0


def test_room_is_made_for_what_comes_and_not_for_what_is_claimed(wire):
    one = wire(body_bytes=1 << 30).feed(HEAD % (b"", 1 << 30))
    room = len(one.transport.protocol.get_buffer(-1))
    assert room <= 16 << 10
    one.feed(b"x" * room)
    assert len(one.transport.protocol.get_buffer(-1)) <= 3 * room


def test_a_client_that_goes_away_within_is_gone(wire):
    one = wire().feed(post()[:1000])
    assert one.transport.protocol.eof_received() is False
    one.transport.protocol.connection_lost(None)
    assert one.server.connections == 0


def test_what_ends_a_large_body_is_aligned(wire):
    for cut in range(1, 4):
        one = wire().feed(*halves(post(BODY[cut:]), 1000))
        body = one.requests[0].body
        place = ctypes.addressof(ctypes.c_char.from_buffer(body))
        assert (place + len(body)) % 16 == 0


def test_not_writing_is_not_reading_within_a_large_body_too(wire):
    one = wire().feed(post()[:1000])
    one.transport.protocol.pause_writing()
    assert one.transport.paused
    one.transport.protocol.resume_writing()
    assert not one.transport.paused


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15)
@given(
    bodies=st.lists(st.sampled_from([BODY, BODY[:-5], b"x" * (FILLED_BYTES + 1), b"", b"abc"]), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 900_000) | st.integers(0, 400), max_size=6),
    expects=st.booleans(),
)
def test_however_large_bodies_are_cut_the_requests_are_the_same(wire, bodies, cuts, expects):
    data = b"".join(post(body, b"Expect: 100-continue\r\n" if expects else b"") for body in bodies)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    one = wire().feed(*(data[start:end] for start, end in pairwise(edges)))
    assert [bytes(request.body) for request in one.requests] == bodies
    assert one.connection.phase is Phase.IDLE
    assert one.server.in_flight == 0
    assert not isinstance(one.transport.protocol, asyncio.BufferedProtocol)
