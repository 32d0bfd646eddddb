"""Go into a running replica, or stand beside it with the machine's own tools: `corten exec`, `corten shell`.

By the kernel's namespaces (nsenter(1), util-linux), so it is the same on every engine of this machine. Whoever goes in
is nobody there, without capabilities, as the replica is; but it is no part of the replica, and no seccomp filter holds
it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
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
_NS_GET_OWNER_UID: Final = 0xB704  # ioctl_ns(2)


class Way(Enum):
    """As whom a replica is entered."""

    ROOT = "this machine's root"
    ITSELF = "the user it runs as"
    OWNER = "who made its users: an engine's without root"


@dataclass(frozen=True, slots=True)
class Process:
    """A replica's process as it is entered. `uid` and `gid` are its numbers outside.

    `env` is None where only its user namespace may read it. `owner` made that and may be root in it (-1: nobody).
    """

    pid: int
    uid: int
    gid: int
    env: Mapping[str, str] | None
    folder: str = "/"
    owner: int = -1


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
    process = look(_pid_of(name, replica, home))
    if process is None:
        raise EngineError("enter.gone", f"a replica of `{name}` has just ended", hint=f"corten status {name}")
    way = way_in(process, os.geteuid(), debug=debug)
    if way is None:
        raise EngineError(
            "enter.not_permitted",
            f"only root may do that with a replica of `{name}`",
            why=f"it runs as user {process.uid}, you are {os.geteuid()}",
            hint=f"sudo CORTEN_HOME={home.root} corten {'shell --debug' if debug else 'exec'} {name}",
        )
    if process.env is None:
        process = replace(process, env=_environment_within(nsenter, process.pid))
    entry = beside(nsenter, process, command, way) if debug else inside(nsenter, process, command, way)
    return subprocess.run(entry.argv, env=dict(entry.env), check=False, cwd="/").returncode


def way_in(process: Process, euid: int, *, debug: bool) -> Way | None:
    """As whom that user may go in; None: not at all. Beside it one is root, of the machine or of its users. Pure."""
    if euid == 0:
        return Way.ROOT
    if process.uid == euid and not debug:
        return Way.ITSELF
    return Way.OWNER if process.owner == euid else None


def inside(nsenter: str, process: Process, command: Sequence[str], way: Way) -> Entry:
    """A command of the image, in the replica's namespaces, as nobody, with its environment. Pure."""
    namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid")
    argv = (
        nsenter,
        "--target",
        str(process.pid),
        *namespaces,
        *_users(process, way),
        f"--wdns={process.folder}",
        "--",
        *command,
    )
    return Entry(argv, process.env or {})


def _users(process: Process, way: Way) -> tuple[str, ...]:
    match way:
        case Way.ROOT:
            # Not into its user namespace: bubblewrap's others belong to the one above. And never as root.
            uid, gid = (process.uid, process.gid) if process.uid else (USER, USER)
            return ("--setuid", str(uid), "--setgid", str(gid))
        case Way.ITSELF:
            return ("--user", "--preserve-credentials")
        case Way.OWNER:
            return ("--user", "--setuid", str(USER), "--setgid", str(USER))


def beside(nsenter: str, process: Process, command: Sequence[str], way: Way) -> Entry:
    """A command of this machine, as root, among the replica's processes and on its network. Pure."""
    users = ("--user", "--setuid", "0", "--setgid", "0") if way is Way.OWNER else ()
    seen = ("--uts", "--ipc", "--net", "--pid", *users)
    words = ("unshare", "--mount", "--propagation", "private", "--", "sh", "-c", _BESIDE, "sh", *command)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    term = (process.env or {}).get("TERM", "xterm")
    env = {"PATH": path, "TERM": term, "HOME": "/", "PS1": "beside the replica # "}
    return Entry((nsenter, "--target", str(process.pid), *seen, "--", *words), env)


def look(pid: int, proc: Path = Path("/proc")) -> Process | None:
    """What the kernel tells of a process; None when it has ended."""
    if ProcessId.of(pid) is None:
        return None
    place = proc / str(pid)
    try:
        found = place.stat()
        seen = Process(pid, found.st_uid, found.st_gid, None, owner=_owner(place))
        with suppress(PermissionError):
            seen = replace(seen, folder=str((place / "cwd").readlink()))
            seen = replace(seen, env=_pairs((place / "environ").read_bytes()))
    except OSError:
        return None
    return seen


def _owner(place: Path) -> int:
    """Who made the user namespace of a process; -1 where it may not be asked, or has no root (bubblewrap's)."""
    told = bytearray(4)
    try:
        first_ids = (place / "uid_map").read_text().split()[::3]
        if "0" not in first_ids:
            return -1
        with (place / "ns/user").open("rb") as namespace:
            fcntl.ioctl(namespace, _NS_GET_OWNER_UID, told)
    except PermissionError:
        return -1
    return int(struct.unpack("I", told)[0])


def _environment_within(nsenter: str, pid: int) -> Mapping[str, str]:
    """The environment of a process, read as root of its user namespace; empty when that has ended."""
    argv = [nsenter, "--target", str(pid), "--user", "--preserve-credentials", "--", "cat", f"/proc/{pid}/environ"]
    return _pairs(subprocess.run(argv, capture_output=True, check=False, cwd="/").stdout)


def _pairs(data: bytes) -> Mapping[str, str]:
    words = (word.decode(errors="surrogateescape").partition("=") for word in data.split(b"\0") if b"=" in word)
    return {name: text for name, _, text in words}


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
