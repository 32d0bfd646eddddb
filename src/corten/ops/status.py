"""What runs: deployments, revisions, replicas, and what runs them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corten.control.client import connect_if_deployed
from corten.core.digest import Digest
from corten.core.home import Home
from corten.errors import NotFoundError
from corten.observe.memory import tree_bytes
from corten.observe.process import tree_cpu_s
from corten.ops.deploy import url_of


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica. `since`: how long it has been in its state, for people; `restarts`: deaths in a row before it.

    `memory_bytes` and `cpu_s` are what its processes hold and what processor time they used until now, as the kernel
    counts them, whatever the engine. `secrets` are the names of what it was given.
    """

    id: str
    revision: int
    state: str
    since: str
    pid: int
    restarts: int
    reason: str
    address: str
    secrets: tuple[str, ...] = ()
    memory_bytes: int = 0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One deployment. `state`: serving, progressing, degraded, crash-looping, failed, stopping, frozen, stopped (nobody
    asks) or resting (on the way there), `reason` why. `waiting` requests are held until a replica is ready.
    """

    name: str
    revision: str
    ready: int
    wanted: int
    state: str
    reason: str
    image: Digest
    url: str
    generation: int
    rollout: Mapping[str, Any] | None
    access: Mapping[str, Any]
    waiting: int = 0
    replicas: tuple[ReplicaStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """All of it. `engine`, `gateway` and `daemon` are lines for people, `parts` the same for programs."""

    engine: str = "not running"
    gateway: str = "not running"
    daemon: str = "not running"
    deployments: tuple[DeploymentStatus, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "deployments": [_as_dict(one) for one in self.deployments],
            "engine": self.parts.get("engine", {}),
            "gateway": self.parts.get("gateway", {}),
            "daemon": self.parts.get("daemon", {}),
        }


def status(name: str = "", *, home: Home | None = None) -> Status:
    """All deployments, or one. Starts the daemon if it died while something is deployed, so that it adopts that.

    Raises NotFoundError `control.unknown_deployment` for a name nobody has.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    client = connect_if_deployed(home)
    seen = client.get("/v1/status") if client else None
    found = [one for one in seen["deployments"] if name in ("", one["name"])] if seen else []
    if name and not found:
        raise NotFoundError("control.unknown_deployment", f"no deployment called `{name}`", hint="see `corten status`")
    if seen is None:
        return Status()
    isolation = seen["isolation"]
    return Status(
        engine=f"{seen['engine']} ({isolation['sandbox']})" if "sandbox" in isolation else seen["engine"],
        gateway=f"{seen['front']['url']}, {seen['gateway']}",
        daemon=f"pid {seen['pid']}" + (f", {seen['trouble']}" if seen["trouble"] else ""),
        deployments=tuple(_deployment(one, seen["front"], time.time()) for one in found),
        parts={
            "engine": {"name": seen["engine"], **isolation},
            "gateway": {**_front(seen["front"]), "state": seen["gateway"], "pid": seen["gateway_pid"]},
            "daemon": {"pid": seen["pid"], "version": seen["version"], "trouble": seen["trouble"]},
        },
    )


def _front(front: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in front.items() if key != "chain"}


def _deployment(one: Mapping[str, Any], front: Mapping[str, Any], now_s: float) -> DeploymentStatus:
    return DeploymentStatus(
        name=one["name"],
        revision=one["revision"],
        ready=one["ready"],
        wanted=one["wanted"],
        state=one["state"],
        reason=one["reason"],
        image=Digest.parse(one["image"]),
        url=url_of(front, one["name"]),
        generation=one["generation"],
        rollout=one["rollout"],
        waiting=one["waiting"],
        access=one["access"],
        replicas=tuple(_replica(each, now_s) for each in one["replicas"]),
    )


def _replica(each: Mapping[str, Any], now_s: float) -> ReplicaStatus:
    return ReplicaStatus(
        id=each["id"],
        revision=each["revision"],
        state=each["state"],
        since=_age(now_s - each["changed_s"]),
        pid=each["pid"],
        restarts=each["restarts"],
        reason=each["reason"],
        secrets=tuple(each["secrets"]),
        address=each["address"],
        memory_bytes=tree_bytes(each["pid"]) if each["pid"] else 0,
        cpu_s=tree_cpu_s(each["pid"]) if each["pid"] else 0.0,
    )


def _age(seconds: float) -> str:
    """How long something lasts: `45s`, `12m`, `3h`, `5d`."""
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length_s:
            return f"{int(seconds // length_s)}{unit}"
    return f"{max(0, int(seconds))}s"


def _as_dict(one: DeploymentStatus) -> dict[str, Any]:
    return {
        "name": one.name,
        "revision": one.revision,
        "ready": one.ready,
        "wanted": one.wanted,
        "state": one.state,
        "reason": one.reason,
        "image": str(one.image),
        "url": one.url,
        "generation": one.generation,
        "rollout": one.rollout,
        "waiting": one.waiting,
        "access": dict(one.access),
        "replicas": [
            {
                "id": each.id,
                "revision": f"r{each.revision}",
                "state": each.state,
                "since": each.since,
                "pid": each.pid,
                "restarts": each.restarts,
                "memory_bytes": each.memory_bytes,
                "cpu_s": round(each.cpu_s, 2),
                "reason": each.reason,
                "secrets": list(each.secrets),
                "address": each.address,
            }
            for each in one.replicas
        ],
    }
