"""Being told at once when a process ends: pidfds on the event loop (pidfd_open(2), readable at exit)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class ExitWatch:
    """Calls `wake` when a watched process ends. Only a hint: who woke looks for himself."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._fds: dict[int, int] = {}

    def watch_only(self, pids: set[int]) -> None:
        """Watch exactly these processes; of one that is gone already, the next look at the engine tells."""
        for pid in set(self._fds) - pids:
            self._drop(pid)
        for pid in pids - set(self._fds):
            self._add(pid)

    def close(self) -> None:
        """Watch nothing more."""
        self.watch_only(set())

    def _add(self, pid: int) -> None:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            # Gone, or a kernel before 5.3. Not woken for: an engine that never notices would make the loop spin.
            return
        self._fds[pid] = fd
        asyncio.get_running_loop().add_reader(fd, self._ended, pid)

    def _ended(self, pid: int) -> None:
        # An ended process's pidfd stays readable: without this the loop would spin.
        self._drop(pid)
        self._wake()

    def _drop(self, pid: int) -> None:
        fd = self._fds.pop(pid)
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
