"""What Prometheus expects of every process: `process_*`, from /proc (proc(5)) where there is one."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from corten.observe.memory import family, share_bytes

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Fields of proc_pid_stat(5) behind the command's closing parenthesis: utime and stime, cutime and cstime. The latter
# are of children that were waited for, so that nobody's time is counted twice.
_OWN, _CHILDREN = 11, 13


class ProcessStats(msgspec.Struct, frozen=True):
    """Collector for a Registry; `started_s` is the process' start in unix time.

    `others` are the pids of processes that are counted with this one. Pages they share are counted once.
    """

    started_s: float
    proc: Path = Path("/proc")
    others: Callable[[], Iterable[int]] = tuple

    def __call__(self) -> Iterator[str]:
        """The lines of one scrape. What cannot be read is left out."""
        others = [self.proc / str(pid) for pid in self.others() if pid != os.getpid()]
        cpu_s = time.process_time() + sum(map(_cpu_s, others))
        yield from _metric("process_cpu_seconds_total", "counter", "CPU time, user and system.", cpu_s)
        start_text = "Start of the process, unix time."
        yield from _metric("process_start_time_seconds", "gauge", start_text, self.started_s)
        folders = [self.proc / "self", *others]
        yield from _memory(folders)
        yield from _files(folders)


def tree_cpu_s(pid: int, proc: Path = Path("/proc")) -> float:
    """Processor time that a process used with all it started, also with what has ended; 0 when it is gone."""
    return sum(_cpu_s(proc / str(each)) + _cpu_s(proc / str(each), _CHILDREN) for each in family(pid, proc))


def _cpu_s(folder: Path, first: int = _OWN) -> float:
    """In user mode and in the kernel; `first` is the first of the two fields that count it."""
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[first]) + int(fields[first + 1])) / _TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return 0.0  # it has ended


def _memory(folders: Sequence[Path]) -> Iterator[str]:
    resident_bytes = total_bytes = 0
    for folder in folders:
        try:
            total_pages, resident_pages = (folder / "statm").read_text().split()[:2]
        except (OSError, ValueError):
            continue
        total_bytes += int(total_pages) * _PAGE_BYTES
        own_bytes = int(resident_pages) * _PAGE_BYTES
        resident_bytes += own_bytes if len(folders) == 1 else share_bytes(folder) or own_bytes
    if total_bytes:
        yield from _metric("process_resident_memory_bytes", "gauge", "Memory held in RAM.", resident_bytes)
        yield from _metric("process_virtual_memory_bytes", "gauge", "Address space.", total_bytes)


def _files(folders: Sequence[Path]) -> Iterator[str]:
    count = 0
    for folder in folders:
        with contextlib.suppress(OSError):
            count += len(os.listdir(folder / "fd"))  # noqa: PTH208
    if count:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        yield from _metric("process_open_fds", "gauge", "Open file descriptors.", count - 1)  # less the one that lists
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
