"""When a worker that died is started again: at once, then ever later, as long as it keeps dying."""

from __future__ import annotations

_FIRST_S = 0.1
_LONGEST_S = 10.0
_CALM_S = 60.0  # of life that make earlier deaths forgotten


class Restarts:
    """The back-off of one worker. Times are any clock's seconds."""

    def __init__(self) -> None:
        self._deaths = 0

    def delay_s(self, lived_s: float) -> float:
        """How long to wait after a death; it had lived so long."""
        self._deaths = 1 if lived_s >= _CALM_S else self._deaths + 1
        return 0.0 if self._deaths == 1 else min(_FIRST_S * 2.0 ** (self._deaths - 2), _LONGEST_S)
