"""The lines that change while something runs: what, how far, how fast, how long still. Pure: time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

# The rate is that of the last seconds, so that it follows the line and not its past.
_WINDOW_S = 5.0
# Before that a rate is a guess.
_SHORTEST_S = 0.3
_STEP_WIDTH = 9


@dataclass(slots=True)
class Gauge:
    """Bytes of one step over time."""

    done_bytes: int = 0
    total_bytes: int = 0
    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def note(self, done_bytes: int, total_bytes: int, now_s: float) -> None:
        """So much is done by now."""
        self.done_bytes, self.total_bytes = done_bytes, total_bytes
        self._seen.append((now_s, done_bytes))
        while len(self._seen) > 2 and self._seen[1][0] < now_s - _WINDOW_S:
            self._seen.popleft()

    @property
    def bytes_per_s(self) -> float | None:
        """Over the last seconds; None as long as nobody can know."""
        if not self._seen:
            return None
        (first_s, first_bytes), (last_s, last_bytes) = self._seen[0], self._seen[-1]
        took_s = last_s - first_s
        return (last_bytes - first_bytes) / took_s if took_s >= _SHORTEST_S else None

    def __str__(self) -> str:
        rate = self.bytes_per_s
        parts = [amount(self.done_bytes, self.total_bytes)]
        if self.total_bytes:
            parts.append(f"{min(100, 100 * self.done_bytes // self.total_bytes):3d} %")
        if rate:
            parts.append(f"{rate / 1e6:.1f} MB/s")
            if left_bytes := max(0, self.total_bytes - self.done_bytes):
                parts.append(f"{clock(left_bytes / rate)} left")
        return "  ".join(parts)


def amount(done_bytes: int, total_bytes: int) -> str:
    """`31.2 of 75.3 MB`, in the unit that fits the whole."""
    unit, size = ("GB", 1e9) if max(done_bytes, total_bytes) >= 10e9 else ("MB", 1e6)
    return (
        f"{done_bytes / size:.1f} of {total_bytes / size:.1f} {unit}"
        if total_bytes
        else f"{done_bytes / size:.1f} {unit}"
    )


def clock(seconds: float) -> str:
    """`0:04`, `12:30`, `1:02:03`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


@dataclass(slots=True)
class _Step:
    """A step under way: it may run several times at once, each with a title and the time it began."""

    running: list[tuple[str, float]] = field(default_factory=list)
    detail: str = ""
    gauge: Gauge | None = None
    told_s: float = 0.0


class Board:
    """All that runs now, a line a step."""

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}

    def started(self, step: str, title: str, now_s: float) -> None:
        """A step began, or began once more beside itself."""
        known = self._steps.setdefault(step, _Step(told_s=now_s))
        known.running.append((title, now_s))

    def progress(self, step: str, detail: str, figures: tuple[int, int] | None, now_s: float) -> None:
        """It goes on; `figures` are bytes done and in all."""
        known = self._steps.setdefault(step, _Step(told_s=now_s))
        known.detail = detail
        if figures:
            known.gauge = known.gauge or Gauge()
            known.gauge.note(*figures, now_s)

    def done(self, step: str, title: str) -> float | None:
        """One run of it ended; when that began, if it was told."""
        known = self._steps.get(step)
        if known is None:
            return None
        at = next((at for at, (name, _) in enumerate(known.running) if name == title), 0)
        began_s = known.running.pop(at)[1] if known.running else None
        if not known.running:
            del self._steps[step]
        return began_s

    def lines(self, width: int) -> list[str]:
        """What to show, no line wider than `width`."""
        return [_cut(f"  … {name:{_STEP_WIDTH}} {_told(step)}".rstrip(), width) for name, step in self._steps.items()]

    def due(self, step: str, every_s: float, now_s: float) -> str:
        """What to say of a step where lines cannot change: something every so many seconds, else nothing."""
        known = self._steps.get(step)
        if known is None or now_s - known.told_s < every_s:
            return ""
        known.told_s = now_s
        return f"  . {step:{_STEP_WIDTH}} {_told(step=known)}"


def _told(step: _Step) -> str:
    if step.gauge:
        return str(step.gauge)
    return step.detail or ", ".join(title for title, _ in step.running)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
