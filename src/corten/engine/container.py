"""What a container engine is asked for: one replica as the body of `POST /containers/create`. Pure.

The same profile as the built-in sandbox's (`engine.sandbox`): uid 65532, root read-only, /tmp and /dev/shm of a size,
no capabilities, no_new_privs, the engine's own seccomp filter, no network unless `egress`, nothing of the host but the
replica's own folders, and of its devices those that were asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corten.core.image import Image
from corten.core.secret import SECRETS
from corten.engine.base import ReplicaSpec
from corten.engine.docker_api import Json
from corten.engine.launch import at_most
from corten.engine.places import SOCKET
from corten.engine.sandbox import GID, JOBS, RUN, UID, Bounds

HOME_LABEL: Final = "dev.corten.home"
REPLICA_LABEL: Final = "dev.corten.replica"
DEPLOYMENT_LABEL: Final = "dev.corten.deployment"
REVISION_LABEL: Final = "dev.corten.revision"
IMAGE_LABEL: Final = "dev.corten.image"
GPUS_LABEL: Final = "dev.corten.gpus"
LOG_BYTES: Final = 64 << 20
_PERIOD_NS: Final = 30_000_000_000
_TIMEOUT_NS: Final = 5_000_000_000
_RETRIES: Final = 3
# In the image's own Python: there is no curl in it, nor a shell. -I -S: without site-packages, in a few milliseconds.
_ASK: Final = (
    "import socket,sys\n"
    "s=socket.socket(socket.AF_UNIX);s.settimeout(4);s.connect(sys.argv[1])\n"
    "s.sendall(b'GET /livez HTTP/1.1\\r\\nHost: replica\\r\\nConnection: close\\r\\n\\r\\n')\n"
    "sys.exit(b' 200 ' not in s.recv(64))"
)


@dataclass(frozen=True, slots=True)
class Container:
    """One replica as a container.

    `image` is what the engine calls it, `labels` whose it is. `run` and `jobs` are its folders on this machine,
    `secrets` one in its memory (None: it has none). `userns`: how users are mapped, `seccomp`: the filter, both in the
    engine's words (empty: its own). `healthy`: let the engine ask it, too, whether it lives. `limits`: whether it can
    limit what it uses. `gpus`: which of NVIDIA's it gets. `relabel`: SELinux keeps
    it from files that are not labelled for it.
    """

    spec: ReplicaSpec
    source: Image
    image: str
    labels: Mapping[str, str]
    env: Mapping[str, str]
    run: Path
    jobs: Path
    bounds: Bounds = field(default_factory=Bounds)
    userns: str = ""
    healthy: bool = False
    limits: bool = True
    seccomp: str = ""
    secrets: Path | None = None
    gpus: tuple[int, ...] = ()
    relabel: bool = False


def body(container: Container) -> Json:
    """The body of the call that makes it."""
    document: dict[str, object] = {
        "Image": container.image,
        "User": f"{UID}:{GID}",
        "Hostname": container.spec.id[:63],
        "Entrypoint": list(container.source.entrypoint),
        "WorkingDir": container.source.working_dir,
        "Env": [f"{name}={value}" for name, value in sorted(container.env.items())],
        "Labels": dict(container.labels),
        "HostConfig": _host(container),
    }
    if container.healthy:
        document["Healthcheck"] = health_check(container)
    return document


def health_check(container: Container) -> Json:
    """How the engine asks it whether it lives; podman's own API has the same document."""
    return {
        "Test": ["CMD", container.source.entrypoint[0], "-I", "-S", "-c", _ASK, f"{RUN}/{SOCKET}"],
        "Interval": _PERIOD_NS,
        "Timeout": _TIMEOUT_NS,
        "Retries": _RETRIES,
    }


def _host(container: Container) -> Json:
    bounds, spec = container.bounds, container.spec
    host: dict[str, object] = {
        "NetworkMode": "default" if spec.egress else "none",
        "ReadonlyRootfs": True,
        "Tmpfs": dict(tmpfs(bounds)),
        "ShmSize": bounds.shm_bytes,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", *([f"seccomp={container.seccomp}"] if container.seccomp else [])],
        "Ulimits": [{"Name": name, "Soft": most, "Hard": most} for name, most in ulimits(bounds)],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": f"{LOG_BYTES >> 20}m", "max-file": "2"}},
        "RestartPolicy": {"Name": "no"},  # who starts it again is Corten
    }
    if container.relabel:
        # `Mounts` has no word for it.
        host["Binds"] = [f"{bind.source}:{bind.target}:{','.join(bind.options)}" for bind in binds(container)]
    else:
        host["Mounts"] = [*_mounts(container)]
    if container.userns:
        host["UsernsMode"] = container.userns
    if container.limits:
        host |= _limits(container)
    if spec.resources.with_devices:
        host["DeviceRequests"] = [*_devices(container)]
    return host


def _devices(container: Container) -> Iterator[Json]:
    if container.gpus:
        yield {"Driver": "nvidia", "DeviceIDs": [str(gpu) for gpu in container.gpus], "Capabilities": [["gpu"]]}
    if devices := container.spec.resources.devices:
        yield {"Driver": "cdi", "DeviceIDs": list(devices)}


def _limits(container: Container) -> Json:
    resources = container.spec.resources
    limits: dict[str, object] = {"PidsLimit": container.bounds.processes}
    if resources.memory_bytes:
        # Memory and swap together no more than memory: no swap.
        limits |= {"Memory": resources.memory_bytes, "MemorySwap": resources.memory_bytes}
    if resources.cpus:
        limits["NanoCpus"] = int(resources.cpus * 1e9)
    return limits


def tmpfs(bounds: Bounds) -> Iterator[tuple[str, str]]:
    """Where it may write besides its own folders, with the options of mount(8)."""
    yield "/tmp", f"rw,exec,nosuid,nodev,size={bounds.tmp_bytes},mode=1777"  # noqa: S108
    # podman lays tmpfs without a size over these two of a read-only root, for everybody to fill.
    for path in ("/run", "/var/tmp"):  # noqa: S108
        yield path, "rw,noexec,nosuid,nodev,size=65536,mode=0755"


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder of this machine and where the container finds it, with the options of `podman run --volume`."""

    source: Path
    target: str
    options: tuple[str, ...]


def binds(container: Container) -> Iterator[Bind]:
    """All it sees of this machine's files. SELinux: a label of its own (`Z`), or one its deployment shares (`z`)."""
    own, shared = (("Z",), ("z",)) if container.relabel else ((), ())
    yield Bind(container.run, RUN, ("rw", *own))
    yield Bind(container.jobs, JOBS, ("rw", *shared))
    if container.secrets is not None:
        yield Bind(container.secrets, SECRETS, ("ro", *own))


def _mounts(container: Container) -> Iterator[Json]:
    for bind in binds(container):
        read_only = {"ReadOnly": True} if "ro" in bind.options else {}
        yield {"Type": "bind", "Source": str(bind.source), "Target": bind.target, **read_only}


def ulimits(bounds: Bounds) -> Iterator[tuple[str, int]]:
    """Limits of its processes by their names in setrlimit(2), in small letters."""
    wanted = {"nofile": bounds.open_files, "nproc": bounds.processes, "fsize": bounds.file_bytes, "core": 0}
    for name, value in wanted.items():
        # Above its own limits the engine may not go where it lacks CAP_SYS_RESOURCE; ours stand for its.
        yield name, at_most(name, value)
