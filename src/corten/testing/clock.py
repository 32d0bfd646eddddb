"""An event loop that does not wait: when nobody has anything to do, its clock goes to the next moment somebody has.

What runs on it is what runs elsewhere, minutes pass in milliseconds, and a seeded story goes the same way each time.
Nothing on it may wait for the outside (sockets, threads, processes): those would be overtaken by the clock.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class StuckError(Exception):
    """Everybody waits for somebody else, for ever."""


class _NoSockets(selectors.SelectSelector):
    """Instead of waiting, lets the time pass."""

    passed_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StuckError
        self.passed_s += max(timeout, 0.0)
        return []


class FakeClockLoop(asyncio.SelectorEventLoop):
    """Its `time()` begins at 0 and passes by being waited for."""

    def __init__(self) -> None:
        self._waits = _NoSockets()
        super().__init__(self._waits)

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._waits.passed_s


def run_at_once(main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Run a coroutine on such a loop; raises StuckError when it can never end."""
    with asyncio.Runner(loop_factory=FakeClockLoop) as runner:
        return runner.run(main())
