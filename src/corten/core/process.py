"""Processes of this machine, told apart for certain: a PID alone may belong to somebody else by now."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
# Field numbers of proc_pid_stat(5), counted behind the command's closing parenthesis.
_STATE, _PARENT, _START_TICKS = 0, 1, 19
# How long the kernel may take to clear away a killed process and its namespace.
_GONE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process: its PID, when it started (clock ticks since boot), and which boot that was. Never reused."""

    pid: int
    start_ticks: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessId | None:
        """The process that has this PID now; None when there is none, or only its zombie."""
        found = _stat(pid)
        if found is None or found[_STATE] in ("Z", "X"):
            return None
        return cls(pid, int(found[_START_TICKS]), boot_id())

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessId.of(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signal exactly this process (by pidfd); False when it has ended."""
        with self._opened() as descriptor:
            if descriptor is None:
                return False
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return False
            return True

    def kill(self, *, wait_s: float = _GONE_S) -> None:
        """SIGKILL, and wait until it is gone. As the first process of a PID namespace it takes all others along."""
        with self._opened() as descriptor:
            if descriptor is None:
                return
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            # A pidfd becomes readable when its process has ended (pidfd_open(2)).
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            poller.poll(wait_s * 1000)

    def heeds(self, number: signal.Signals) -> bool:
        """Whether it catches or ignores a signal. The first process of a PID namespace gets no other (signal(7))."""
        masks = 0
        with suppress(OSError):
            for line in (_PROC / str(self.pid) / "status").read_text().splitlines():
                if line.startswith(("SigCgt:", "SigIgn:")):
                    masks |= int(line.partition(":")[2], 16)
        return bool(masks & (1 << (number - 1)))

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            # Checked after opening: from here on the descriptor means this process whatever happens to the PID.
            yield descriptor if self.alive else None
        finally:
            os.close(descriptor)


def boot_id() -> str:
    """Which boot of the kernel this is; start ticks count from it."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def parent(pid: int) -> int:
    """The PID of a process's parent (0 when it is gone)."""
    found = _stat(pid)
    return int(found[_PARENT]) if found else 0


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal (proc_pid_stat(5): state T)."""
    found = _stat(pid)
    return found is not None and found[_STATE] == "T"


def is_gone(pid: int) -> bool:
    """Whether a process has ended, though nobody may have been told of it yet (states Z and X)."""
    found = _stat(pid)
    return found is None or found[_STATE] in "ZX"


def command(pid: int) -> str:
    """A process's short name (empty when it is gone)."""
    with suppress(OSError):
        return (_PROC / str(pid) / "comm").read_text().strip()
    return ""


def with_environment(marker: str) -> list[ProcessId]:
    """All processes started with the assignment `NAME=value` in their environment. Ours to read or left out."""
    wanted = marker.encode()
    found = []
    for entry in _PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                process = ProcessId.of(int(entry.name))
                if process:
                    found.append(process)
    return found


def descendants(pid: int) -> list[ProcessId]:
    """A process and all that came of it, parents first; of the first process of a PID namespace, all in that."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (found := _stat(int(entry.name))):
            children.setdefault(int(found[_PARENT]), []).append(int(entry.name))
    tree = [pid]
    for each in tree:  # grows while it is walked
        tree += children.get(each, [])
    return [process for each in tree if (process := ProcessId.of(each))]


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The command may hold spaces and parentheses; the last parenthesis ends it.
    return text.rpartition(")")[2].split()
