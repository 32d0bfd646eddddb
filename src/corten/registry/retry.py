"""When to try again: at most three times, later each time, by chance apart so that clients do not come back at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from corten.errors import CortenError

Result = TypeVar("Result")
# A registry that asks for a longer pause is told to the user instead of waited for.
_LONGEST_PAUSE_S = 60.0


class AgainError(Exception):
    """Something that may pass: a lost connection, 429, 5xx. `final` is raised when it does not.

    `after_s` is what the registry asked for (Retry-After), 0 when it did not.
    """

    def __init__(self, final: CortenError, after_s: float = 0.0) -> None:
        super().__init__(str(final))
        self.final = final
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Retries:
    """`jitter` gives numbers from 0 to 1; `pause` waits that many seconds, and says True when all is given up."""

    jitter: Callable[[], float]
    pause: Callable[[float], object]
    delays_s: tuple[float, ...] = (0.5, 2.0, 6.0)

    def run(self, attempt: Callable[[], Result]) -> Result:
        """Call until it does not raise AgainError; the last one's `final` is raised."""
        for delay_s in self.delays_s:
            try:
                return attempt()
            except AgainError as error:
                if error.after_s > _LONGEST_PAUSE_S:
                    raise error.final from error
                if self.pause(max(delay_s * (0.5 + self.jitter() / 2), error.after_s)):
                    raise error.final from error
        try:
            return attempt()
        except AgainError as error:
            raise error.final from error


def retry_after_s(text: str) -> float:
    """Read Retry-After in seconds (RFC 9110, 10.2.3); 0 for nonsense and for dates, which would need a clock."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
