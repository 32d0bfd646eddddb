"""What the machine has left: processors and memory, from /proc (proc(5))."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_KIB = 1024
_IDLE = (3, 4)  # fields of a `cpu` line: idle, and waiting for a disk


@dataclass(slots=True)
class Processors:
    """How busy the processors were since the look before."""

    proc: Path = Path("/proc")
    _before: tuple[int, int] = field(default=(0, 0))

    def busy(self) -> float:
        """The share of their time that went into work, 0 to 1; 0 where nothing is known."""
        try:
            words = (self.proc / "stat").read_text().partition("\n")[0].split()[1:9]
        except OSError:
            return 0.0
        ticks = [int(word) for word in words]
        idle, total = sum(ticks[index] for index in _IDLE if index < len(ticks)), sum(ticks)
        idle_before, total_before = self._before
        self._before = idle, total
        passed = total - total_before
        return 1 - (idle - idle_before) / passed if total_before and passed > 0 else 0.0


def available_bytes(proc: Path = Path("/proc")) -> int:
    """Memory that new processes can have without anything being swapped out; 0 where nothing is known."""
    return _memory_bytes("MemAvailable:", proc)


def total_bytes(proc: Path = Path("/proc")) -> int:
    """Memory of the machine; 0 where nothing is known."""
    return _memory_bytes("MemTotal:", proc)


def _memory_bytes(key: str, proc: Path) -> int:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith(key)), 0)


def processor_s(pid: int, proc: Path = Path("/proc")) -> float:
    """Seconds of a processor that a process has used; 0 when it is gone."""
    try:
        # The command name may hold spaces and brackets, so count from its last bracket (proc(5), fields 14 and 15).
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return 0.0


def ran_s(pid: int, proc: Path = Path("/proc")) -> float:
    """Seconds the first thread of a process has run, to the nanosecond; 0 when it is gone or the kernel counts none."""
    try:
        return int((proc / str(pid) / "schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
