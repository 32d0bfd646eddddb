"""Whether a process that has loaded a model can be forked: what was started while loading does not survive it.

A fork has one thread. Those a library started (an OpenMP or ONNX Runtime pool, a client's background thread) are gone
in it, and whoever waits for them waits for ever. Descriptors are there twice: two workers would talk over one
connection, write one file at the same place, wait on one epoll. So both are compared with what was there before the
model.
"""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_SELF = Path("/proc/self")


@dataclass(frozen=True, slots=True)
class Footprint:
    """What of a process a fork does not carry over: how many threads it has, which descriptors."""

    threads: int
    descriptors: frozenset[int]

    @classmethod
    def take(cls) -> Self:
        """Of this process, now."""
        listed = [int(name) for name in os.listdir(_SELF / "fd")]  # noqa: PTH208
        # Without the one the list was read with: its number is the next one's.
        return cls(len(os.listdir(_SELF / "task")), frozenset(filter(_is_open, listed)))  # noqa: PTH208

    def obstacle(self, before: Footprint) -> str:
        """Why a process with this footprint must not be forked; empty when it may be."""
        if self.threads > 1:
            return f"the model runs {self.threads - 1} threads of its own"
        for descriptor in sorted(self.descriptors - before.descriptors):
            if kind := _kind(descriptor):
                return f"the model holds {kind} open"
        return ""


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _kind(descriptor: int) -> str:
    """What a descriptor is, empty for a file that is only read."""
    mode = os.fstat(descriptor).st_mode
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    if stat.S_ISSOCK(mode):
        return "a connection"
    if stat.S_ISREG(mode) or stat.S_ISCHR(mode) or stat.S_ISDIR(mode):
        return "a file to write" if flags & os.O_ACCMODE and not stat.S_ISCHR(mode) else ""
    return "a pipe or an event queue"
