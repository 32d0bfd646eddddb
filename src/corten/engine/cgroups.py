"""A cgroup for each replica: what it may use at most, what it used, and whether the kernel ended it for its memory.

Of both versions (cgroups(7); the kernel's admin-guide/cgroup-v1 and cgroup-v2): a machine may have each controller in
another hierarchy. A replica's cgroups are below that of whoever starts it, so that what limits Corten as a whole still
does. Where none can be made, `Cgroups.lacking` says so and nothing here raises.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corten.core.process import ProcessId
from corten.core.resources import Resources, memory_text

CONTROLLERS: Final = ("memory", "pids", "cpu")
OWN: Final = "daemon"
_PERIOD_US: Final = 100_000
_GONE_S: Final = 0.25
_POLL_S: Final = 0.002
OUT_OF_MEMORY: Final = "out of memory"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted hierarchy: the cgroup of this process in it, and what can be limited below that."""

    base: Path
    controllers: frozenset[str]
    unified: bool  # version 2


@dataclass(frozen=True, slots=True)
class Usage:
    """What a replica's cgroup counted. `killed`: how often the kernel ended a process of it for want of memory."""

    peak_bytes: int = 0
    limit_bytes: int = 0
    killed: int = 0

    @property
    def reason(self) -> str:
        """Why it was killed, for people; empty where nothing was counted."""
        if not self.killed:
            peak = f" (its memory peaked at {memory_text(self.peak_bytes)})"
            return f"killed by signal 9, by somebody{peak}" if self.peak_bytes else ""
        limit = f"limit {memory_text(self.limit_bytes)}" if self.limit_bytes else "the machine's ran out"
        return f"{OUT_OF_MEMORY}: {limit}, peak {memory_text(self.peak_bytes)}"


class Cgroups:
    """Makes, fills, reads and removes the cgroups of replicas. Threads may use it at the same time."""

    def __init__(self, hierarchies: Sequence[Hierarchy] | None = None) -> None:
        self._hierarchies = find_hierarchies() if hierarchies is None else tuple(hierarchies)

    def folders(self, replica_id: str) -> tuple[str, ...]:
        """Where a replica's cgroups are made: to be written down before they are."""
        return tuple(str(each.base / named(replica_id)) for each in self._hierarchies)

    def lacking(self, resources: Resources) -> tuple[str, ...]:
        """Which of the limits cannot be kept here, in people's words."""
        there = frozenset().union(*(each.controllers for each in self._hierarchies))
        wanted = {"memory": resources.memory_bytes, "cpu": resources.cpus}
        return tuple(name for name, value in wanted.items() if value and name not in there)

    def make(self, folders: Iterable[str], resources: Resources, processes: int) -> None:
        """Make a replica's cgroups with its limits; `processes`: how many it may have, threads among them."""
        for hierarchy, folder in self._own(folders):
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
                for name, value in _limits(hierarchy, resources, processes):
                    # A file may be missing (no accounting of swap); the limits beside it still count.
                    with suppress(OSError):
                        (folder / name).write_text(value)

    def enter(self, folders: Iterable[str], process: ProcessId) -> None:
        """Put a process into the cgroups made for it; what it starts afterwards is in them too."""
        for folder in folders:
            with suppress(OSError):
                (Path(folder) / "cgroup.procs").write_text(str(process.pid))

    def usage(self, folders: Iterable[str]) -> Usage:
        """What was used and whether the kernel had to end something. Zeros where nothing was counted."""
        for folder in map(Path, folders):
            if (folder / "memory.limit_in_bytes").exists():
                limit = _number(folder / "memory.limit_in_bytes")
                return Usage(
                    peak_bytes=_number(folder / "memory.max_usage_in_bytes"),
                    limit_bytes=0 if limit >= 1 << 62 else limit,
                    killed=_field(folder / "memory.oom_control", "oom_kill"),
                )
            if (folder / "memory.max").exists():
                return Usage(
                    peak_bytes=_number(folder / "memory.peak"),
                    limit_bytes=_number(folder / "memory.max"),
                    killed=_field(folder / "memory.events", "oom_kill"),
                )
        return Usage()

    def remove(self, folders: Iterable[str]) -> None:
        """Take a replica's cgroups away. Its last processes may take a moment to leave them."""
        deadline_s = time.monotonic() + _GONE_S
        for folder in map(Path, folders):
            while folder.is_dir():
                with suppress(OSError):
                    folder.rmdir()
                    break
                if time.monotonic() > deadline_s:
                    break
                time.sleep(_POLL_S)

    def _own(self, folders: Iterable[str]) -> Iterable[tuple[Hierarchy, Path]]:
        for folder in map(Path, folders):
            for each in self._hierarchies:
                if folder.parent == each.base:
                    yield each, folder


