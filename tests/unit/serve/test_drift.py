"""Distributions of what a model is asked and answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.observe.metrics import Registry
from corten.serve.drift import Drift, DriftMeters
from corten.serve.sketch import BINS, Moments, bin_of, quantiles, stability_index, value_of

NUMBERS = st.floats(-1e9, 1e9).filter(lambda number: number == 0 or abs(number) > 1e-6)


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        self.now_s += 1.0  # as long as it takes until the next look
        return self.now_s


def watched(clock=None, columns=()):
    return Drift({"x": columns}, clock or Clock())


def look(drift, rows, outputs=None, times=1):
    for _ in range(times):
        drift.look({"x": rows}, {"y": rows if outputs is None else outputs}, len(rows))


@given(st.lists(NUMBERS, min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_quantiles_are_right_within_seven_percent(numbers, share):
    values = np.array(numbers)
    bins = np.bincount(bin_of(values), minlength=BINS)
    exact = np.quantile(values, share, method="inverted_cdf")
    assert quantiles(bins, [share])[0] == pytest.approx(exact, rel=0.075, abs=1e-9)


@given(NUMBERS)
def test_the_middle_of_a_bin_lies_in_it(value):
    (index,) = bin_of(np.array([value]))
    assert bin_of(value_of(np.array([index])))[0] == index


@given(st.lists(st.tuples(NUMBERS, NUMBERS | st.just(np.nan)), min_size=2, max_size=20), st.integers(1, 19))
def test_sketches_add_up(numbers, cut):
    rows, cut = np.array(numbers), min(cut, len(numbers) - 1)
    whole, one, other = Moments(2), Moments(2), Moments(2)
    whole.add(rows)
    one.add(rows[:cut])
    other.add(rows[cut:])
    both = one.plus(other)
    assert np.array_equal(both.bins, whole.bins)
    assert np.array_equal(both.missing, whole.missing)
    assert np.allclose(both.sum, whole.sum)


def test_the_same_distribution_is_stable_and_a_moved_one_is_not():
    chance = np.random.default_rng(0)
    sketches = [Moments(1) for _ in range(3)]
    for sketch, mean in zip(sketches, (5.0, 5.0, 7.0), strict=True):
        sketch.add(chance.normal(mean, 2.0, (5000, 1)))
    reference, same, moved = (sketch.bins[0] for sketch in sketches)
    assert stability_index(reference, same) < 0.02
    assert stability_index(reference, moved) > 0.25


def test_columns_are_told_apart_by_name():
    drift = watched(columns=("age", "height"))
    look(drift, np.array([[40.0, 1.8], [20.0, np.nan]]), np.array(["yes", "no"], dtype=object))
    found = drift.report()
    assert found["rows"] == 2
    assert found["input"]["age"]["mean"] == 30
    assert (found["input"]["age"]["min"], found["input"]["age"]["max"]) == (20, 40)
    assert found["input"]["height"]["missing"] == 0.5
    assert found["output"]["y"]["shares"] == {"yes": 0.5, "no": 0.5}


def test_words_of_inputs_are_counted_and_not_told():
    drift = watched(columns=("name", "age"))
    look(drift, np.array([["secret", 3], ["secret", None]], dtype=object), np.zeros(2))
    found = drift.report()
    assert found["input"]["name"] == {"count": 2, "missing": 0.0, "distinct": 1}
    assert found["input"]["age"]["mean"] == 3
    assert "secret" not in str(found)


def test_wide_arrays_are_one_feature():
    drift = watched()
    look(drift, np.ones((2, 3, 32, 32), dtype=np.float32), np.arange(2))
    assert set(drift.report()["input"]) == {"x"}
    assert drift.report()["input"]["x"]["mean"] == 1


def test_a_change_of_the_inputs_is_seen_against_the_first_rows():
    chance = np.random.default_rng(0)
    drift = watched(columns=("a", "b"))
    for _ in range(30):
        look(drift, chance.normal(0, 1, (32, 2)), np.array(["yes", "no"] * 16, dtype=object))
    assert drift.report()["input"]["a"]["drift"] < 0.1
    for _ in range(400):
        look(drift, chance.normal((0, 3), 1, (32, 2)), np.array(["yes"] * 32, dtype=object))
    found = drift.report()
    assert found["input"]["a"]["drift"] < 0.1
    assert found["input"]["b"]["drift"] > 0.25
    assert found["output"]["y"]["drift"] > 0.25


def test_few_rows_are_described_once_a_second_and_the_same_ones_once():
    now_s = [0.0]
    drift = watched(clock=lambda: now_s[0])

    def look_at(second, value):
        now_s[0] = second
        drift.look({"x": np.full((1, 1), value)}, {"y": np.zeros(1)}, 1)
        return drift.report()

    first = look_at(1.0, 5.0)
    assert look_at(1.5, 9.0) is first
    second = look_at(2.1, 7.0)
    assert second["input"]["x"]["mean"] == 7
    now_s[0] = 1000.0
    assert drift.report() is second


def test_the_recent_past_is_forgotten_after_ten_minutes():
    drift = watched()
    look(drift, np.full((1, 1), 5.0), times=300)
    look(drift, np.full((1, 1), 7.0), times=620)
    assert drift.report()["input"]["x"]["mean"] == 7


def test_looks_are_taken_a_few_times_a_second_only():
    now_s = [0.0]
    drift = watched(lambda: now_s[0])
    for _ in range(1000):
        now_s[0] += 0.001
        look(drift, np.ones((1, 1)))
    assert drift.rows == 10


def test_what_cannot_be_watched_never_keeps_a_model_from_answering():
    drift = watched()
    look(drift, [1, 2])  # no array at all
    look(drift, np.ones((1, 1)))
    assert drift.rows == 0


def test_metrics_say_the_same():
    registry = Registry()
    meters = DriftMeters(registry)
    drift = watched(columns=("a", "b"))
    look(drift, np.array([[1.0, 2.0], [3.0, np.nan]]))
    meters.update(drift.report())
    lines = registry.render().decode().splitlines()
    assert "corten_feature_rows_total 2" in lines
    assert 'corten_feature_mean{side="input",feature="a"} 2' in lines
    assert 'corten_feature_missing_ratio{side="input",feature="b"} 0.5' in lines
