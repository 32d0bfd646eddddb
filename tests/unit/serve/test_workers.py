"""The parts of a replica of several processes that need none of them."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from corten.observe.metrics import Across, Registry
from corten.serve.board import Board
from corten.serve.handing import Line, Word
from corten.serve.restarts import Restarts
from corten.serve.seat import Seat
from corten.serve.sharing import Footprint


def test_a_worker_that_dies_once_comes_back_at_once_and_one_that_keeps_dying_ever_later():
    restarts = Restarts()
    assert [restarts.delay_s(1.0) for _ in range(5)] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert max(restarts.delay_s(1.0) for _ in range(20)) == 10.0
    assert restarts.delay_s(61.0) == 0.0, "it had lived long enough"


def test_the_board_is_seen_through_each_of_its_ends():
    one = Board.new(2)
    other = Board(one.descriptor, 2)
    one.take(1, 77)
    one.publish(1, b"counted")
    one.count(1, connections=3, received=5, beat_ns=9)
    assert (other.pid(1), other.pids(), other.published(1), other.beat_ns(1)) == (77, [77], b"counted", 9)
    assert other.load(1, handed=7) == 5, "three open, two on their way"
    one.publish(1, b"")
    assert other.published(1) == b""
    one.publish(2, b"x" * (1 << 20))
    assert other.published(2) == b"", "too much is left out, and spoils no other slot"


def test_a_slot_whose_writer_ended_within_is_empty():
    board = Board.new(1)
    board.publish(1, b"whole")
    board._set(1, 32, 3)
    assert board.published(1) == b""


def test_words_and_descriptors_go_over_a_line_until_it_ends():
    line, theirs = Line.pair()
    other = Line(theirs)
    with pytest.raises(BlockingIOError):
        other.hear()
    with socket.socket() as given:
        assert line.say(Word.FORK, "2", given.fileno())
        word, text, descriptor = other.hear()
        assert (word, text) == (Word.FORK, "2")
        assert os.fstat(descriptor).st_ino == os.fstat(given.fileno()).st_ino
        os.close(descriptor)
    line.close()
    assert other.hear() is None
    assert not other.say(Word.READY)
    other.close()


def test_a_seat_survives_being_a_variable():
    seat = Seat(line=5, board=6, slot=2, workers=4, alone=True, master=99)
    assert Seat.parse(seat.text) == seat


def test_what_does_not_survive_a_fork_is_found(tmp_path):
    before = Footprint(1, Footprint.take().descriptors)
    assert before.obstacle(before) == ""
    with (tmp_path / "weights").open("wb") as written:
        assert "a file to write" in Footprint(1, before.descriptors | {written.fileno()}).obstacle(before)
    with (tmp_path / "weights").open("rb") as read:
        assert Footprint(1, before.descriptors | {read.fileno()}).obstacle(before) == ""
    with socket.socket() as connection:
        assert "a connection" in Footprint(1, before.descriptors | {connection.fileno()}).obstacle(before)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    assert "threads of its own" in Footprint.take().obstacle(before)
    end.set()
    thread.join()


def registry():
    made = Registry()
    counter = made.counter("x_total", "X.", ["code"])
    histogram = made.histogram("h", "H.", [1.0, 2.0]).labels()
    queue = made.gauge("queue", "Q.").labels()
    ready = made.gauge("ready", "R.", across=Across.LEAST).labels()
    return made, counter, histogram, queue, ready


def test_the_metrics_of_several_processes_are_one():
    one, counter, histogram, queue, ready = registry()
    counter.labels("200").inc(2)
    histogram.observe(1.5)
    queue.set(3)
    ready.set(1)
    other, counter, histogram, queue, ready = registry()
    counter.labels("200").inc(5)
    counter.labels("422").inc()
    histogram.observe(0.5)
    queue.set(4)
    ready.set(0)
    lines = one.render([other.dump(), b""]).decode().splitlines()
    for line in (
        'x_total{code="200"} 7', 'x_total{code="422"} 1', 'h_bucket{le="1"} 1', 'h_bucket{le="2"} 2', "h_sum 2",
        "h_count 2", "queue 7", "ready 0",
    ):  # fmt: skip
        assert line in lines


def test_what_an_ended_process_counted_lasts_and_what_it_was_does_not():
    ended, counter, histogram, queue, _ = registry()
    counter.labels("200").inc(2)
    histogram.observe(1.5)
    queue.set(3)
    alive = registry()[0]
    lasting = alive.fold([alive.fold([ended.dump(), b""]), ended.dump()])
    lines = alive.render([lasting]).decode().splitlines()
    assert 'x_total{code="200"} 4' in lines
    assert "h_count 2" in lines
    assert "queue 0" in lines
