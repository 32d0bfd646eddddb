"""When a replica that runs but does not answer is as good as dead: a pure decision on what was seen of it.

Who is busy is waited for long: a model may hold the interpreter for seconds. Who is stopped, or neither answers nor
uses the processor, does not come back by being waited for; where another replica can answer in its place, it is ended
soon, and what it had in hand is asked of the other by the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

STOPPED_S: Final = 1.0
STILL_S: Final = 5.0
SILENT_S: Final = 40.0
_STILL_USE: Final = 0.01  # of a processor: what an idle event loop takes


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a replica, at `now_s`.

    `answered`: None when it was not asked. `stopped`: by a signal. `used_s`: processor seconds it had used by then.
    """

    now_s: float
    answered: bool | None
    stopped: bool
    used_s: float


@dataclass(frozen=True, slots=True)
class Vigil:
    """What is remembered of the looks before: since when it is stopped or silent, and what it had used by then."""

    stopped_since_s: float | None = None
    silent_since_s: float | None = None
    used_then_s: float = 0.0

    def after(self, look: Look) -> Vigil:
        """The same with one more look."""
        stopped_since = (look.now_s if self.stopped_since_s is None else self.stopped_since_s) if look.stopped else None
        if look.answered is None:
            return Vigil(stopped_since, self.silent_since_s, self.used_then_s)
        if look.answered:
            return Vigil(stopped_since)
        if self.silent_since_s is None:
            return Vigil(stopped_since, look.now_s, look.used_s)
        return Vigil(stopped_since, self.silent_since_s, self.used_then_s)


def hung(vigil: Vigil, look: Look, *, others: bool) -> str:
    """Why a replica is to be ended, for people; empty while it is not.

    `vigil` has seen `look`; `others`: another replica can take its requests.
    """
    if others and vigil.stopped_since_s is not None and look.now_s - vigil.stopped_since_s >= STOPPED_S:
        return "hung: its process was stopped by a signal"
    if vigil.silent_since_s is None:
        return ""
    silent_s = look.now_s - vigil.silent_since_s
    if others and silent_s >= STILL_S and look.used_s - vigil.used_then_s <= _STILL_USE * silent_s:
        return "hung: it neither answers nor works"
    return "hung: its process runs but does not answer" if silent_s >= SILENT_S else ""
