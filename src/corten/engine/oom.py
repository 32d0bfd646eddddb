"""Hearing from the kernel that a container's memory ran out, with cgroups of version 1.

There podman's monitor hears of it after the container has ended, if at all, and the cgroup is gone with its counters by
then; Docker has once told of such an end without its reason. An eventfd(2) registered while it lives stays (podman's
before its first process runs): the kernel adds to it each time memory runs out, and once more when the cgroup is
removed (admin-guide/cgroup-v1/memory.rst, "OOM Control"; mm/memcontrol-v1.c).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corten.engine.cgroups import own_cgroups

# Between the removal of a cgroup and its event, which a worker of the kernel sends.
_SETTLE_S: Final = 0.25
_POLL_S: Final = 0.005


@dataclass(slots=True)
class OomWatches:
    """One watch a container. Threads may use it at the same time."""

    proc: Path = Path("/proc")
    _watches: dict[str, tuple[Path, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, container: str, pid: int) -> None:
        """Listen to the cgroup its process is in, from now on; nothing where there is none of version 1."""
        with self._lock:
            if pid <= 0 or container in self._watches:
                return
            for each in own_cgroups(self.proc / "self", of=self.proc / str(pid)):
                if "memory" in each.controllers:
                    with suppress(OSError):
                        self._watches[container] = (each.base, _listen(each.base))

    def ran_out(self, container: str) -> bool:
        """Whether the memory of one that has ended did; ends its watch."""
        with self._ended(container) as found:
            return found is not None and _heard(*found)

    def forget(self, container: str) -> None:
        """End the watch of one that is of no interest any more."""
        with self._ended(container):
            pass

    @contextmanager
    def _ended(self, container: str) -> Iterator[tuple[Path, int] | None]:
        with self._lock:
            found = self._watches.pop(container, None)
        try:
            yield found
        finally:
            if found is not None:
                os.close(found[1])


def _listen(group: Path) -> int:
    descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    try:
        control = os.open(group / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            (group / "cgroup.event_control").write_text(f"{descriptor} {control}")
        finally:
            os.close(control)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _heard(group: Path, descriptor: int) -> bool:
    """Whether there was more than the one event of the cgroup's removal."""
    deadline_s = time.monotonic() + _SETTLE_S
    count = 0
    while True:
        with suppress(BlockingIOError):
            count += os.eventfd_read(descriptor)
        # While the cgroup is there its removal has not been told of.
        if count > 1 or (count and group.exists()):
            return True
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
