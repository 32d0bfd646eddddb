"""`corten doctor --security`: look at every image, engine and replica that runs, and judge them by `core.security`."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from corten.builder.artifact import BUNDLE_TYPE, SBOM_TYPE, STATEMENT_TYPE
from corten.control.client import connect_if_deployed
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.secret import SECRETS
from corten.core.security import (
    EngineSeen,
    Finding,
    ImageSeen,
    MountSeen,
    ReplicaSeen,
    of_engine,
    of_image,
    of_replica,
)
from corten.errors import CortenError
from corten.store import signature_tag
from corten.store.layout import Layout

_CAPABILITIES: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_NAMESPACES: Final = ("pid", "mnt", "ipc", "uts", "net")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def security(*, home: Home | None = None) -> tuple[Finding, ...]:
    """Every rule of the engine, and of the image and the running replicas of each deployment. Changes nothing."""
    home = home or Home.from_env(os.environ, uid=os.getuid())
    client = connect_if_deployed(home)
    status: dict[str, Any] = client.get("/v1/status") if client else {"engine": "", "isolation": {}, "deployments": []}
    return tuple(_findings(home, status))


def _findings(home: Home, status: Mapping[str, Any]) -> Iterator[Finding]:
    if status["engine"]:
        yield from of_engine(EngineSeen(status["engine"], status["isolation"], dict(_files(home))))
    layout = Layout(home.store)
    for image in sorted({one["image"] for one in status["deployments"] if one["image"]}):
        with suppress(CortenError):  # collected meanwhile, by somebody
            yield from of_image(image_seen(layout, Digest.parse(image)))
    for one in status["deployments"]:
        for replica in one["replicas"]:
            if replica["pid"] and replica["state"] != "exited":
                yield from of_replica(
                    replica_seen(
                        replica["id"], replica["pid"], egress=replica["egress"], given=tuple(replica["secrets"])
                    )
                )


def image_seen(layout: Layout, digest: Digest) -> ImageSeen:
    """What an image's documents tell. Raises what reading them does."""
    image = layout.image(digest)
    config = msgspec.json.decode(layout.read(layout.config(digest)), type=_ImageConfig)
    kinds = {SBOM_TYPE: "SBOM", STATEMENT_TYPE: "provenance", BUNDLE_TYPE: "signature"}
    attached = {kinds[one.artifact_type] for one in layout.referrers(image.digest) if one.artifact_type in kinds}
    if layout.named(signature_tag.signature_tag(image.digest)):
        attached.add("signature")
    return ImageSeen(digest.short, config.config.user, image.entrypoint, image.env, frozenset(attached))


def replica_seen(
    replica_id: str, pid: int, *, egress: bool, given: tuple[str, ...] = (), proc: Path = Path("/proc")
) -> ReplicaSeen:
    """What the kernel tells of a replica's process; what may not be read is None."""
    process = proc / str(pid)
    status = _status(process)
    outside = _number(status, "Uid")
    return ReplicaSeen(
        id=replica_id,
        egress=egress,
        inside=None if outside is None else _inside(process, outside),
        outside=outside,
        capabilities=_capabilities(status),
        no_new_privileges=None if "NoNewPrivs" not in status else status["NoNewPrivs"] == "1",
        seccomp=_number(status, "Seccomp"),
        mounts=_mounts(process),
        interfaces=_interfaces(process),
        shares=_shares(process, proc / "self"),
        processes=_most_processes(process),
        given=given,
        secrets=_secrets(process),
    )


class _Run(msgspec.Struct, frozen=True, rename="pascal"):
    user: str = ""


class _ImageConfig(msgspec.Struct, frozen=True):
    config: _Run = msgspec.field(default_factory=_Run)


def _files(home: Home) -> Iterator[tuple[str, int]]:
    """The mode bits of what nobody else should reach."""
    for path in (
        home.daemon_socket,
        home.state / "corten.db",
        home.replicas,
        *(home.state / "keys").glob("*"),
        *home.secrets.glob("*"),
    ):
        with suppress(OSError):
            yield str(path), stat.S_IMODE(path.stat().st_mode)


def _status(process: Path) -> Mapping[str, str]:
    with suppress(OSError):
        lines = (process / "status").read_text().splitlines()
        return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}
    return {}


def _number(status: Mapping[str, str], name: str) -> int | None:
    return int(status[name].split()[0]) if name in status else None


def _capabilities(status: Mapping[str, str]) -> int | None:
    if not set(_CAPABILITIES) <= status.keys():
        return None
    mask = 0
    for name in _CAPABILITIES:
        mask |= int(status[name], 16)
    return mask


def _inside(process: Path, outside: int) -> int | None:
    """A user's number in the process's own user namespace (user_namespaces(7), uid_map)."""
    with suppress(OSError):
        for line in (process / "uid_map").read_text().splitlines():
            first, beyond, count = map(int, line.split())
            if beyond <= outside < beyond + count:
                return first + outside - beyond
    return None


def _mounts(process: Path) -> tuple[MountSeen, ...] | None:
    try:
        lines = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return None
    return tuple(_mount(line) for line in lines)


def _mount(line: str) -> MountSeen:
    """One line of mountinfo: a mount is writable when neither it nor its file system is read-only."""
    head, _, tail = line.partition(" - ")
    target, options = head.split()[4:6]
    kind, _, above = tail.split()[:3]
    told = [*options.split(","), *above.split(",")]
    size = next((word.removeprefix("size=") for word in told if word.startswith("size=")), "")
    return MountSeen(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), target), kind, "ro" not in told, size)


def _interfaces(process: Path) -> tuple[str, ...] | None:
    with suppress(OSError):
        lines = (process / "net/dev").read_text().splitlines()[2:]
        return tuple(sorted(line.partition(":")[0].strip() for line in lines))
    return None


def _shares(process: Path, ours: Path) -> frozenset[str] | None:
    try:
        return frozenset(
            name for name in _NAMESPACES if (process / "ns" / name).readlink() == (ours / "ns" / name).readlink()
        )
    except OSError:
        return None


def _secrets(process: Path) -> Mapping[str, int] | None:
    """The mode bits of its secrets' files."""
    with suppress(OSError):
        files = (process / "root" / SECRETS.lstrip("/")).iterdir()
        return {path.name: stat.S_IMODE(path.stat().st_mode) for path in files}
    return None


def _most_processes(process: Path) -> int | None:
    """What its cgroup limits processes to, of either version."""
    with suppress(OSError, ValueError):
        for line in (process / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for base in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup") if controllers in ("pids", "") else ():
                limit = Path(base + path) / "pids.max"
                if limit.exists() and (text := limit.read_text().strip()) != "max":
                    return int(text)
    return None
