from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.serve.golden import Difference, difference

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("expected", "got"),
    [(1.0, 1.0 + 1e-7), (1000.0, 1000.001), (0.0, 1e-7), (1, 1.0), (None, None), ("a", "a"), ([[1]], [[1.0]])],
)
def test_values_within_tolerance_are_the_same(expected, got):
    assert difference(expected, got, 1e-5) is None


@pytest.mark.parametrize(
    ("expected", "got", "path"),
    [
        ([[0.1, 0.2]], [[0.1, 0.3]], "outputs[0][1]"),
        ({"a": 1, "b": [1]}, {"a": 1, "b": [2]}, "outputs.b[0]"),
        ({"a": 1}, {"b": 1}, "outputs"),
        ([1, 2], [1], "outputs"),
        ("a", "b", "outputs"),
        (1, True, "outputs"),
        (1, None, "outputs"),
        ([1], {"0": 1}, "outputs"),
        (1, "1", "outputs"),
    ],
)
def test_the_first_difference_is_named_by_its_path(expected, got, path):
    assert difference(expected, got, 1e-5).path == path


def test_a_difference_holds_both_values():
    assert difference([0, 5], [0, 7], 1e-5) == Difference("outputs[1]", 5, 7)


@given(JSON)
def test_every_value_is_the_same_as_itself(value):
    assert difference(value, value, 0.0) is None


@given(st.floats(-1e6, 1e6), st.floats(1e-9, 1e-2), st.floats(2.0, 10.0))
def test_numbers_further_apart_than_the_tolerance_differ(number, tolerance, factor):
    other = number + factor * tolerance * max(1.0, abs(number))
    assert difference(number, other, tolerance) is not None or math.isclose(
        number, other, rel_tol=tolerance, abs_tol=tolerance
    )
