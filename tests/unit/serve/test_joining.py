"""How many requests are joined, learned from models that only exist as a function of how many they are given."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.serve.joining import STEPS, Joining

costs = st.floats(1e-6, 10.0)
ALL = len(STEPS)


def live(joining, calls, call_s, waiting=lambda _: 32):
    """So many calls; gives how many jobs each of them took."""
    taken = []
    for number in range(calls):
        jobs = joining.most(waiting(number)) if waiting(number) > 1 else 1
        joining.learn(jobs, jobs, call_s(jobs))
        taken.append(jobs)
    return taken


@given(fixed_s=costs, row_s=costs)
def test_a_model_whose_calls_cost_a_fixed_time_gets_all_that_waits(fixed_s, row_s):
    joining = Joining()
    taken = live(joining, 3000, lambda jobs: fixed_s + min(row_s, fixed_s / 4) * jobs)
    assert joining.step == ALL
    assert sum(taken) >= 0.95 * 32 * len(taken), "trials cost next to nothing"
    assert max(a + b for a, b in pairwise(taken)) == 64


@given(row_s=costs, padding=st.floats(1.0, 5.0), seed=st.integers(0, 1 << 32))
def test_a_model_that_gains_nothing_soon_gets_one_at_a_time(row_s, padding, seed):
    joining, noise = Joining(), Random(seed)

    def call_s(jobs):
        return row_s * jobs * (1.0 if jobs == 1 else padding) * noise.uniform(0.98, 1.02)

    taken = live(joining, 60, call_s)
    assert joining.step == 0
    assert sum(jobs > STEPS[2] for jobs in taken) <= 10, "the largest go first, and are as many as it takes to know"
    later = live(joining, 3000, call_s)
    assert joining.step == 0
    assert sum(jobs > 1 for jobs in later) < 0.02 * len(later), "trials become rare"
    assert max(later) <= STEPS[1], "and nobody waits for many"


@pytest.mark.parametrize("best", [1, 2])
@given(row_s=costs, seed=st.integers(0, 1 << 32))
def test_a_model_that_gains_by_a_few_gets_a_few(best, row_s, seed):
    """As MiniLM on one processor: 8.0 ms a text alone, 7.2 in fours, 7.9 in sixteens, 9.5 in 64."""
    joining, noise = Joining(), Random(seed)

    def call_s(jobs):
        step = next(step for step, most in enumerate(STEPS) if jobs <= most)
        return row_s * jobs * (1 + 0.12 * abs(step - best)) * noise.uniform(0.98, 1.02)

    live(joining, 60, call_s, waiting=lambda _: 60)
    later = live(joining, 3000, call_s, waiting=lambda _: 60)
    assert joining.step == best
    assert sum(jobs == STEPS[best] for jobs in later) > 0.95 * len(later)


@given(row_s=costs)
def test_a_model_that_changes_is_found_out(row_s):
    joining = Joining()
    live(joining, 300, lambda jobs: row_s * jobs)
    assert joining.step == 0
    live(joining, 4000, lambda jobs: row_s * (1 + 0.1 * jobs))
    assert STEPS[joining.step] >= 16
    live(joining, 8000, lambda jobs: row_s * 2 * jobs)
    assert joining.step == 0


@given(row_s=costs, ratio=st.floats(0.86, 0.94), seed=st.integers(0, 1 << 32))
def test_who_is_between_gaining_and_not_stays_as_it_is(row_s, ratio, seed):
    noise = Random(seed)

    def call_s(jobs):
        return row_s * jobs * (1.0 if jobs == 1 else ratio) * noise.uniform(0.995, 1.005)

    for step in (0, 1):
        joining = Joining()
        joining.step = step
        live(joining, 2000, call_s, waiting=lambda _: 4)
        assert joining.step == step


@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 50), st.floats(0.0, 100.0)), max_size=300))
def test_one_at_least_and_never_more_than_wait(history):
    joining = Joining()
    for waiting, rows, took_s in history:
        jobs = joining.most(waiting)
        assert 1 <= jobs <= waiting
        joining.learn(jobs, jobs * rows, took_s)


def test_who_plainly_gains_is_not_given_fewer_to_find_that_out():
    joining = Joining()
    for jobs in (1, 5):  # the first requests found few waiting
        joining.learn(jobs, jobs, 2.0 + 0.01 * jobs)
    assert set(live(joining, 900, lambda jobs: 2.0 + 0.01 * jobs)) == {32}


def test_nothing_is_tried_while_nobody_has_company():
    joining = Joining()
    assert set(live(joining, 500, lambda jobs: jobs, waiting=lambda _: 1)) == {1}
    assert joining.most(5) == 5
