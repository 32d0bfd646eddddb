"""Whether a canary is worse than what serves, told from as few requests as it takes. Pure.

Wald's sequential probability ratio test (A. Wald, Sequential Tests of Statistical Hypotheses, 1945) on each thing that
may be worse: failures, refusals, slow answers. Under the first hypothesis the canary does it as often as the stable
revision, under the second five times as often. The thresholds are those of an error of 0.5 % (rolling back one that is
no worse) and 10 % (letting one pass that is). Without traffic there is no verdict.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from corten.core.traffic import Traffic

ROLL_BACK_AT = math.log(0.9 / 0.005)
PASS_AT = math.log(0.1 / 0.995)
LEAST_BAD = 3  # so few may be chance, whatever the ratio says
LEAST_REQUESTS = 100  # before a share may grow
_LEAST_RATE = 0.001
_TIMES_WORSE = 5.0
_POINTS_WORSE = 0.02
_LATENCY_TIMES = 1.5  # slow: longer than this many times what 99 % of the stable revision's answers take
_LATENCY_SHARE = 0.99
_LEAST_SLOW_RATE = 0.01
_LEAST_TIMED = 100  # of the stable revision's, before its 99th percentile means anything


class Verdict(Enum):
    """What follows from a comparison."""

    WAIT = "wait"
    GROW = "grow"
    ROLL_BACK = "roll back"


@dataclass(frozen=True, slots=True)
class Test:
    """One of the things compared: `bad` of `requests` of the canary's were, `usual` is the stable one's rate.

    `ratio` is the log-likelihood ratio: above ROLL_BACK_AT it is worse, below PASS_AT it is not.
    """

    what: str
    bad: int
    requests: int
    usual: float
    ratio: float

    @property
    def worse(self) -> bool:
        """Whether that is enough to roll back."""
        return self.bad >= LEAST_BAD and self.ratio >= ROLL_BACK_AT

    @property
    def passed(self) -> bool:
        """Whether that is enough to go on."""
        return self.requests >= LEAST_REQUESTS and self.ratio <= PASS_AT


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with all it was made from."""

    verdict: Verdict
    reason: str
    tests: tuple[Test, ...]


def judge(stable: Traffic, canary: Traffic) -> Judgement:
    """Compare what both answered in the same time."""
    tests = [
        _test("failed", canary.failed, canary.answered, _rate(stable.failed, stable.answered, _LEAST_RATE)),
        _test("refused", canary.refused, canary.answered, _rate(stable.refused, stable.answered, _LEAST_RATE)),
    ]
    usual_s = stable.quantile_s(_LATENCY_SHARE)
    if usual_s is not None and stable.timed >= _LEAST_TIMED:
        bound_s = next((bound for bound, _ in stable.within if bound >= _LATENCY_TIMES * usual_s), usual_s)
        usual = _rate(stable.slower_than(bound_s), stable.timed, _LEAST_SLOW_RATE)
        slow = f"took more than {bound_s:g} s"
        tests.append(_test(slow, canary.slower_than(bound_s), canary.timed, usual))
    # Timings come later than counts: no share may grow before slowness could have been seen.
    untimed = stable.answered >= _LEAST_TIMED > stable.timed
    worst = max(tests, key=lambda test: test.ratio)
    if any(test.worse for test in tests):
        found = max((test for test in tests if test.worse), key=lambda test: test.ratio)
        return Judgement(Verdict.ROLL_BACK, _words(found), tuple(tests))
    if all(test.passed for test in tests) and not untimed:
        return Judgement(Verdict.GROW, f"no worse in {canary.answered} requests", tuple(tests))
    return Judgement(Verdict.WAIT, _words(worst) if canary.answered else "no requests yet", tuple(tests))


def explain(found: Judgement) -> Mapping[str, Any]:
    """A judgement as the journal keeps it."""
    return {
        "verdict": found.verdict.value,
        "reason": found.reason,
        "tests": [{**dataclasses.asdict(test), "ratio": round(test.ratio, 3)} for test in found.tests],
    }


def _test(what: str, bad: int, requests: int, usual: float) -> Test:
    # Where the stable revision itself does it so often that five times would be more than always: half of what is left.
    worse = min(max(_TIMES_WORSE * usual, usual + _POINTS_WORSE), (1 + usual) / 2)
    ratio = bad * math.log(worse / usual) + (requests - bad) * math.log((1 - worse) / (1 - usual))
    return Test(what, bad, requests, usual, ratio)


def _rate(bad: int, requests: int, least: float) -> float:
    """The stable revision's rate, held back towards 1 % while few requests are known, below one."""
    return min(max((bad + 0.5) / (requests + 50), least), 0.99)


def _words(test: Test) -> str:
    return f"{test.bad} of {test.requests} requests {test.what} (usual: {100 * test.usual:.2g} %)"
