from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HOST = b"Host: test\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"


def post(body, *headers, length=True):
    lines = b"".join(header + b"\r\n" for header in headers)
    sized = b"Content-Length: %d\r\n" % len(body) if length else b""
    return b"POST /p HTTP/1.1\r\n" + HOST + lines + sized + b"\r\n" + body


def chunked(*pieces, trailer=b""):
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return post(b"", b"Transfer-Encoding: chunked", length=False) + framed + b"0\r\n" + trailer + b"\r\n"


def test_a_request_is_given_whole_and_its_answer_has_a_length(wire):
    one = wire().feed(post(b"hello", b"X-One: 1", b"X-One: 2"))
    (request,) = one.requests
    assert (request.method, request.path, request.body) == ("POST", "/p", b"hello")
    assert request.headers == {"host": "test", "x-one": "1, 2", "content-length": "5"}
    assert one.statuses == [200]
    assert b"Content-Length: 5\r\n" in one.sent
    assert one.bodies == [b"hello"]
    assert not one.ended


def test_a_request_in_single_bytes_is_the_same_request(wire):
    data = post(b"hello")
    one = wire().feed(*(data[i : i + 1] for i in range(len(data))))
    assert one.bodies == [b"hello"]


def test_chunks_are_joined_and_trailers_dropped(wire):
    one = wire().feed(chunked(b"ab", b"c" * 300, b"d", trailer=b"X-Late: 1\r\n"))
    assert one.requests[0].body == b"ab" + b"c" * 300 + b"d"
    assert "x-late" not in one.requests[0].headers


def test_path_and_query_are_split_and_absolute_targets_understood(wire):
    one = wire().feed(b"GET http://h:1/x/y?a=1&b=%20 HTTP/1.1\r\n" + HOST + b"\r\n")
    (request,) = one.requests
    assert (request.path, request.query, dict(request.params)) == ("/x/y", "a=1&b=%20", {"a": "1", "b": " "})


def test_pipelined_answers_keep_the_order_of_their_requests(wire):
    one = wire(answer_at_once=False).feed(post(b"1") + post(b"2") + post(b"3"))
    for request in reversed(one.requests):
        request.respond(200, request.body, "text/plain")
    assert one.bodies == [b"1", b"2", b"3"]


def test_a_stream_waits_for_the_answer_before_it(wire):
    one = wire(answer_at_once=False).feed(post(b"1") + post(b"2"))
    first, second = one.requests
    stream = second.stream(200, "text/plain")
    stream.write(b"ab")
    stream.end()
    assert one.sent == b""
    first.respond(200, b"1", "text/plain")
    assert one.bodies == [b"1", b"2\r\nab\r\n0\r\n\r\n"]


def test_a_stream_to_http_1_0_ends_with_the_connection(wire):
    one = wire(answer_at_once=False).feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    stream = one.requests[0].stream(200, "text/plain")
    stream.write(b"ab")
    stream.write(b"cd")
    stream.end()
    assert one.bodies == [b"abcd"]
    assert b"Connection: close" in one.sent
    assert one.ended


def test_http_1_0_is_kept_alive_only_when_asked_to(wire):
    assert wire().feed(b"GET / HTTP/1.0\r\n\r\n").ended
    one = wire().feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert not one.ended
    assert b"Connection: keep-alive" in one.sent


