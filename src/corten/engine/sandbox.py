"""What a replica may see and do, as arguments for bubblewrap. Pure.

Root read-only, own user, PID, network, mount, IPC, UTS and cgroup namespaces, no capabilities, no_new_privs (bwrap
always sets it), seccomp, no environment but what is listed. `--die-with-parent` is not used: replicas outlive the
daemon. `--as-pid-1` is: when the model's process ends, the kernel ends everything else in its PID namespace.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

from corten.core.secret import SECRETS
from corten.store.merge import Mount
from corten.store.trees import PYCACHE

UID: Final = 65532
GID: Final = 65532
# Where a replica finds its socket folder.
RUN: Final = "/run/corten"
JOBS: Final = f"{RUN}/jobs"
_SECRETS_BYTES: Final = 2 << 20  # more than they may have
# Read by libraries that count processors (onnxruntime, OpenBLAS, libgomp); no other part of /sys is shown.
_SYS_SHOWN: Final = ("/sys/devices/system/cpu", "/sys/devices/system/node")


class Sandbox(Enum):
    """Which isolation is asked for. AUTO takes bubblewrap where it works and says loudly where it does not."""

    AUTO = "auto"
    BWRAP = "bwrap"
    NONE = "none"


class Host(Enum):
    """Who a replica is outside its sandbox."""

    NOBODY = "nobody"  # uid 65532 there too: bwrap itself is started as it
    CALLER = "caller"  # whoever runs Corten, seen as 65532 inside
    ROOT = "root"  # root without capabilities, seen as 65532 inside: where 65532 cannot reach the trees


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one replica may use up, enforced without cgroups. Sizes in bytes."""

    tmp_bytes: int = 1 << 30
    shm_bytes: int = 1 << 30
    open_files: int = 65536
    processes: int = 4096
    # Of one file, the log among them: what is written beyond fails with EFBIG (Python ignores SIGXFSZ).
    file_bytes: int = 4 << 30
    # Of one process, what it allocates for itself alone (0: no limit): where no cgroup limits its memory.
    data_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Features:
    """What this bubblewrap can do; older ones are in use (Ubuntu 22.04 has 0.6)."""

    sized_tmpfs: bool = True  # since 0.7
    disable_userns: bool = True  # since 0.8

    @classmethod
    def of(cls, version: tuple[int, ...]) -> Features:
        """The features of a version such as (0, 8, 0)."""
        return cls(sized_tmpfs=version >= (0, 7), disable_userns=version >= (0, 8))


@dataclass(frozen=True, slots=True)
class Cell:
    """The world of one replica. `folders`, `mounts` as in `store.trees.Prepared`.

    `run`: its own folder on the host, writable, found at /run/corten (None: none). `jobs`: one it shares with the other
    replicas of its deployment, at /run/corten/jobs. `pycache`: bytecode made before,
    read-only. `resolver`: the host's resolv.conf, for egress. `secrets`: what it finds in /run/secrets.
    """

    root: Path
    hostname: str
    command: tuple[str, ...]
    working_dir: str = "/"
    folders: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    run: Path | None = None
    jobs: Path | None = None
    egress: bool = False
    resolver: Path | None = None
    pycache: Path | None = None
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def options(cell: Cell, bounds: Bounds, features: Features, secrets: Mapping[str, int]) -> tuple[str, ...]:
    """The options of bwrap for a cell, without the command and without descriptors but those its `secrets` come from.

    To be passed by `--args FD`: on the command line everybody on the machine could read the environment in `ps`.
    """
    return tuple(_options(cell, bounds, features, secrets))


def _options(cell: Cell, bounds: Bounds, features: Features, secrets: Mapping[str, int]) -> Iterator[str]:
    # --unshare-all only tries to make a user namespace; --unshare-user insists.
    yield from ("--unshare-all", "--unshare-user", "--uid", str(UID), "--gid", str(GID))
    if cell.egress:
        yield "--share-net"
    if features.disable_userns:
        yield "--disable-userns"
    yield from ("--as-pid-1", "--new-session", "--cap-drop", "ALL", "--hostname", cell.hostname[:63])
    yield from ("--ro-bind", str(cell.root), "/", "--proc", "/proc", "--dev", "/dev")
    yield from _tmpfs("/dev/shm", bounds.shm_bytes, features, mode="1777")  # noqa: S108
    # Not recursive: /dev itself is a tmpfs without a size, /dev/shm on it stays writable.
    yield from ("--remount-ro", "/dev")
    yield from _tmpfs("/tmp", bounds.tmp_bytes, features, mode="1777")  # noqa: S108
    if cell.pycache is not None:
        yield from ("--ro-bind", str(cell.pycache), f"/{PYCACHE}")
    yield from _read_only_folders(cell)
    yield from _system(cell)
    if secrets:
        # The root is read-only: mount points need a folder to be in.
        yield from ("--perms", "0755", "--tmpfs", "/run")
        yield from _secret_files(secrets, features)
    if cell.run is not None:
        yield from ("--bind", str(cell.run), RUN)
        if cell.jobs is not None:
            yield from ("--bind", str(cell.jobs), JOBS)
    if secrets:
        yield from ("--remount-ro", "/run")
    yield "--clearenv"
    for name, value in sorted(cell.env.items()):
        yield from ("--setenv", name, value)
    yield from ("--chdir", cell.working_dir)


def _tmpfs(target: str, size_bytes: int, features: Features, *, mode: str) -> Iterator[str]:
    yield from ("--perms", mode)
    if features.sized_tmpfs:
        yield from ("--size", str(size_bytes))
    yield from ("--tmpfs", target)


def _secret_files(secrets: Mapping[str, int], features: Features) -> Iterator[str]:
    yield from _tmpfs(SECRETS, _SECRETS_BYTES, features, mode="0500")
    for name, descriptor in secrets.items():
        yield from ("--perms", "0400", "--file", str(descriptor), f"{SECRETS}/{name}")
    yield from ("--remount-ro", SECRETS)


def _read_only_folders(cell: Cell) -> Iterator[str]:
    # The root is read-only, so that mount points for single files need a folder of their own, closed afterwards.
    for folder in cell.folders:
        yield from ("--perms", "0755", "--tmpfs", folder)
    for mount in cell.mounts:
        yield from ("--ro-bind", str(mount.source), mount.target)
    for folder in cell.folders:
        yield from ("--remount-ro", folder)


def _system(cell: Cell) -> Iterator[str]:
    yield from ("--perms", "0755", "--tmpfs", "/sys")
    for path in _SYS_SHOWN:
        yield from ("--ro-bind-try", path, path)
    yield from ("--remount-ro", "/sys")
    if cell.resolver is not None:
        yield from ("--ro-bind", str(cell.resolver), "/etc/resolv.conf")
