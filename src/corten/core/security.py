"""What an image, an engine and a running replica are kept to, as rules over what was seen of them. Pure.

A rule that could not be looked at, or that the engine has no means for, says so: CANNOT is no PASS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from corten.core.secret import SECRETS

USER: Final = 65532
_SECRETIVE: Final = ("SECRET", "PASSWORD", "PASSWD", "TOKEN", "API_KEY", "APIKEY", "ACCESS_KEY", "PRIVATE_KEY")
# A path to a secret is none.
_HARMLESS_ENDS: Final = ("_FILE", "_PATH", "_DIR")
# Where a replica may write: its own tmpfs, its own folder, and what the kernel gives every container.
_WRITABLE: Final = ("/tmp", "/dev", "/proc", "/run/corten")  # noqa: S108
_SECCOMP_FILTER: Final = 2


class Verdict(Enum):
    """How a rule came out."""

    PASS = "pass"  # noqa: S105 -- no password
    FAIL = "fail"
    CANNOT = "cannot"


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule of one subject (`image 4f0c…`, `replica fraud-r1-…`): what it asks for, how it came out, what was seen."""

    subject: str
    rule: str
    verdict: Verdict
    seen: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {
            "subject": self.subject,
            "rule": self.rule,
            "verdict": self.verdict.value,
            "seen": self.seen,
            "hint": self.hint,
        }


@dataclass(frozen=True, slots=True)
class MountSeen:
    """A mount as a replica has it (proc_pid_mountinfo(5)). `size` is a tmpfs' own option, empty without a limit."""

    target: str
    kind: str
    writable: bool
    size: str = ""


@dataclass(frozen=True, slots=True)
class ReplicaSeen:
    """A running replica, seen from outside. None is what could not be read.

    `inside` and `outside` are its user's numbers in and out of its user namespace. `interfaces` are its network's;
    `shares` the namespaces it has in common with Corten. It was `given` secrets of these names; `secrets` are
    the files it has of them, with their mode bits.
    """

    id: str
    egress: bool
    inside: int | None = None
    outside: int | None = None
    capabilities: int | None = None
    no_new_privileges: bool | None = None
    seccomp: int | None = None
    mounts: tuple[MountSeen, ...] | None = None
    interfaces: tuple[str, ...] | None = None
    shares: frozenset[str] | None = None
    processes: int | None = None
    given: tuple[str, ...] = ()
    secrets: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class ImageSeen:
    """An image as its documents tell of it. `attached`: which of SBOM, provenance and signature are."""

    name: str
    user: str
    entrypoint: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    attached: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EngineSeen:
    """An engine by its own description, and who may reach what of the home: `files` are paths and their mode bits."""

    name: str
    told: Mapping[str, str]
    files: Mapping[str, int] = field(default_factory=dict)


def of_image(image: ImageSeen) -> Iterator[Finding]:
    """The rules of an image."""
    subject = f"image {image.name}"
    yield _finding(subject, "runs as nobody", image.user.startswith(f"{USER}"), f"user {image.user or 'root'}")
    yield _finding(
        subject,
        "starts without a shell",
        bool(image.entrypoint) and not image.entrypoint[0].endswith("sh"),
        " ".join(image.entrypoint[:3]) or "nothing",
    )
    kept = sorted(name for name, text in image.env.items() if text and _is_secretive(name))
    yield _finding(
        subject,
        "no secret in its environment",
        not kept,
        ", ".join(kept) or "none by name",
        "leave it out of the image; give it where it runs: corten deploy --secret NAME=PATH",
    )
    for kind in ("SBOM", "provenance"):
        there = kind in image.attached
        yield _finding(subject, f"{kind} attached", there, "attached" if there else "none", "build it again")
    signed = "signature" in image.attached
    verdict, hint = (Verdict.PASS, "") if signed else (Verdict.CANNOT, "corten sign")
    # Whoever built it here may do without; nobody else can tell who did.
    yield Finding(subject, "signed", verdict, "signed" if signed else "nobody has signed it", hint)


def of_engine(engine: EngineSeen) -> Iterator[Finding]:
    """The rules of an engine and the home it works in."""
    subject = f"engine {engine.name}"
    sandbox = engine.told.get("sandbox", "unknown")
    yield _finding(
        subject, "replicas are isolated", not sandbox.startswith(("none", "unknown")), sandbox, "corten doctor"
    )
    calls = engine.told.get("system calls", "not filtered")
    yield _finding(subject, "system calls are filtered", calls.startswith("filtered"), calls)
    limits = engine.told.get("limits", "none")
    if limits.startswith("none"):
        yield Finding(subject, "memory, processors and processes are limited", Verdict.CANNOT, limits, "corten doctor")
    else:
        yield Finding(subject, "memory, processors and processes are limited", Verdict.PASS, limits)
    opened = sorted(f"{path} ({mode:o})" for path, mode in engine.files.items() if mode & 0o006)
    yield _finding(
        subject, "sockets, keys and state are the owner's alone", not opened, ", ".join(opened) or "closed to others"
    )


