"""A Compose file (https://github.com/compose-spec/compose-spec): `docker compose up`, `podman-compose up`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corten.exporters.base import HTTP_PORT, Workload, refuse
from corten.exporters.container import PROCESSES, TMP_BYTES, TMPFS, USER, alive, check, environment, stop_s
from corten.exporters.yaml_text import documents


class Compose:
    """One service at a port of the machine itself, with the profile of Corten's own replicas."""

    name = "compose"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """`compose.yaml`. Raises UsageError `render.unsupported`."""
        check(self.name, workload)
        if workload.secrets:
            raise refuse(
                self.name,
                "`--secret`",
                why="Compose gives secrets as files, not as environment variables",
                hint="let the model read a file: `secrets:` of Compose puts it below /run/secrets",
            )
        document = {"name": workload.name, "services": {workload.name: _service(workload)}}
        return {"compose.yaml": documents([document])}


def _service(workload: Workload) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": str(workload.image),
        "user": f"{USER}:{USER}",
        "read_only": True,
        "tmpfs": list(TMPFS),
        "shm_size": TMP_BYTES,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": PROCESSES,
        **_limits(workload),
        # Compose puts its own variables in where it sees a dollar.
        "environment": {name: text.replace("$", "$$") for name, text in environment(workload)},
        # Of the machine itself: what is reached from elsewhere should stand behind something that knows its clients.
        "ports": [f"127.0.0.1:{HTTP_PORT}:{HTTP_PORT}"],
        "healthcheck": {"test": ["CMD", *alive()], "interval": "30s", "timeout": "5s", "retries": 3},
        "stop_grace_period": f"{stop_s(workload)}s",
        "restart": "unless-stopped",
        "labels": {"dev.corten.deployment": workload.name, "dev.corten.revision": workload.version},
    }
    if workload.gpus:
        device = {"driver": "nvidia", "count": workload.gpus, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    if devices := workload.settings.resources.devices:
        service["devices"] = list(devices)
    return service


def _limits(workload: Workload) -> dict[str, Any]:
    resources = workload.settings.resources
    limits: dict[str, Any] = {}
    if resources.memory_bytes:
        # With swap no more than without: none.
        limits |= {"mem_limit": resources.memory_bytes, "memswap_limit": resources.memory_bytes}
    if resources.cpus:
        limits["cpus"] = resources.cpus
    return limits
