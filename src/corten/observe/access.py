"""One line for a request: every failed one up to a rate, and a share of the others."""

from __future__ import annotations

import logging
from typing import Any

_log = logging.getLogger("corten.access")


class AccessLog:
    """Chooses what is logged. `share` of the answers below 500 (0 none, 1 all), at most `failures_per_s` of the others.

    Sampling counts instead of throwing dice: of 0.01, each hundredth. What the limit left out is told in the next
    line's `suppressed`.
    """

    def __init__(self, share: float, *, failures_per_s: int = 20) -> None:
        self.share = min(max(share, 0.0), 1.0)
        self._owed = 0.0
        self._failures_per_s = failures_per_s
        self._second = 0
        self._in_second = 0
        self._suppressed = 0

    def wants(self, status: int, now_s: float) -> bool:
        """Whether this answer is to be logged. Cheap, and counts: ask once for each answer."""
        if status < 500:
            self._owed += self.share
            if self._owed < 1.0:
                return False
            self._owed -= 1.0
            return True
        if int(now_s) != self._second:
            self._second = int(now_s)
            self._in_second = 0
        self._in_second += 1
        if self._in_second > self._failures_per_s:
            self._suppressed += 1
            return False
        return True

    def write(self, status: int, fields: dict[str, Any]) -> None:
        """Log one answer."""
        if self._suppressed:
            fields["suppressed"] = self._suppressed
            self._suppressed = 0
        level = logging.INFO if status < 500 else logging.ERROR
        _log.log(level, "answered %d", status, extra={"status": status, **fields})