def of_replica(replica: ReplicaSeen) -> Iterator[Finding]:
    """The rules of a running replica."""
    subject = f"replica {replica.id}"
    yield _user(subject, replica)
    yield _seen(
        subject,
        "no capabilities",
        None if replica.capabilities is None else replica.capabilities == 0,
        f"{replica.capabilities or 0:#x}",
    )
    yield _seen(
        subject, "no new privileges", replica.no_new_privileges, "set" if replica.no_new_privileges else "unset"
    )
    yield _seen(
        subject,
        "system calls are filtered",
        None if replica.seccomp is None else replica.seccomp == _SECCOMP_FILTER,
        f"seccomp mode {replica.seccomp}",
    )
    yield from _files(subject, replica)
    yield _network(subject, replica)
    if replica.given:
        yield _secrets(subject, replica)
    shared = sorted((replica.shares or frozenset()) - {"net"})
    yield _seen(
        subject,
        "namespaces of its own",
        None if replica.shares is None else not shared,
        f"shares {', '.join(shared)}" if shared else "process, mount and IPC namespace",
    )
    if replica.processes:
        yield Finding(subject, "processes are limited", Verdict.PASS, f"{replica.processes} at most")
    else:
        yield Finding(subject, "processes are limited", Verdict.CANNOT, "no cgroup limits them")


def _user(subject: str, replica: ReplicaSeen) -> Finding:
    rule = f"user {USER}, and nobody outside"
    if replica.inside is None or replica.outside is None:
        return Finding(subject, rule, Verdict.CANNOT, "could not be seen")
    seen = f"{replica.inside}, outside {replica.outside}"
    if replica.inside == USER and replica.outside == 0:
        # Of a home in a folder that nobody else may pass.
        hint = "leave CORTEN_HOME at /var/lib/corten, or open the folder for others to pass (chmod o+x)"
        return Finding(subject, rule, Verdict.CANNOT, f"{seen}, without capabilities", hint)
    return _finding(subject, rule, replica.inside == USER, seen)


def _files(subject: str, replica: ReplicaSeen) -> Iterator[Finding]:
    rules = ("the root is read-only", "its /tmp has a size", "nothing else can be written")
    if replica.mounts is None:
        for rule in rules:
            yield Finding(subject, rule, Verdict.CANNOT, "could not be seen")
        return
    # Of mounts over one another the last one counts.
    mounts = {mount.target: mount for mount in replica.mounts}
    root, tmp = mounts.get("/"), mounts.get("/tmp")  # noqa: S108
    yield _finding(
        subject,
        rules[0],
        root is not None and not root.writable,
        "read-only" if root and not root.writable else "writable",
    )
    sized = tmp is not None and tmp.kind == "tmpfs" and bool(tmp.size)
    yield _finding(
        subject, rules[1], sized, f"{tmp.kind}, {tmp.size or 'no limit'}" if tmp else "not a mount of its own"
    )
    writable = (mount.target for mount in mounts.values() if mount.writable and not _may_write(mount))
    others = sorted(set(writable) - {"/"})
    yield _finding(subject, rules[2], not others, ", ".join(others) or "its own folder, /tmp, /dev/shm")


def _may_write(mount: MountSeen) -> bool:
    if any(mount.target == path or mount.target.startswith(f"{path}/") for path in _WRITABLE):
        return True
    # The engine's own small tmpfs over a read-only root belong to root.
    return mount.kind == "tmpfs" and mount.target in ("/run", "/var/tmp", "/run/secrets", "/sys/fs/cgroup")  # noqa: S108


def _secrets(subject: str, replica: ReplicaSeen) -> Finding:
    rule = "secrets are files in memory, readable by it alone"
    if replica.mounts is None or replica.secrets is None:
        return Finding(subject, rule, Verdict.CANNOT, "could not be seen")
    mount = next((one for one in reversed(replica.mounts) if one.target == SECRETS), None)
    if mount is None or mount.kind != "tmpfs" or mount.writable:
        seen = (
            "not a mount of its own" if mount is None else f"{mount.kind}, {'' if mount.writable else 'not '}writable"
        )
        return _finding(subject, rule, passed=False, seen=seen)
    missing = sorted(set(replica.given) - replica.secrets.keys())
    opened = sorted(f"{name} ({mode:o})" for name, mode in replica.secrets.items() if mode & 0o077)
    seen = ", ".join(opened or [f"{name} is missing" for name in missing] or replica.given)
    return _finding(subject, rule, not (opened or missing), seen)


def _network(subject: str, replica: ReplicaSeen) -> Finding:
    rule = "no network"
    if replica.interfaces is None or replica.shares is None:
        return Finding(subject, rule, Verdict.CANNOT, "could not be seen")
    seen = ", ".join(replica.interfaces)
    if replica.egress:
        return Finding(subject, rule, Verdict.PASS, f"{seen}; egress is declared")
    alone = "net" not in replica.shares and set(replica.interfaces) <= {"lo"}
    return _finding(subject, rule, alone, seen if "net" not in replica.shares else f"the machine's ({seen})")


def _is_secretive(name: str) -> bool:
    return any(word in name.upper() for word in _SECRETIVE) and not name.upper().endswith(_HARMLESS_ENDS)


def _finding(subject: str, rule: str, passed: bool, seen: str, hint: str = "") -> Finding:  # noqa: FBT001
    return Finding(subject, rule, Verdict.PASS if passed else Verdict.FAIL, seen, "" if passed else hint)


def _seen(subject: str, rule: str, passed: bool | None, seen: str) -> Finding:  # noqa: FBT001
    if passed is None:
        return Finding(subject, rule, Verdict.CANNOT, "could not be seen")
    return _finding(subject, rule, passed, seen)
