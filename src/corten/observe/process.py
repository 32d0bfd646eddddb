"""What Prometheus expects of every process: `process_*`, from /proc (proc(5)) where there is one."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """Collector for a Registry; `started_s` is the process' start in unix time."""

    started_s: float
    proc: Path = Path("/proc/self")

    def __call__(self) -> Iterator[str]:
        """The lines of one scrape. What cannot be read is left out."""
        cpu_s = time.process_time()
        yield from _metric("process_cpu_seconds_total", "counter", "CPU time, user and system.", cpu_s)
        start_text = "Start of the process, unix time."
        yield from _metric("process_start_time_seconds", "gauge", start_text, self.started_s)
        yield from self._memory()
        yield from self._files()

    def _memory(self) -> Iterator[str]:
        try:
            total_pages, resident_pages = (self.proc / "statm").read_text().split()[:2]
        except (OSError, ValueError):
            return
        resident_bytes, total_bytes = int(resident_pages) * _PAGE_BYTES, int(total_pages) * _PAGE_BYTES
        yield from _metric("process_resident_memory_bytes", "gauge", "Memory held in RAM.", resident_bytes)
        yield from _metric("process_virtual_memory_bytes", "gauge", "Address space.", total_bytes)

    def _files(self) -> Iterator[str]:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        try:
            count = len(os.listdir(self.proc / "fd")) - 1  # less the one that lists  # noqa: PTH208
        except OSError:
            return
        yield from _metric("process_open_fds", "gauge", "Open file descriptors.", count)
        yield from _metric("process_max_fds", "gauge", "Most file descriptors allowed.", limit)


def process_start_s(proc: Path = Path("/proc")) -> float:
    """When this process started, in unix time; now, where /proc does not say."""
    try:
        # The command name may hold spaces and brackets, so count from its last bracket (proc(5), field 22).
        fields = (proc / "self/stat").read_text().rpartition(")")[2].split()
        boot_line = next(line for line in (proc / "stat").read_text().splitlines() if line.startswith("btime "))
        return int(boot_line.split()[1]) + int(fields[19]) / _TICKS_PER_S
    except (OSError, ValueError, IndexError, StopIteration):
        return time.time()


def _metric(name: str, kind: str, text: str, value: float) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {value!r}\n"
