"""Bytes on their way, told as events: how many of how many, now and then."""

from __future__ import annotations

import threading

from corten.core.events import Event, Listener, Phase

# A hundred events a step are enough for a line that moves, and not more often than a quarter of a megabyte.
_PARTS = 100
_LEAST_BYTES = 1 << 18


class Meter:
    """Counts what a step moves and tells it as `progress` events with `bytes` and `total_bytes`. Safe for threads.

    How fast that is, whoever listens finds out: no clock is read here.
    """

    def __init__(self, step: str, total_bytes: int, listen: Listener) -> None:
        self.moved_bytes = 0
        self.total_bytes = total_bytes
        self._step = step
        self._listen = listen
        self._passed_bytes = 0
        self._told_bytes = 0
        self._lock = threading.Lock()

    def expect(self, count_bytes: int) -> None:
        """More is to come than was known."""
        with self._lock:
            self.total_bytes += count_bytes

    def add(self, count_bytes: int) -> None:
        """Bytes that moved."""
        self._advance(count_bytes, count_bytes)

    def skip(self, count_bytes: int) -> None:
        """Bytes that did not have to."""
        self._advance(0, count_bytes)

    def _advance(self, moved_bytes: int, passed_bytes: int) -> None:
        with self._lock:
            self.moved_bytes += moved_bytes
            self._passed_bytes += passed_bytes
            if self._passed_bytes - self._told_bytes < max(_LEAST_BYTES, self.total_bytes // _PARTS):
                return
            self._told_bytes = self._passed_bytes
            done, total = self._passed_bytes, self.total_bytes
            message = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
            self._listen(Event(self._step, Phase.PROGRESS, message, {"bytes": done, "total_bytes": total}))
