"""What podman is asked for in its own words: the body of `POST /libpod/containers/create`. Pure.

For replicas with devices only: podman's Docker API takes no CDI device before podman 5
(github.com/containers/podman, pkg/specgen/specgen.go: `SpecGenerator`). The profile is `engine.container`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from corten.engine.container import LOG_BYTES, Container, binds, health_check, tmpfs, ulimits
from corten.engine.devices import by_name
from corten.engine.docker_api import Json
from corten.engine.sandbox import GID, UID

_PERIOD_US: Final = 100_000


def specification(name: str, container: Container) -> Json:
    """The body of the call that makes it."""
    spec = container.spec
    document: dict[str, object] = {
        "name": name,
        "image": container.image,
        "user": f"{UID}:{GID}",
        "hostname": spec.id[:63],
        "entrypoint": list(container.source.entrypoint),
        "work_dir": container.source.working_dir,
        "env": dict(container.env),
        "labels": dict(container.labels),
        "read_only_filesystem": True,
        "shm_size": container.bounds.shm_bytes,
        "cap_drop": ["ALL"],
        "no_new_privileges": True,
        "mounts": [*_mounts(container)],
        "devices": [{"path": device} for device in by_name(container.gpus, spec.resources)],
        "r_limits": [{"type": name, "soft": most, "hard": most} for name, most in ulimits(container.bounds)],
        "log_configuration": {"driver": "k8s-file", "size": LOG_BYTES},
        "restart_policy": "no",
    }
    if not spec.egress:
        document["netns"] = {"nsmode": "none"}
    if container.seccomp:
        document["seccomp_profile_path"] = container.seccomp
    if container.userns:
        mode, _, value = container.userns.partition(":")
        document["userns"] = {"nsmode": mode, "value": value}
    if container.limits:
        document["resource_limits"] = _limits(container)
    if container.healthy:
        document["healthconfig"] = health_check(container)
    return document


def _mounts(container: Container) -> Iterator[Json]:
    for path, options in tmpfs(container.bounds):
        yield {"type": "tmpfs", "source": "tmpfs", "destination": path, "options": options.split(",")}
    for bind in binds(container):
        given = ["rbind", *bind.options]
        yield {"type": "bind", "source": str(bind.source), "destination": bind.target, "options": given}


def _limits(container: Container) -> Json:
    resources = container.spec.resources
    limits: dict[str, object] = {"pids": {"limit": container.bounds.processes}}
    if resources.memory_bytes:
        # With swap no more than without: none.
        limits["memory"] = {"limit": resources.memory_bytes, "swap": resources.memory_bytes}
    if resources.cpus:
        limits["cpu"] = {"quota": int(resources.cpus * _PERIOD_US), "period": _PERIOD_US}
    return limits
