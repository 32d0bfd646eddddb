"""What processes hold in memory, from /proc (proc(5)). Pages that several of them share are counted once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


def tree_bytes(pid: int, proc: Path = _PROC) -> int:
    """Memory that a process holds with all it started; 0 when it is gone.

    One that started none is read without a walk through its pages, which would cost milliseconds a gigabyte.
    """
    folders = [proc / str(each) for each in family(pid, proc)]
    if len(folders) == 1:
        return resident_bytes(folders[0])
    return sum(share_bytes(folder) or resident_bytes(folder) for folder in folders)


def resident_bytes(folder: Path) -> int:
    """Memory that the process of a folder of /proc holds; 0 when it is gone."""
    try:
        return int((folder / "statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


def share_bytes(folder: Path) -> int:
    """Its own pages and its share of those it shares (PSS); 0 where the kernel does not say."""
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    except (OSError, ValueError, StopIteration):
        return 0


def family(pid: int, proc: Path) -> Iterator[int]:
    """A process and what it and those started, as far as it still runs."""
    yield pid
    for thread in _threads(proc / str(pid)):
        for child in _children(thread):
            yield from family(child, proc)


def _threads(folder: Path) -> list[Path]:
    try:
        return list((folder / "task").iterdir())
    except OSError:
        return []


def _children(thread: Path) -> list[int]:
    try:
        return [int(word) for word in (thread / "children").read_text().split()]
    except (OSError, ValueError):
        return []  # gone, or a kernel that does not say
