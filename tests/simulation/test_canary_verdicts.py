"""How soon the test that decides about canaries tells a bad one, and how seldom it wrongs a good one."""

import random

import pytest

from corten.control.judge import Verdict, judge
from corten.core.traffic import Traffic

SHARE = 0.05
RUNS = 150


def life(bad, usual, seed, most=3000):
    """Requests come by chance until there is a verdict; gives it and how many the canary had answered by then."""
    chance = random.Random(seed)
    stable, canary = [0, 0], [0, 0]
    while canary[0] < most:
        mine = chance.random() < SHARE
        side, rate = (canary, bad) if mine else (stable, usual)
        side[0] += 1
        side[1] += chance.random() < rate
        if mine and (verdict := judge(Traffic(*stable), Traffic(*canary)).verdict) is not Verdict.WAIT:
            return verdict, canary[0]
    return Verdict.WAIT, canary[0]


def lives(bad, usual):
    return [life(bad, usual, seed) for seed in range(RUNS)]


@pytest.mark.parametrize(("bad", "within"), [(1.0, 10), (0.5, 25), (0.2, 50)])
def test_a_bad_canary_is_rolled_back_within_few_requests(bad, within):
    found = lives(bad, 0.001)
    assert {verdict for verdict, _ in found} == {Verdict.ROLL_BACK}
    assert max(requests for _, requests in found) <= within


@pytest.mark.parametrize("usual", [0.0, 0.001, 0.01, 0.1])
def test_a_canary_that_is_no_worse_is_hardly_ever_rolled_back(usual):
    wronged = sum(verdict is Verdict.ROLL_BACK for verdict, _ in lives(usual, usual))
    assert wronged <= 0.02 * RUNS


def test_a_canary_that_fails_now_and_then_is_still_found():
    found = lives(0.05, 0.001)
    assert sum(verdict is Verdict.ROLL_BACK for verdict, _ in found) >= 0.95 * RUNS