def named(replica_id: str) -> str:
    """What a replica's cgroups are called."""
    return f"corten-{replica_id}"


def make_room(proc: Path = Path("/proc/self")) -> None:
    """Move this process out of the way, of version 2: into a child of the cgroup it was given for itself.

    Only a cgroup without processes may limit its children. Nothing where it has no such cgroup, or may not.
    """
    for each in own_cgroups(proc):
        if each.unified and each.base != each.root:
            with suppress(OSError):
                group = each.base / OWN
                group.mkdir(exist_ok=True)
                (group / "cgroup.procs").write_text(str(os.getpid()))


@dataclass(frozen=True, slots=True)
class Own:
    """Of one mounted hierarchy, its `root` and the cgroup below which ours are made; `controllers` of version 1."""

    root: Path
    base: Path
    controllers: frozenset[str]

    @property
    def unified(self) -> bool:
        """Whether it is version 2."""
        return not self.controllers


def own_cgroups(proc: Path = Path("/proc/self"), of: Path | None = None) -> Iterator[Own]:
    """The cgroup of this process in each mounted hierarchy (cgroups(7), proc(5)), or its parent after `make_room`.

    `of`: of another one, by its folder of /proc.
    """
    try:
        mounts = [line.split() for line in (proc / "mounts").read_text().splitlines()]
        own = [line.split(":", 2) for line in ((of or proc) / "cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, where, kind, options, *_ in mounts:
        for _, names, path in own:
            controllers = frozenset(names.split(",")) - {""}
            fits = not controllers if kind == "cgroup2" else controllers and controllers <= set(options.split(","))
            if kind in ("cgroup", "cgroup2") and fits:
                base = Path(where) / path.lstrip("/")
                yield Own(Path(where), base.parent if not controllers and base.name == OWN else base, controllers)


def find_hierarchies(proc: Path = Path("/proc/self")) -> tuple[Hierarchy, ...]:
    """Where replicas' cgroups can be made, found out by making one; of version 2, controllers are switched on."""
    found = [
        Hierarchy(
            each.base,
            _switched_on(each.base) if each.unified else each.controllers & frozenset(CONTROLLERS),
            unified=each.unified,
        )
        for each in own_cgroups(proc)
    ]
    return tuple(each for each in found if each.controllers and _works(each.base))


def _switched_on(base: Path) -> frozenset[str]:
    """Of version 2: controllers that cgroups below `base` have, after asking for them.

    The kernel refuses while processes are in `base` itself, unless it is the root: see `make_room`.
    """
    with suppress(OSError):
        there = frozenset((base / "cgroup.controllers").read_text().split())
        control = base / "cgroup.subtree_control"
        for name in there & frozenset(CONTROLLERS) - frozenset(control.read_text().split()):
            with suppress(OSError):
                control.write_text(f"+{name}")
        return frozenset(control.read_text().split()) & frozenset(CONTROLLERS)
    return frozenset()


def _works(base: Path) -> bool:
    probe = base / f"corten-probe-{time.monotonic_ns()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _limits(hierarchy: Hierarchy, resources: Resources, processes: int) -> Iterable[tuple[str, str]]:
    """Files and what to write into them, in order: version 1 takes a limit with swap only above the one without."""
    memory, quota = str(resources.memory_bytes), str(int(resources.cpus * _PERIOD_US))
    if "memory" in hierarchy.controllers:
        if resources.memory_bytes and hierarchy.unified:
            yield from (("memory.max", memory), ("memory.swap.max", "0"))
        elif resources.memory_bytes:
            yield from (("memory.limit_in_bytes", memory), ("memory.memsw.limit_in_bytes", memory))
        if hierarchy.unified:
            yield "memory.oom.group", "1"
    if "cpu" in hierarchy.controllers and resources.cpus:
        if hierarchy.unified:
            yield "cpu.max", f"{quota} {_PERIOD_US}"
        else:
            yield from (("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", quota))
    if "pids" in hierarchy.controllers:
        yield "pids.max", str(processes)


def _number(path: Path) -> int:
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def _field(path: Path, name: str) -> int:
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    return 0
