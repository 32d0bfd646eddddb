"""Start processes that outlive this one: bubblewrap with its descriptors, or a plain program."""

from __future__ import annotations

import json
import os
import re
import resource
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Final

from corten.core.platform import Platform
from corten.core.process import ProcessId, command
from corten.engine.plain import PlainProcess
from corten.engine.sandbox import GID, UID, Bounds, Cell, Features, Host, options
from corten.engine.seccomp import program
from corten.errors import EngineError

_SETUP_S: Final = 10.0
_PROBE_S: Final = 10.0
_POLL_S: Final = 0.0005


@dataclass(frozen=True, slots=True)
class SandboxProbe:
    """Whether bubblewrap works here, as whom replicas then run outside, and if not, why."""

    works: bool
    path: str = ""
    version: str = ""
    host: Host | None = None
    features: Features = field(default_factory=Features)
    prlimit: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Launched:
    """A started sandbox: its first process, and the bubblewrap that reports its end."""

    process: ProcessId | None
    watcher: ProcessId | None


def probe(bwrap: str | None, hosts: Sequence[Host] | None = None) -> SandboxProbe:
    """Run a program in a sandbox as strict as a replica's, for each of `hosts` until one works. Takes about 10 ms.

    `bwrap` is the program's path (None: not found). Never raises for a sandbox that does not work.
    """
    if not bwrap:
        return SandboxProbe(works=False, reason="bubblewrap (`bwrap`) is not installed")
    try:
        version = subprocess.run([bwrap, "--version"], capture_output=True, text=True, timeout=_PROBE_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return SandboxProbe(works=False, path=bwrap, reason=f"`{bwrap} --version` failed: {error}")
    number = re.search(r"\d+(?:\.\d+)+", version.stdout)
    text = number[0] if number else "0.0"
    features = Features.of(tuple(int(part) for part in text.split(".")))
    reason = ""
    for host in hosts or default_hosts(os.geteuid()):
        reason = _try(bwrap, host, features)
        if not reason:
            return SandboxProbe(True, bwrap, text, host, features, shutil.which("prlimit"))
    return SandboxProbe(works=False, path=bwrap, version=text, features=features, reason=reason)


def default_hosts(uid: int) -> tuple[Host, ...]:
    """As whom to start bubblewrap, best first."""
    return (Host.NOBODY, Host.ROOT) if uid == 0 else (Host.CALLER,)


def _try(bwrap: str, host: Host, features: Features) -> str:
    """Why a sandbox does not work; empty when it does. Runs bwrap in itself: the one program sure to be there."""
    cell = ("--unshare-all", "--unshare-user", "--uid", str(UID), "--gid", str(GID), "--as-pid-1", "--new-session")
    extra = ("--disable-userns",) if features.disable_userns else ()
    mounts = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")  # noqa: S108
    user, group, groups = _identity(host)
    try:
        with _memory("seccomp", program(Platform.of_machine())) as filters:
            done = subprocess.run(
                [bwrap, *cell, *extra, *mounts, "--cap-drop", "ALL", "--seccomp", str(filters), bwrap, "--version"],
                capture_output=True,
                text=True,
                timeout=_PROBE_S,
                check=False,
                pass_fds=(filters,),
                cwd="/",
                user=user,
                group=group,
                extra_groups=groups,
            )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def launch_sandbox(
    found: SandboxProbe,
    cell: Cell,
    bounds: Bounds,
    platform: Platform,
    *,
    marker: str,
    log: Path,
    status: Path,
    started: Callable[[Launched], None],
) -> Launched:
    """Start a cell's command; returns once it has taken over from bubblewrap, about 10 ms later.

    `marker` (`NAME=value`) is put into bubblewrap's own environment too. `started` is called with the processes while
    they are still held back. Output is appended to `log`, bubblewrap's reports go to `status`. Raises EngineError
    `engine.start_failed` or `engine.sandbox_failed`, and then nothing is left running.
    """
    name, _, value = marker.partition("=")
    with ExitStack() as stack:
        secrets = {name: stack.enter_context(_memory("secret", value)) for name, value in cell.secrets.items()}
        words = options(cell, bounds, found.features, secrets)
        arguments = "\0".join(words).encode(errors="surrogateescape") + b"\0"
        told, telling = _pipe(stack)
        held, holding = _pipe(stack)
        given = {
            "--args": stack.enter_context(_memory("bwrap-args", arguments)),
            "--seccomp": stack.enter_context(_memory("seccomp", program(platform))),
            "--json-status-fd": _opened(stack, status, os.O_TRUNC),
            "--info-fd": telling.fileno(),
            "--block-fd": held.fileno(),
        }
        watcher = _spawn(
            (
                *limited(bounds, found.host, found.prlimit),
                found.path,
                *(text for flag, fd in given.items() for text in (flag, str(fd))),
                "--",
                *cell.command,
            ),
            env={name: value},
            output=_opened(stack, log, os.O_APPEND),
            pass_fds=(*given.values(), *secrets.values()),
            cwd="/",
            host=found.host,
        )
        telling.close()
        child = _told(told.fileno())
        launched = Launched(ProcessId.of(child) if child else None, ProcessId.of(watcher))
        try:
            started(launched)
        except BaseException:
            # Closing the pipe would let it go on.
            _end(launched)
            raise
        with suppress(BrokenPipeError):
            holding.write(b"1")
    _await_command(launched, watcher, log, status)
    return launched


def launch_plain(plain: PlainProcess, bounds: Bounds, *, log: Path, host: Host | None) -> ProcessId | None:
    """Start a program as it is; None when it has ended already. Raises EngineError `engine.start_failed`."""
    with ExitStack() as stack:
        output = _opened(stack, log, os.O_APPEND)
        argv = (*limited(bounds, host, shutil.which("prlimit")), *plain.argv)
        pid = _spawn(argv, env=plain.env, output=output, pass_fds=(), cwd=str(plain.working_dir), host=host)
    return ProcessId.of(pid)


def limited(bounds: Bounds, host: Host | None, prlimit: str | None) -> tuple[str, ...]:
    """A command prefix that sets resource limits: util-linux's `prlimit` (None: not installed, so none are set).

    Not by prlimit(2) on the child, which takes CAP_SYS_RESOURCE that root in a container often lacks, and not in a
    `preexec_fn`, which runs Python in a fork of a threaded daemon. Limits that are lower already stay.
    """
    if prlimit is None:
        return ()
    wanted = {"nofile": bounds.open_files, "fsize": bounds.file_bytes, "core": 0}
    if bounds.data_bytes:
        wanted["data"] = bounds.data_bytes
    if host is Host.NOBODY:
        # Counted for all processes of uid 65532; of another user's the replica's share cannot be told apart.
        wanted["nproc"] = bounds.processes
    return (prlimit, *(f"--{name}={at_most(name, value)}" for name, value in wanted.items()))


def at_most(name: str, value: int) -> int:
    """A resource limit that can be set without CAP_SYS_RESOURCE: no more than our own."""
    _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def reap(pid: int) -> int | None:
    """The exit code of a child of ours that has ended (128 + signal); None for all others. Leaves no zombie."""
    with suppress(ChildProcessError):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
    return None


def _spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    output: int,
    pass_fds: tuple[int, ...],
    cwd: str,
    host: Host | None,
) -> int:
    user, group, groups = _identity(host)
    try:
        child = subprocess.Popen(
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
            cwd=cwd,
            start_new_session=True,
            umask=0o077,
            user=user,
            group=group,
            extra_groups=groups,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineError(
            "engine.start_failed",
            f"could not start `{argv[0]}`",
            why=str(error),
            hint="corten doctor",
        ) from error
    # It is to outlive this object, which would warn at its end: reaped by `reap`, or by init when we are gone.
    child.returncode = 0
    return child.pid


def _identity(host: Host | None) -> tuple[int | None, int | None, list[int] | None]:
    """User, group and further groups to start a process as; None: as they are."""
    return (UID, GID, []) if host is Host.NOBODY else (None, None, None)


def _await_command(launched: Launched, watcher: int, log: Path, status: Path) -> None:
    """Wait until bubblewrap has become the command, so that a sandbox that cannot be made is an error of `start`."""
    deadline_s = time.monotonic() + _SETUP_S
    process = launched.process
    code: int | None = None
    while time.monotonic() < deadline_s:
        if process and process.alive:
            if command(process.pid) not in ("bwrap", ""):
                return
        elif (code := reap(watcher)) is not None or ProcessId.of(watcher) is None:
            break
        time.sleep(_POLL_S)
    _end(launched)
    last = _last_line(log)
    # bwrap reports an exit code only for a sandbox it had finished; a command it could not run is the exception.
    if "exit-code" in status.read_text() and not last.startswith("bwrap: execvp"):
        return
    raise EngineError(
        "engine.sandbox_failed",
        "the sandbox could not be set up",
        where=str(log),
        why=last or f"bubblewrap ended with code {code}",
        hint="corten doctor",
    )


def _end(launched: Launched) -> None:
    for process in (launched.process, launched.watcher):
        if process:
            process.kill()
    if launched.watcher:
        reap(launched.watcher.pid)


def _told(descriptor: int) -> int | None:
    """The child's PID from `--info-fd`: one JSON object, then the end; nothing when bubblewrap failed before."""
    data = b""
    deadline_s = time.monotonic() + _SETUP_S
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    while poller.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
        piece = os.read(descriptor, 4096)
        data += piece
        if not piece or data.rstrip().endswith(b"}"):
            break
    with suppress(ValueError, KeyError, TypeError):
        return int(json.loads(data)["child-pid"])
    return None


def _last_line(log: Path) -> str:
    with suppress(OSError):
        lines = log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
    return ""


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    # File objects, because closing one twice is harmless; a descriptor's number may be somebody else's by then.
    reading, writing = os.pipe()
    return (
        stack.enter_context(os.fdopen(reading, "rb", buffering=0)),
        stack.enter_context(os.fdopen(writing, "wb", buffering=0)),
    )


def _opened(stack: ExitStack, path: Path, flag: int) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flag, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


@contextmanager
def _memory(name: str, data: bytes) -> Iterator[int]:
    """A file in memory holding `data`, read from its start."""
    descriptor = os.memfd_create(name)
    try:
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)
