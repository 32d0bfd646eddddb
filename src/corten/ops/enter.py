"""Go into a running replica, or stand beside it with the machine's own tools: `corten exec`, `corten shell`.

By the kernel's namespaces (nsenter(1), util-linux), so it is the same on every engine of this machine. Whoever goes in
is nobody there, without capabilities, as the replica is; but it is no part of the replica, and no seccomp filter holds
it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corten.control.client import connect_if_deployed
from corten.core.home import Home
from corten.core.process import ProcessId
from corten.core.security import USER
from corten.errors import EngineError, NotFoundError, UsageError
from corten.ops.missing import no_deployment

# The replica's Python with what it can import: there is no shell in the image.
PYTHON: Final = ("python3", "-i", "-q")
# A new /proc, for tools to see the replica's processes; its files are below /proc/1/root.
_BESIDE: Final = 'mount -t proc proc /proc && cd /proc/1/root && exec "$@"'


@dataclass(frozen=True, slots=True)
class Process:
    """A replica's process as it is entered. `uid` and `gid` are its numbers outside."""

    pid: int
    uid: int
    gid: int
    env: Mapping[str, str]
    folder: str = "/"


@dataclass(frozen=True, slots=True)
class Entry:
    """A command to be run, and its environment."""

    argv: tuple[str, ...]
    env: Mapping[str, str]


def run_in(
    name: str, command: Sequence[str], *, replica: str = "", debug: bool = False, home: Home | None = None
) -> int:
    """Run a command in a replica of a deployment, on our own terminal; its exit code.

    `replica` says which (its id, or how it begins; the first that is ready). `debug`: beside it, with this machine's
    programs. Raises NotFoundError, EngineError `enter.gone`, `enter.not_permitted`, `enter.no_tool`.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    nsenter = shutil.which("nsenter")
    if not nsenter:
        raise EngineError(
            "enter.no_tool", "`nsenter` is not installed", hint="install util-linux (`apt-get install util-linux`)"
        )
    pid = _pid_of(name, replica, home)
    process = look(pid)
    if process is None:
        raise EngineError("enter.gone", f"a replica of `{name}` has just ended", hint=f"corten status {name}")
    euid = os.geteuid()
    if euid not in (0, process.uid) or (debug and euid):
        raise EngineError(
            "enter.not_permitted",
            f"only root may do that with a replica of `{name}`",
            why=f"it runs as user {process.uid}, you are {euid}",
            hint=f"sudo CORTEN_HOME={home.root} corten {'shell --debug' if debug else 'exec'} {name}",
        )
    entry = beside(nsenter, process, command) if debug else inside(nsenter, process, command, root=euid == 0)
    return subprocess.run(entry.argv, env=dict(entry.env), check=False, cwd="/").returncode


def inside(nsenter: str, process: Process, command: Sequence[str], *, root: bool) -> Entry:
    """A command of the image, in the replica's namespaces, as nobody, with its environment. Pure."""
    namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid")
    if root:
        # Not into its user namespace: bubblewrap's others belong to the one above. And never as root.
        uid, gid = (process.uid, process.gid) if process.uid else (USER, USER)
        users: tuple[str, ...] = ("--setuid", str(uid), "--setgid", str(gid))
    else:
        users = ("--user", "--preserve-credentials")
    argv = (nsenter, "--target", str(process.pid), *namespaces, *users, f"--wdns={process.folder}", "--", *command)
    return Entry(argv, process.env)


def beside(nsenter: str, process: Process, command: Sequence[str]) -> Entry:
    """A command of this machine, as root, among the replica's processes and on its network. Pure."""
    seen = ("--uts", "--ipc", "--net", "--pid")
    words = ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _BESIDE, "sh", *command)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    env = {"PATH": path, "TERM": process.env.get("TERM", "xterm"), "HOME": "/", "PS1": "beside the replica # "}
    return Entry((nsenter, "--target", str(process.pid), *seen, "--", *words), env)


def look(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """What the kernel tells of a process; None when it has ended or may not be looked at."""
    if ProcessId.of(pid) is None:
        return None
    place = proc / str(pid)
    try:
        found = place.stat()
        words = (place / "environ").read_bytes().split(b"\0")
        folder = str((place / "cwd").readlink())
    except OSError:
        return None
    pairs = (word.decode(errors="surrogateescape").partition("=") for word in words if b"=" in word)
    return Process(pid, found.st_uid, found.st_gid, {name: text for name, _, text in pairs}, folder)


def _pid_of(name: str, replica: str, home: Home) -> int:
    client = connect_if_deployed(home)
    if client is None:
        raise no_deployment(name)
    replicas = [one for one in client.get(f"/v1/deployments/{name}")["replicas"] if one["pid"]]
    chosen = [one for one in replicas if one["id"].startswith(replica)] if replica else replicas
    chosen.sort(key=lambda one: one["state"] != "ready")
    if not chosen:
        known = ", ".join(one["id"] for one in replicas) or "none runs"
        raise NotFoundError(
            "enter.no_replica", f"`{name}` has no such replica running", why=known, hint=f"corten status {name}"
        )
    if chosen[0]["state"] == "frozen":
        raise UsageError(
            "enter.frozen", f"the replica of `{name}` is frozen", hint="ask it something: a request wakes it"
        )
    return int(chosen[0]["pid"])
