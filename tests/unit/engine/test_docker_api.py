"""The Docker API's calls, with answers as they go over the wire."""

import json
import socket

import pytest

from corten.engine.docker_api import DockerApi, RefusedError
from corten.errors import EngineError


class Wire:
    """A connection whose other end has answered already; what was asked can be read afterwards."""

    def __init__(self, *answers):
        self._answers = [*answers]
        self._ends = []

    def connect(self):
        ours, theirs = socket.socketpair()
        theirs.sendall(self._answers.pop(0))
        theirs.shutdown(socket.SHUT_WR)
        self._ends.append(theirs)
        return ours

    @property
    def asked(self):
        for end in self._ends:
            end.setblocking(False)
        return [end.recv(1 << 16).decode() for end in self._ends]

    def close(self):
        for end in self._ends:
            end.close()


@pytest.fixture
def wired():
    """A wire with these answers, one a connection."""
    wires = []

    def make(*answers):
        wires.append(Wire(*answers))
        return wires[-1]

    yield make
    for wire in wires:
        wire.close()


def answer(status, body=b""):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def frame(stream, text):
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


def test_what_is_not_there_is_none_or_nothing(wired):
    wire = wired(*[answer(404, {"message": "No such container: x"})] * 4)
    api = DockerApi(wire.connect)
    assert api.inspect("x") is None
    assert api.image("x") is None
    assert api.logs("x", 5) == b""
    api.remove("x")
    assert [line.split()[0] for line in wire.asked] == ["GET", "GET", "GET", "DELETE"]


def test_a_refusal_has_the_engines_own_words(wired):
    api = DockerApi(wired(answer(409, {"message": "the name is in use"})).connect)
    with pytest.raises(RefusedError) as caught:
        api.create("a", {})
    assert (caught.value.status, caught.value.why, caught.value.code) == (409, "the name is in use", "engine.refused")


def test_both_streams_of_a_log_come_in_their_order(wired):
    data = frame(1, b"out\n") + frame(2, b"err\n") + frame(1, b"out again\n")
    assert DockerApi(wired(answer(200, data)).connect).logs("x", 5) == b"out\nerr\nout again\n"


def test_a_log_that_is_cut_off_gives_what_there_is(wired):
    assert DockerApi(wired(answer(200, frame(1, b"out\n") + b"\1\0\0\0\0")).connect).logs("x", 5) == b"out\n"


def test_a_container_is_told_in_values(wired):
    body = {
        "Id": "1",
        "State": {"Status": "exited", "ExitCode": 137, "OOMKilled": True, "Pid": 0},
        "New": {"unknown": 1},
    }
    found = DockerApi(wired(answer(200, body)).connect).inspect("x")
    assert (found.state.status, found.state.exit_code, found.state.oom_killed) == ("exited", 137, True)


def test_lists_are_of_one_home_and_null_is_nothing(wired):
    wire = wired(answer(200, [{"Id": "1", "State": "running", "Labels": None}]))
    listed = DockerApi(wire.connect).list("dev.corten.home=x")
    assert (listed[0].state, listed[0].labels) == ("running", None)
    assert "filters=%7B%22label%22%3A+%5B%22dev.corten.home%3Dx%22%5D%7D" in wire.asked[0]


def test_an_image_that_cannot_be_loaded_is_refused_in_the_middle_of_a_good_answer(wired):
    wire = wired(answer(200, b'{"stream":"..."}\r\n{"error":"no space left on device"}\r\n'))
    with pytest.raises(RefusedError) as caught:
        DockerApi(wire.connect).load([b"x"])
    assert caught.value.why == "no space left on device"


def test_a_connection_that_is_taken_and_never_answered_is_tried_once_more(wired):
    wire = wired(b"", answer(200, {"Version": "4", "Components": [{"Name": "Podman Engine", "Version": "4"}]}))
    assert DockerApi(wire.connect).version().is_podman
    with pytest.raises(EngineError) as caught:
        DockerApi(wired(b"", b"").connect).version()
    assert caught.value.code == "engine.no_answer"


def test_who_is_no_engine_is_found_out(wired):
    with pytest.raises(EngineError) as caught:
        DockerApi(wired(answer(200, b"<html>")).connect).version()
    assert caught.value.code == "engine.bad_answer"
