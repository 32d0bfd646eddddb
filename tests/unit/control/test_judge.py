"""The test that decides about canaries: how soon it tells a bad one, and how seldom it wrongs a good one."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from corten.control.judge import LEAST_REQUESTS, Verdict, explain, judge
from corten.core.traffic import Traffic


def test_without_requests_there_is_no_verdict():
    assert judge(Traffic(1000), Traffic()).verdict is Verdict.WAIT
    assert judge(Traffic(), Traffic()).reason == "no requests yet"


def test_two_failures_may_be_chance_and_three_are_not():
    assert judge(Traffic(1000), Traffic(2, failed=2)).verdict is Verdict.WAIT
    assert judge(Traffic(1000), Traffic(3, failed=3)).verdict is Verdict.ROLL_BACK


def test_a_canary_that_refuses_what_the_other_takes_is_rolled_back():
    found = judge(Traffic(1000, refused=5), Traffic(10, refused=8))
    assert found.verdict is Verdict.ROLL_BACK
    assert "8 of 10 requests refused" in found.reason


def timed(requests, slow):
    return Traffic(
        requests, timed=requests, within=((0.01, requests - slow), (0.025, requests - slow), (1.0, requests))
    )


def test_a_slow_canary_is_rolled_back_though_it_answers():
    found = judge(timed(2000, 5), timed(40, 20))
    assert found.verdict is Verdict.ROLL_BACK
    assert "20 of 40 requests took more than 0.025 s" in found.reason


def test_no_share_grows_before_timings_have_come():
    healthy = Traffic(LEAST_REQUESTS * 3)
    assert judge(Traffic(10_000), healthy).verdict is Verdict.WAIT
    assert judge(timed(10_000, 10), timed(LEAST_REQUESTS * 3, 0)).verdict is Verdict.GROW


def test_few_requests_grow_no_share_however_well_they_went():
    # The ratio alone would have said so: the other fails so often that few good answers tell.
    often = replace(timed(10_000, 5_000), failed=5_000, refused=4_000)
    assert judge(often, timed(LEAST_REQUESTS - 1, 0)).verdict is Verdict.WAIT
    assert judge(often, timed(LEAST_REQUESTS, 0)).verdict is Verdict.GROW


def test_what_is_neither_worse_nor_shown_not_to_be_waits_and_is_told():
    usual = replace(timed(10_000, 10), failed=100)
    found = judge(usual, replace(timed(150, 0), failed=4))
    assert found.verdict is Verdict.WAIT
    assert found.reason == "4 of 150 requests failed (usual: 1 %)"


def test_of_two_reasons_to_roll_back_the_greater_is_told():
    found = judge(Traffic(1000), Traffic(20, failed=5, refused=15))
    assert (found.verdict, found.reason.partition(" (")[0]) == (Verdict.ROLL_BACK, "15 of 20 requests refused")


counts = st.integers(0, 10_000)


@given(stable=st.tuples(counts, counts, counts), canary=st.tuples(counts, counts, counts))
def test_any_counts_have_a_verdict_with_its_figures(stable, canary):
    found = judge(*(Traffic(sum(each), each[0], each[1]) for each in (stable, canary)))
    told = explain(found)
    assert told["verdict"] == found.verdict.value
    assert all(0 < test["usual"] < 1 for test in told["tests"])


@given(stable=counts, answered=st.integers(3, 500), failed=st.integers(0, 500))
def test_one_more_failure_never_makes_it_better(stable, answered, failed):
    failed = min(failed, answered - 1)
    fewer, more = (judge(Traffic(stable), Traffic(answered, failed=each)) for each in (failed, failed + 1))
    assert more.tests[0].ratio > fewer.tests[0].ratio
