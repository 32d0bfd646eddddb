"""Taking the processor from a replica and giving it back: by cgroup where one can be made, else by SIGSTOP.

A cgroup stops all of it at once and unseen; a signal stops one process after the other, and a parent outside sees it.
Both keep memory, sockets and files. A cgroup is made when a replica is first frozen, and removed with it.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corten.core.process import ProcessId
from corten.engine.cgroups import named, own_cgroups

_log = logging.getLogger(__name__)

# A process may be started while the others are stopped; it is found by the next look.
_MOST_LOOKS: Final = 20
_SETTLE_S: Final = 0.5
_POLL_S: Final = 0.001

Tree = Callable[[], Sequence[ProcessId]]


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where cgroups for freezing are made. `first` is the hierarchy with `freezer.state` (cgroup v1), else v2's."""

    base: Path
    first: bool

    def freeze(self, name: str, tree: Tree) -> None:
        """Move all of a tree into a cgroup and freeze that. Raises OSError where that is not permitted."""
        group = self.base / name
        group.mkdir(exist_ok=True)
        try:
            self._move(group, tree)
            self._write(group, frozen=True)
        except OSError:
            self.remove(name)
            raise
        # A process started between the look and the move is in the cgroup already, as its parent was.
        self._until_still(group)

    def thaw(self, name: str) -> None:
        """Let what is in it run again; nothing if there is none."""
        with suppress(FileNotFoundError):
            self._write(self.base / name, frozen=False)

    def remove(self, name: str) -> None:
        """Thaw it and take it away, if it is empty."""
        with suppress(OSError):
            self.thaw(name)
            (self.base / name).rmdir()

    @staticmethod
    def _move(group: Path, tree: Tree) -> None:
        moved: set[ProcessId] = set()
        for _ in range(_MOST_LOOKS):
            left = [process for process in tree() if process not in moved]
            if not left:
                return
            for process in left:
                with suppress(ProcessLookupError):
                    (group / "cgroup.procs").write_text(str(process.pid))
                moved.add(process)

    def _write(self, group: Path, *, frozen: bool) -> None:
        if self.first:
            (group / "freezer.state").write_text("FROZEN" if frozen else "THAWED")
        else:
            (group / "cgroup.freeze").write_text("1" if frozen else "0")

    def _until_still(self, group: Path) -> None:
        deadline_s = time.monotonic() + _SETTLE_S
        while time.monotonic() < deadline_s:
            if self.first:
                state = (group / "freezer.state").read_text()
                if state.startswith("FROZEN"):
                    return
                self._write(group, frozen=True)  # v1 may have to be told again
            elif "frozen 1" in (group / "cgroup.events").read_text():
                return
            time.sleep(_POLL_S)


class Freezer:
    """Freezes and thaws whole trees of processes, by `cgroups` where they work, else by signals."""

    def __init__(self, cgroups: Sequence[Cgroups] | None = None) -> None:
        self._cgroups = list(find_cgroups() if cgroups is None else cgroups)

    def freeze(self, name: str, tree: Tree) -> None:
        """Freeze all that `tree` gives, now and while it is repeated. `name` is the replica's."""
        for each in self._cgroups:
            try:
                each.freeze(named(name), tree)
            except OSError as error:
                _log.debug("no cgroup to freeze in: %s", error)
                continue
            return
        stopped: set[ProcessId] = set()
        for _ in range(_MOST_LOOKS):
            left = [process for process in tree() if process not in stopped]
            if not left:
                return
            for process in left:
                process.send(signal.SIGSTOP)
                stopped.add(process)

    def thaw(self, name: str, tree: Tree) -> None:
        """Undo both kinds: which it was may have been another daemon's choice."""
        for each in self._cgroups:
            with suppress(OSError):
                each.thaw(named(name))
        # Children first: a parent may look at once how its child is.
        for process in reversed(tree()):
            process.send(signal.SIGCONT)

    def forget(self, name: str) -> None:
        """Take away what was made for a replica that has ended."""
        for each in self._cgroups:
            each.remove(named(name))


def find_cgroups(proc: Path = Path("/proc/self")) -> list[Cgroups]:
    """Where this process may freeze others, version 2 first: there it is the very cgroup that limits a replica."""
    found = [
        Cgroups(each.base, first=not each.unified)
        for each in own_cgroups(proc)
        if each.base.is_dir() and (each.unified or "freezer" in each.controllers)
    ]
    return sorted(found, key=lambda each: each.first)
