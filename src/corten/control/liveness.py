"""When a replica that runs but does not answer is as good as dead: a pure decision on what was seen of it.

Who is busy is waited for long: a model may hold the interpreter for seconds. Who is stopped, or neither answers nor
uses the processor, does not come back by being waited for; where another replica can answer in its place, it is ended
soon, and what it had in hand is asked of the other by the gateway.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

STOPPED_S: Final = 1.0
STILL_S: Final = 5.0
SILENT_S: Final = 40.0
_STILL_USE: Final = 0.01  # of a processor: what an idle event loop takes


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a replica, at `now_s`.

    `answered`: None when it was not asked. `stopped`: by a signal. `used_s`: processor seconds it had used by then, to
    the kernel's tick; `ran_s`: those of its first thread, exactly.
    """

    now_s: float
    answered: bool | None
    stopped: bool
    used_s: float = 0.0
    ran_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Vigil:
    """What is remembered of the looks before: since when it is stopped or silent, and what it had used by then."""

    stopped_since_s: float | None = None
    ran_then_s: float = 0.0
    silent_since_s: float | None = None
    used_then_s: float = 0.0

    def after(self, look: Look) -> Vigil:
        """The same with one more look. Who ran in between was not stopped all the time."""
        if not look.stopped:
            seen = replace(self, stopped_since_s=None)
        elif self.stopped_since_s is None or look.ran_s != self.ran_then_s:
            seen = replace(self, stopped_since_s=look.now_s, ran_then_s=look.ran_s)
        else:
            seen = self
        if look.answered is None or (not look.answered and self.silent_since_s is not None):
            return seen
        return replace(seen, silent_since_s=None if look.answered else look.now_s, used_then_s=look.used_s)


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
