"""Looking at one replica again and again, to tell whether it is as good as dead (`control.liveness` decides)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from corten.control.liveness import Look, Vigil, hung
from corten.control.probe import Answer
from corten.core.deployment import Replica
from corten.core.process import is_stopped
from corten.observe.host import processor_s, ran_s

LOOK_PERIOD_S, ASK_PERIOD_S, ASK_TIMEOUT_S = 0.5, 5.0, 2.0


def _now_s() -> float:
    return asyncio.get_running_loop().time()  # not the wall's clock, which jumps


@dataclass(slots=True)
class Watch:
    """Of `replica`. It is asked every few seconds; while it is silent, all the time; with no `ask`, never.

    `stopped`: whether a process is, by a signal, by pid.
    """

    replica: Replica
    ask: Callable[..., Awaitable[Answer]] | None
    stopped: Callable[[int], bool] = is_stopped
    _vigil: Vigil = field(default_factory=Vigil)
    _ask_s: float = field(default_factory=lambda: _now_s() + ASK_PERIOD_S)
    _asking: asyncio.Future[Answer] | None = None

    def look(self, others: Callable[[], bool]) -> str:
        """Why it is to be ended, for people; empty while it is not. `others`: whether another can take its requests."""
        pid = self.replica.pid
        stopped = self.stopped(pid)
        answered = False if stopped else self._answered()  # who is stopped cannot, and is not waited for
        look = Look(_now_s(), answered, stopped, processor_s(pid), ran_s(pid))
        self._vigil = self._vigil.after(look)
        return hung(self._vigil, look, others=others())

    def _answered(self) -> bool | None:
        """Whether it answered what it was asked; None when it was not, or has its time still."""
        if self.ask and self._asking is None and (self._vigil.silent_since_s is not None or _now_s() >= self._ask_s):
            question = self.ask(self.replica.address, "/livez", timeout_s=ASK_TIMEOUT_S)
            self._asking = asyncio.ensure_future(question)
        if self._asking is None or not self._asking.done():
            return None
        answer, self._asking, self._ask_s = self._asking.result(), None, _now_s() + ASK_PERIOD_S
        return bool(answer.status)

    def close(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
