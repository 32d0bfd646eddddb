"""Whether two revisions answered alike."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.control.comparison import Compared, Reply

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def reply(value, status=200):
    return Reply(status, json.dumps(value).encode())


@given(values, st.sampled_from([200, 400, 422, 500, 503]))
def test_a_revision_is_like_itself(value, status):
    assert Compared().plus(reply(value, status), reply(value, status)) == Compared(same=1)


@given(values, values, st.sampled_from([0, 200, 400, 500]), st.sampled_from([0, 200, 400, 500]))
def test_every_pair_of_answers_counts_once(one, other, status, new_status):
    found = Compared().plus(reply(one, status), reply(other, new_status))
    assert found.answered == 1
    assert found.skipped == 0


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_whatever_the_bodies_are_they_are_alike_or_not(one, other):
    found = Compared().plus(Reply(200, one), Reply(200, other))
    assert found.answered == 1
    assert one != other or found.same == 1


@pytest.mark.parametrize(
    ("serving", "new", "expected"),
    [
        ({"outputs": [1.0, 2.0]}, {"outputs": [1.0, 2.0000001]}, Compared(same=1)),
        ({"outputs": [1, 2]}, {"outputs": [1.0, 2.0]}, Compared(same=1)),
        ({"outputs": [1.0, 2.0]}, {"outputs": [1.5, 4.0]}, Compared(differing=1, at="outputs[0]", largest=2.0)),
        ({"outputs": "a"}, {"outputs": "b"}, Compared(differing=1, at="outputs")),
        ({"a": {"b": [1]}}, {"a": {"b": [1, 2]}}, Compared(differing=1, at="a.b[1]")),
        ({"a": 1}, {}, Compared(differing=1, at="a")),
        ({"a": True}, {"a": 1}, Compared(differing=1, at="a")),
        ({"a": None}, {"a": 0}, Compared(differing=1, at="a")),
    ],
)
def test_a_difference_is_told_with_its_place_and_size(serving, new, expected):
    assert Compared().plus(reply(serving), reply(new)) == expected


@pytest.mark.parametrize("status", [0, 500, 503])
def test_a_new_revision_that_fails_where_the_serving_one_does_not_failed(status):
    found = Compared().plus(reply({}), reply({}, status))
    assert (found.failed, found.differing) == (1, 0)
    assert Compared().plus(reply({}, 400), reply({}, status)).failed == 1
    assert Compared().plus(reply({}, 500), reply({}, status)).failed == 0


def test_it_is_said_in_words():
    assert Compared().words() == "nothing compared yet"
    assert Compared(same=3).words() == "of 3 compared 3 alike, 0 differ, 0 failed"
    told = Compared(same=3, differing=1, at="outputs[0]", largest=0.25).words()
    assert told == "of 4 compared 3 alike, 1 differ, 0 failed; last at outputs[0], at most by 0.25"
