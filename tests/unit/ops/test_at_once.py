"""The same for many things at a time."""

import threading
import time

import pytest

from corten.ops.at_once import at_once


def test_each_has_its_result_in_the_order_that_was_asked_for():
    met = threading.Barrier(4, timeout=10)

    def halved(number):
        met.wait()  # four are under way at the same time
        return number / 2

    assert at_once(halved, range(8), 4) == [number / 2 for number in range(8)]
    assert at_once(halved, [], 4) == []


def test_no_more_than_so_many_are_under_way():
    lock, met, now, most = threading.Lock(), threading.Barrier(3, timeout=10), 0, 0

    def watched(_):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        met.wait()
        with lock:
            now -= 1

    at_once(watched, range(30), 3)
    assert most == 3


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_who_breaks_off_waits_for_nobody_and_begins_nothing_more(failure):
    begun, over = [], threading.Event()

    def work(number):
        begun.append(number)
        if number == 0:
            raise failure
        over.wait(30)

    begun_s = time.monotonic()
    with pytest.raises(failure):
        at_once(work, range(50), 2)
    assert time.monotonic() - begun_s < 5
    over.set()
    assert len(begun) <= 3
