"""Requests with the head of the one before are not parsed again, and nobody can tell."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corten.http.repeated import Head, KnownHeads, RepeatedHead

HEADS = [
    b"POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n",
    b"POST /p HTTP/1.1\r\nhost: test\r\ncontent-length: %d\r\nX-Request-Id: a\r\n\r\n",
    b"PUT /q?a=1 HTTP/1.1\r\nHost: test\r\nAccept: */*\r\nContent-Length: %d\r\nContent-Type: text/plain\r\n\r\n",
]
HOSTILE = [
    b"", b"+", b"-", b" ", b"0", b"00", b"_", b"1", b"9", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\t", b"\0", b"a", b":", b",",
    b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
    b"Host: b\r\n", b" x\r\n", b"POST /p HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"\xff",
]  # fmt: skip


def request(head, body):
    return head % len(body) + body


def without_date(sent):
    return re.sub(rb"Date: [^\r]*", b"", sent)


def seen(wire):
    """All that anybody could tell of a connection."""
    requests = [(one.method, one.target, bytes(one.body), one.raw_headers, one.keep_alive) for one in wire.requests]
    return requests, wire.refusals, without_date(wire.sent), wire.connection.phase, wire.ended


@pytest.mark.parametrize("head", HEADS)
def test_a_repeated_head_is_known_whatever_the_length_of_the_body(wire, head):
    one = wire().feed(*(request(head, body) for body in (b"a", b"bc", b"d" * 1000, b"e")))
    assert [body.body for body in one.requests] == [b"a", b"bc", b"d" * 1000, b"e"]
    assert not isinstance(one.requests[0].head, RepeatedHead)
    assert all(isinstance(known.head, RepeatedHead) for known in one.requests[1:])
    assert one.requests[2].headers["content-length"] == "1000"
    assert one.requests[1].head is one.requests[3].head


def test_a_body_over_the_limit_is_refused_behind_a_known_head_too(wire):
    one = wire(body_bytes=10).feed(request(HEADS[0], b"a"), request(HEADS[0], b"b" * 11))
    assert one.statuses == [200, 413]
    assert one.ended


def test_a_client_that_numbers_its_requests_is_not_looked_at_for_ever(wire):
    numbered = b"POST /p HTTP/1.1\r\nHost: test\r\nX-Request-Id: %d\r\nContent-Length: 1\r\n\r\na"
    one = wire().feed(*(numbered % i for i in range(40)))
    assert len(one.requests) == 40
    same = numbered % 0
    one.feed(same, same)
    assert not isinstance(one.requests[-1].head, RepeatedHead)


def test_a_head_is_kept_whole_for_sizes_that_came_and_for_no_more_than_some(wire):
    one = wire().feed(*(request(HEADS[0], b"x" * size) for size in [*range(1, 100), 5, 5]))
    head = one.requests[-1].head
    assert [len(known.body) for known in one.requests[-2:]] == [5, 5]
    assert len(head.known) == 64
    assert all(whole == HEADS[0] % (size - len(whole)) for size, whole in head.known.items())


def test_connections_of_a_server_share_what_is_known_of_a_head():
    heads, parsed = KnownHeads(), Head(b"POST", b"/p", [(b"Content-Length", b"1")], keep_alive=True, version="1.1")
    data = request(HEADS[0], b"a")
    assert heads.learn(data, parsed, 1) is heads.learn(data, parsed, 1)
    others = [heads.learn(data.replace(b"/p", b"/%d" % i), parsed, 1) for i in range(40)]
    assert len(set(map(id, others))) == 40
    assert heads.learn(data, parsed, 1) is heads.learn(data, parsed, 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(
    head=st.sampled_from(HEADS),
    bodies=st.lists(st.binary(max_size=12), min_size=1, max_size=3),
    places=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 12), st.sampled_from(HOSTILE)), max_size=3),
    more=st.sampled_from([b"", b"\r\n", b"G", request(HEADS[0], b"z")]),
)
def test_whatever_follows_means_what_it_would_mean_to_the_parser(wire, head, bodies, places, more):
    """A request like the one before, with bytes of it replaced, is fed whole (it may be known) and in two pieces (never)."""
    first = request(head, b"hello")
    second = b"".join(request(head, body) for body in bodies)
    for place, length, text in places:
        at = place % (len(second) + 1)
        second = second[:at] + text + second[at + length :]
    second += more
    known = wire().feed(first, first, second)
    parsed = wire().feed(first, first, *(piece for piece in (second[:1], second[1:]) if piece))
    assert seen(known) == seen(parsed)
