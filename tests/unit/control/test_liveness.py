"""A replica that is busy is waited for; one that is stopped or still is not, where another can answer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.control.liveness import SILENT_S, STILL_S, STOPPED_S, Look, Vigil, hung


def verdict(looks, *, others=True):
    """When it is given up and why, or None."""
    vigil = Vigil()
    for look in looks:
        vigil = vigil.after(look)
        if reason := hung(vigil, look, others=others):
            return look.now_s, reason
    return None


def looks(*, answered, stopped=False, use=0.0, until_s=100.0, step_s=0.5):
    return [Look(n * step_s, answered, stopped, n * step_s * use) for n in range(int(until_s / step_s))]


def test_one_that_answers_is_well_however_much_it_works():
    assert verdict(looks(answered=True, use=1.0)) is None
    assert verdict(looks(answered=True, use=0.0)) is None


def test_one_that_is_stopped_is_given_up_within_a_second_where_another_can_answer():
    now_s, reason = verdict(looks(answered=None, stopped=True))
    assert now_s == STOPPED_S
    assert "stopped" in reason


def test_the_only_one_is_waited_for_though_it_is_stopped():
    assert verdict(looks(answered=None, stopped=True), others=False) is None
    now_s, _ = verdict(looks(answered=False, stopped=True), others=False)
    assert now_s == SILENT_S


def test_one_that_neither_answers_nor_works_is_given_up_soon():
    now_s, reason = verdict(looks(answered=False))
    assert now_s == STILL_S
    assert "nor works" in reason


@pytest.mark.parametrize("others", [True, False])
def test_one_that_works_without_answering_is_waited_for(others):
    now_s, reason = verdict(looks(answered=False, use=0.9), others=others)
    assert now_s == SILENT_S
    assert "does not answer" in reason


def test_one_that_runs_between_its_stops_is_slow_and_not_stopped():
    assert verdict([Look(n * 0.5, None, True, ran_s=n * 0.01) for n in range(100)]) is None


def test_a_stop_that_ends_in_time_is_forgiven():
    brief = [Look(0.0, None, True, 0), Look(0.5, None, True, 0), Look(0.9, None, False, 0), Look(1.5, None, True, 0)]
    assert verdict(brief) is None


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.sampled_from([True, False, None]), st.booleans(), st.floats(0, 10))),
    st.booleans(),
)
def test_an_answer_is_always_followed_by_patience(steps, others):
    vigil, now_s, used_s = Vigil(), 0.0, 0.0
    answered_s = 0.0
    for step_s, answered, stopped, used in steps:
        now_s, used_s = now_s + step_s, used_s + used
        look = Look(now_s, answered, stopped, used_s)
        vigil = vigil.after(look)
        if answered:
            answered_s = now_s
        if reason := hung(vigil, look, others=others):
            assert "stopped" in reason or now_s - answered_s >= STILL_S
            assert others or now_s - answered_s >= SILENT_S


def test_without_another_nothing_is_given_up_sooner():
    assert verdict(looks(answered=False), others=False)[0] == SILENT_S
