"""How many requests a model is given at once: learned from what its calls take.

Pure: told of calls, asked before the next. All that wait is what nearly every model gains by, so it is how all begin.
One that gains nothing by the last of them gets fewer, or one at a time: whoever is in a call waits for all of it, and
large calls of one processor may even cost more, by padding or by leaving its caches. Now and then a quarter or four
times as many are tried: models, inputs and machines change.
"""

from __future__ import annotations

# Requests in a call. Each step has to pay for itself beside the one below.
STEPS = (1, 4, 16, 64, 256, 1024)
_TOP = len(STEPS)  # all that wait
_TRIAL_CALLS = 8
_LEAST_TRIAL_CALLS = 2
_WEIGHT = 0.15  # of the newest call in the running means
# Time a row in the larger calls, of that in the smaller: between the two whoever is right now stays right, so that
# noise decides nothing.
_GAINS = 0.85
_GAINS_NOTHING = 0.95
_PLAINLY = 2.0  # so many times better, and a trial ends early or is not begun
_FIRST_WAIT = 8  # calls between trials; doubled with each that changes nothing
_LONGEST_WAIT = 1024


class Joining:
    """What is known of one model. `step`: of STEPS, how many requests go together now; beyond the last: all."""

    __slots__ = ("_here", "_left", "_row_s", "_trials", "_tried", "_up", "_wait", "step")

    def __init__(self) -> None:
        self.step = _TOP
        self._row_s: list[float | None] = [None] * (_TOP + 1)  # running means of the time a row, by step
        self._here = self._tried = _TOP  # what is compared in a trial
        self._trials = 0  # calls of the other size still to be made
        self._up = False  # which way the next trial goes
        self._wait = self._left = _FIRST_WAIT

    def most(self, jobs: int) -> int:
        """How many of `jobs` that wait may go into the next call."""
        step = self._tried if self._trials else self.step
        return jobs if step == _TOP else min(jobs, STEPS[step])

    def learn(self, jobs: int, rows: int, model_s: float) -> None:
        """A call has returned."""
        step, row_s = _step_of(jobs), model_s / max(rows, 1)
        before = self._row_s[step]
        self._row_s[step] = row_s if before is None else before + _WEIGHT * (row_s - before)
        if self._trials:
            self._trials -= step == self._tried
            enough = self._trials <= _TRIAL_CALLS - _LEAST_TRIAL_CALLS
            if not self._trials or (enough and (self._is_plain() or self._is_idle())):
                self._judge()
        elif step or not self.step:
            # While nobody has company there is nothing to try.
            self._left -= 1
            if not self._left:
                self._begin_trial(min(step, self.step))

    def _begin_trial(self, here: int) -> None:
        """Try the step above or below the one calls have now."""
        up = here < _TOP and here == self.step and (self._up or not here)
        self._here, self._tried = here, here + 1 if up else here - 1
        if self._is_plain() and self._wait < _LONGEST_WAIT:
            self._judge()  # calls of that size come by themselves: of slow models a trial is dear
        else:
            self._trials = _TRIAL_CALLS
            self._row_s[self._tried] = None  # of before, when all may have been different

    def _is_plain(self) -> bool:
        here_s, tried_s = self._row_s[self._here], self._row_s[self._tried]
        return here_s is not None and tried_s is not None and max(here_s, tried_s) > _PLAINLY * min(here_s, tried_s)

    def _is_idle(self) -> bool:
        """Whether more at once gain nothing at all, and only make everybody wait."""
        here_s, tried_s = self._row_s[self._here], self._row_s[self._tried]
        return self._tried > self._here and here_s is not None and tried_s is not None and tried_s > here_s

    def _judge(self) -> None:
        self._trials, up, better = 0, self._tried > self._here, False
        here_s, tried_s = self._row_s[self._here], self._row_s[self._tried]
        if here_s is not None and tried_s is not None:
            better = tried_s < _GAINS * here_s if up else here_s >= _GAINS_NOTHING * tried_s
        if better:
            self.step = self._tried
        self._up = up is better  # on the same way, or the other one
        self._wait = self._left = _FIRST_WAIT if better else min(2 * self._wait, _LONGEST_WAIT)


def _step_of(jobs: int) -> int:
    return next((step for step, most in enumerate(STEPS) if jobs <= most), _TOP)
