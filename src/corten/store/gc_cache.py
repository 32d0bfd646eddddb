"""What of the download cache may go: what was not used for long, then the longest unused until the rest fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Cached:
    """One thing that is removed as a whole: its size in bytes, when it was last used in seconds since the epoch."""

    path: Path
    size_bytes: int
    used_s: float


def to_remove(cached: Iterable[Cached], *, now_s: float, most_bytes: int, oldest_s: float) -> tuple[Cached, ...]:
    """Everything unused for `oldest_s` seconds, then the least recently used until at most `most_bytes` are left."""
    newest_first = sorted(cached, key=lambda one: (-one.used_s, one.path))
    removed: list[Cached] = []
    total_bytes = 0
    for one in newest_first:
        # Once one did not fit, older ones go too, however small: what is kept is always what was used last.
        if removed or one.used_s < now_s - oldest_s or total_bytes + one.size_bytes > most_bytes:
            removed.append(one)
        else:
            total_bytes += one.size_bytes
    return tuple(removed)