def test_head_gets_the_head_of_the_answer_only(wire):
    one = wire().feed(b"HEAD /abc HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b"Content-Length: 4\r\n" in one.sent
    assert one.bodies == [b""]


OFFER = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")


@pytest.mark.parametrize(
    "offering",
    [
        b"GET / HTTP/1.1\r\n" + HOST + b"\r\n".join(OFFER) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        post(b"hello", *OFFER),
        post(b"5\r\nhello\r\n0\r\n\r\n", b"Transfer-Encoding: chunked", *OFFER, length=False),
    ],
    ids=["h2c", "websocket", "body", "chunked"],
)
def test_an_offer_of_another_protocol_is_passed_over(wire, offering):
    one = wire().feed(offering, GET)
    assert one.statuses == [200, 200]
    assert one.requests[0].body == (b"hello" if offering.startswith(b"POST") else b"")
    many = wire(pipelined=10_000).feed(offering * 2000 + GET)
    assert many.statuses == [200] * 2001
    assert not many.ended
    split = wire()
    for at in range(len(offering)):
        split.feed(offering[at : at + 1])
    assert split.feed(GET).statuses == [200, 200]


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_content_say_no_length(wire, status):
    one = wire(answer_at_once=False).feed(GET)
    one.requests[0].respond(status)
    assert b"Content-" not in one.sent


def test_expect_continue_is_answered_before_the_body_comes(wire):
    data = post(b"hello", b"Expect: 100-continue")
    one = wire().feed(data[:-5])
    assert one.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    one.feed(data[-5:])
    assert one.statuses == [100, 200]


def test_expect_continue_of_a_body_that_is_too_large_is_refused_at_once(wire):
    one = wire(body_bytes=4).feed(post(b"hello", b"Expect: 100-continue")[:-5])
    assert one.statuses == [413]


def test_a_second_answer_is_a_mistake_of_the_handler(wire):
    one = wire().feed(GET)
    with pytest.raises(RuntimeError, match="answered before"):
        one.requests[0].respond(200)


def test_a_handler_that_raises_becomes_a_500(wire, caplog):
    one = wire()
    one.server._handler = lambda request: 1 / 0
    one.feed(GET)
    assert one.statuses == [500]
    assert "ZeroDivisionError" in caplog.text


def test_a_header_value_cannot_start_another_line(wire):
    one = wire(answer_at_once=False).feed(GET)
    with pytest.raises(ValueError, match="control character"):
        one.requests[0].respond(200, headers=[("X-Id", "1\r\nSet-Cookie: a=b")])


@pytest.mark.parametrize(
    "data",
    [
        post(b"abc", b"Transfer-Encoding: chunked"),
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked"),
        post(b"abc", b"Content-Length: 3"),
        post(b"abc", b"Content-Length: 4"),
        post(b"abc", b"Content-Length: 3, 3", length=False),
        post(b"abc", b"Content-Length: +3", length=False),
        post(b"abc", b"Content-Length : 3", length=False),
        post(b"abc", b"Content-Length: 99999999999999999999", length=False),
        post(b"0\r\n\r\n", b"Transfer-Encoding: xchunked", length=False),
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked, identity", length=False),
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", length=False),
        post(b"0\r\n\r\n", b"Transfer-Encoding: \x0bchunked", length=False),
        post(b"", b"X: a\r\n folded"),
        b"GET / HTTP/1.1\nHost: test\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nabc",
        post(b"zz\r\nabc\r\n0\r\n\r\n", b"Transfer-Encoding: chunked", length=False),
        post(b"3\nabc\n0\n\n", b"Transfer-Encoding: chunked", length=False),
        post(b"fffffffffffffffff1\r\nabc", b"Transfer-Encoding: chunked", length=False),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_ended(wire, data):
    one = wire().feed(data)
    assert one.requests == []
    assert one.statuses in ([400], [501], [505])
    assert one.ended
    assert one.refusals
    one.feed(GET)
    assert len(one.statuses) == 1, "nothing behind it is taken for a request"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (post(b"0\r\n\r\n", b"Transfer-Encoding: gzip, chunked", length=False), 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (post(b"x" * 100), 413),
        (chunked(b"x" * 40, b"x" * 40), 413),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 3000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 30 + b"\r\n", 431),
    ],
)
def test_limits_have_their_status(wire, data, status):
    one = wire(body_bytes=64, header_bytes=2048, headers=20).feed(data)
    assert one.requests == []
    assert one.statuses == [status]
    assert one.ended


def test_a_header_that_never_ends_is_refused_while_it_comes(wire):
    one = wire(header_bytes=2048).feed(b"GET / HTTP/1.1\r\nX: ", *([b"a" * 100] * 30))
    assert one.statuses == [431]


def test_a_trailer_that_never_ends_is_refused_while_it_comes(wire):
    one = wire(header_bytes=2048).feed(chunked(b"a")[:-2] + b"X: ", *([b"a" * 100] * 40))
    assert one.statuses == [431]


def test_chunk_extensions_are_not_kept_for_ever(wire):
    one = wire(header_bytes=2048).feed(chunked(b"a")[:-5] + b"1;", *([b"a" * 100] * 40))
    assert one.statuses == [431]


def test_a_refusal_comes_after_the_answers_that_are_owed(wire):
    one = wire(answer_at_once=False).feed(post(b"1") + b"nonsense\r\n\r\n")
    assert one.sent == b""
    one.requests[0].respond(200, b"1", "text/plain")
    assert one.statuses == [200, 400]
    assert one.ended


def test_what_follows_connection_close_is_ignored(wire):
    one = wire(answer_at_once=False).feed(post(b"1", b"Connection: close") + post(b"2"))
    one.requests[0].respond(200, b"1", "text/plain")
    assert one.statuses == [200]
    assert b"Connection: close" in one.sent
    assert one.ended


def test_headers_that_come_slowly_end_in_408(wire):
    one = wire(header_s=10).feed(b"GET / HT")
    assert not one.after(9).ended
    assert one.after(2).statuses == [408]
    assert one.ended


def test_dripping_a_header_does_not_buy_time(wire):
    one = wire(header_s=10)
    for _ in range(5):
        one.feed(b"GET / HTTP/1.1\r\n"[:1] if not one.connection._head_bytes else b"E").after(4)
    assert one.ended


def test_a_body_may_take_longer_the_larger_it_is(wire):
    one = wire(body_s=10, body_rate_bytes_s=1000).feed(post(b"x" * 20_000)[:-10_000])
    assert not one.after(19).ended
    assert one.after(3).statuses == [408]


def test_an_idle_connection_is_closed_in_time_and_not_before(wire):
    one = wire(idle_s=75).feed(GET)
    assert not one.after(74).ended
    assert one.after(2).transport.closed


def test_waiting_for_the_handler_is_not_idle(wire):
    one = wire(idle_s=75, answer_at_once=False).feed(GET)
    assert not one.after(1000).ended


def test_a_client_that_does_not_read_is_not_read_and_then_cut(wire):
    one = wire(write_s=30)
    one.connection.pause_writing()
    one.transport.unsent_bytes = 100_000
    assert one.transport.paused
    assert not one.after(1).after(29).ended
    assert one.after(2).transport.aborted


def test_a_client_that_reads_slowly_is_served_as_long_as_it_reads(wire):
    one = wire(write_s=30, idle_s=75).feed(post(b"x", b"Connection: close"))
    for left_bytes in range(1000, 0, -100):
        one.transport.unsent_bytes = left_bytes
        assert not one.after(29).transport.aborted
    one.transport.unsent_bytes = 0
    assert not one.after(1).transport.aborted
    assert one.after(3).transport.aborted, "it was to close, and has had all there is"


def test_a_stream_whose_handler_fails_is_cut_not_completed(wire, caplog):
    def fail(request):
        request.stream(200, "text/plain").write(b"half")
        raise LookupError

    one = wire()
    one.server._handler = fail
    one.feed(GET)
    assert one.transport.aborted
    assert not one.sent.endswith(b"0\r\n\r\n")
    assert "LookupError" in caplog.text


def test_reading_goes_on_when_the_client_reads_again(wire):
    one = wire()
    one.connection.pause_writing()
    one.connection.resume_writing()
    assert not one.transport.paused


def test_pipelining_beyond_the_limit_stops_reading_until_answers_are_out(wire):
    one = wire(pipelined=3, answer_at_once=False).feed(GET * 5)
    assert one.transport.paused
    for request in one.requests[:2]:
        request.respond(200)
    assert not one.transport.paused


def test_a_client_that_goes_away_is_told_to_whoever_asked(wire):
    one = wire(answer_at_once=False).feed(GET + GET)
    gone = []
    one.requests[0].on_gone(lambda: gone.append(1))
    one.connection.connection_lost(None)
    assert gone == [1]
    assert one.requests[1].gone
    assert one.server.in_flight == 0
    one.requests[1].respond(200)
    assert one.sent == b""


def test_a_half_closed_client_still_gets_its_answer(wire):
    one = wire(answer_at_once=False).feed(GET)
    assert not one.requests[0].leaving
    assert one.connection.eof_received() is True
    assert one.requests[0].leaving
    one.requests[0].respond(200, b"x", "text/plain")
    assert one.bodies == [b"x"]
    assert one.ended


def test_a_half_closed_client_that_is_watched_counts_as_gone(wire):
    one = wire(answer_at_once=False).feed(GET)
    one.requests[0].on_gone(lambda: None)
    assert one.connection.eof_received() is False


def test_while_draining_only_the_last_answer_owed_closes(wire):
    one = wire(answer_at_once=False).feed(post(b"1") + post(b"2"))
    one.server.draining = True
    for request in one.requests:
        request.respond(200, request.body, "text/plain")
    first, second = one.sent.split(b"HTTP/1.1 ")[1:]
    assert b"Connection: close" not in first
    assert b"Connection: close" in second
    assert one.ended


def test_connections_beyond_the_limit_are_told_so(wire):
    one = wire(connections=0)
    assert one.statuses == [503]
    assert one.ended


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    as_chunks=st.booleans(),
    cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=12),
)
def test_however_the_bytes_are_cut_the_requests_are_the_same(wire, bodies, as_chunks, cuts):
    data = b"".join(chunked(*filter(None, [body[:7], body[7:]])) if as_chunks else post(body) for body in bodies)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    one = wire().feed(*(data[start:end] for start, end in pairwise(edges)))
    assert [bytes(request.body) for request in one.requests] == bodies


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.sampled_from([GET, post(b"abc"), chunked(b"ab"), b"\r\n", b"Content-Length: 3\r\n", b"\x00", b"GET "])
        | st.binary(max_size=30),
        max_size=8,
    )
)
def test_no_bytes_raise_and_every_request_is_answered(wire, pieces):
    one = wire(header_bytes=500).feed(*pieces)
    assert len([status for status in one.statuses if status == 200]) == len(one.requests)
    assert all(status < 500 or status in {501, 505} for status in one.statuses)
    assert one.server.in_flight == 0
