"""A thread's room: what is called in it behaves as if it were called outside."""

import threading

import pytest

from corten.serve.room import with_room


def deep(levels):
    return 0 if not levels else 1 + deep(levels - 1)


def test_a_function_gets_its_arguments_and_its_result_comes_back():
    assert with_room(divmod, 7, 2) == (3, 1)
    assert with_room(sorted, [1, 2], reverse=True) == [2, 1]


def test_what_it_raises_is_raised():
    with pytest.raises(KeyError):
        with_room({}.__getitem__, "x")


def test_calls_may_be_as_deep_as_ever_in_any_thread_and_one_within_another():
    found = []
    thread = threading.Thread(target=lambda: found.append(with_room(with_room, deep, 700)))
    thread.start()
    thread.join()
    assert found == [700]
