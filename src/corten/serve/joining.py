"""Whether a model gains by being given several requests at once: learned from what its calls take.

Pure: told of calls, asked before the next. Joining is what nearly every model gains by, so it is how all begin. One
that does not, such as an embedder whose texts are padded to the longest of a batch, gets its requests one by one, so
that nobody waits for those that came along. Now and then the other way is tried: models, texts and machines change.
"""

from __future__ import annotations

TRIAL_JOBS = 8  # joined at most, to see whether it pays: all of them wait for each other
_TRIAL_CALLS = 8
_LEAST_TRIAL_CALLS = 2
_WEIGHT = 0.15  # of the newest call in the running means
# Time a row joined, of that alone: between the two whoever is right now stays right, so that noise decides nothing.
_GAINS = 0.75
_GAINS_NOTHING = 0.95
_PLAINLY = 2.0  # so many times better, and a trial ends early or is not begun
_FIRST_WAIT = 16  # calls between trials; doubled with each that changes nothing
_LONGEST_WAIT = 1024


class Joining:
    """What is known of one model. `together`: whether requests are joined now."""

    __slots__ = ("_alone_s", "_joined_s", "_left", "_trials", "_wait", "together")

    def __init__(self) -> None:
        self.together = True
        self._alone_s: float | None = None  # running means of the time a row
        self._joined_s: float | None = None
        self._trials = 0  # calls of the other way still to be made
        self._wait = self._left = _FIRST_WAIT

    def most(self, jobs: int) -> int:
        """How many of `jobs` that wait may go into the next call."""
        if self._trials:
            return 1 if self.together else min(jobs, TRIAL_JOBS)
        return jobs if self.together else 1

    def learn(self, jobs: int, rows: int, model_s: float) -> None:
        """A call has returned."""
        row_s = model_s / max(rows, 1)
        if jobs > 1:
            self._joined_s = _mean(self._joined_s, row_s)
        else:
            self._alone_s = _mean(self._alone_s, row_s)
        other = (jobs > 1) is not self.together
        if self._trials:
            self._trials -= other
            if not self._trials or (self._trials <= _TRIAL_CALLS - _LEAST_TRIAL_CALLS and self._is_plain()):
                self._judge()
        elif not other:
            # While nobody has company there is nothing to try.
            self._left -= 1
            if not self._left:
                self._begin_trial()

    def _begin_trial(self) -> None:
        if self._is_plain() and self._wait < _LONGEST_WAIT:
            self._judge()  # calls without company come by themselves: of slow models a trial is dear
        else:
            self._trials = _TRIAL_CALLS

    def _is_plain(self) -> bool:
        if self._alone_s is None or self._joined_s is None:
            return False
        return max(self._alone_s, self._joined_s) > _PLAINLY * min(self._alone_s, self._joined_s)

    def _judge(self) -> None:
        self._trials, before = 0, self.together
        if self._alone_s is not None and self._joined_s is not None:
            limit = _GAINS_NOTHING if before else _GAINS
            self.together = self._joined_s < limit * self._alone_s
        self._wait = _FIRST_WAIT if self.together is not before else min(2 * self._wait, _LONGEST_WAIT)
        self._left = self._wait


def _mean(mean: float | None, newest: float) -> float:
    return newest if mean is None else mean + _WEIGHT * (newest - mean)
