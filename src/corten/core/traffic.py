"""What a gateway counted of a revision, and of a replica."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers of one replica: errors (5xx, broken connections), and others."""

    good: int = 0
    bad: int = 0

    def since(self, earlier: Tally) -> Tally:
        """What came after an earlier look; all of it when the gateway has begun to count anew since."""
        if self.good < earlier.good or self.bad < earlier.bad:
            return self
        return Tally(self.good - earlier.good, self.bad - earlier.bad)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests a revision answered, since its gateway started or between two looks.

    `failed`: 5xx, time-outs and broken connections among them. `refused`: 4xx. Of those that were `timed`, `within`
    says for each bound in seconds, rising, how many took no longer (cumulative, as Prometheus counts), and `busy_s` is
    the sum of their times. `in_flight` is of now.
    """

    answered: int = 0
    failed: int = 0
    refused: int = 0
    timed: int = 0
    within: tuple[tuple[float, int], ...] = ()
    busy_s: float = 0.0
    in_flight: int = 0

    def since(self, earlier: Traffic) -> Traffic:
        """What came after an earlier look; all of it when the gateway has begun to count anew since."""
        if self.answered < earlier.answered or self.failed < earlier.failed or self.refused < earlier.refused:
            return self
        before = dict(earlier.within)
        return Traffic(
            self.answered - earlier.answered,
            self.failed - earlier.failed,
            self.refused - earlier.refused,
            self.timed - earlier.timed,
            tuple((bound_s, count - before.get(bound_s, 0)) for bound_s, count in self.within),
            self.busy_s - earlier.busy_s,
            self.in_flight,
        )

    def slower_than(self, bound_s: float) -> int:
        """How many took longer than one of the bounds."""
        return self.timed - dict(self.within).get(bound_s, 0)

    def quantile_s(self, share: float) -> float | None:
        """The smallest bound that this share of the timed ones kept; None when there is none."""
        if not self.timed:
            return None
        return next((bound_s for bound_s, count in self.within if count >= share * self.timed), None)
