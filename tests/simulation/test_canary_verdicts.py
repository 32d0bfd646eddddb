"""How soon the test that decides about canaries tells a bad one, and how seldom it wrongs a good one."""

import math
import random

import pytest

from corten.control.judge import Verdict, judge
from corten.core.traffic import Traffic

SHARE = 0.05
RUNS = 150


def before_next(chance, rate):
    """How many requests come before the next one that is of a kind with this share of them (a geometric variate)."""
    return int(math.log1p(-chance.random()) / math.log1p(-rate)) if rate else math.inf


def life(bad, usual, seed, most=3000):
    """Requests come by chance until there is a verdict; gives it and how many the canary had answered by then."""
    chance = random.Random(seed)
    stable, canary = [0, 0], [0, 0]
    good = before_next(chance, usual)
    while canary[0] < most:
        # Those that the canary does not get, in one step: nothing is decided at them.
        others = before_next(chance, SHARE)
        stable[0] += others
        while good < others:
            stable[1] += 1
            others -= good + 1
            good = before_next(chance, usual)
        good -= others
        canary[0] += 1
        canary[1] += chance.random() < bad
        if (verdict := judge(Traffic(*stable), Traffic(*canary)).verdict) is not Verdict.WAIT:
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
