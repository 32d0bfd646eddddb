"""Revisions of Knative in the small cluster: what each is made into, how it is scaled, and what it says of itself."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from corten.testing.kubernetes import owners, simulation
from corten.testing.kubernetes.objects import Key, Object, Objects
from corten.testing.kubernetes.simulation import Pods

GROUP = "serving.knative.dev"
API = f"{GROUP}/v1"
_SCALING = "autoscaling.knative.dev"
_PROXY_PORT = 8012
# The window that is looked at and the time of grace after it, in ticks; who failed is given up after that long.
_IDLE = 90
_GIVEN_UP = 20


@dataclass
class Scale:
    """Its autoscaler: which revisions once had their first pods, and since how many ticks nobody asked them."""

    begun: set[str] = field(default_factory=set)  # by uid
    idle: dict[Key, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)


def condition(kind: str, status: str, reason: str = "", message: str = "") -> Object:
    """One line of a status."""
    return {"type": kind, "status": status, "reason": reason, "message": message}


def condition_of(one: Object, kind: str) -> Object:
    """What an object says of itself."""
    found = one.get("status", {}).get("conditions", [])
    return next((each for each in found if each["type"] == kind), condition(kind, "Unknown"))


def of(objects: Objects, service: Key) -> list[tuple[Key, Object]]:
    """All revisions of a Service."""
    return [
        (key, one)
        for key, one in list(objects.items.items())
        if key[:2] == ("revisions", service[1]) and one["metadata"]["labels"][f"{GROUP}/service"] == service[2]
    ]


def create(objects: Objects, key: Key, service: Object, configuration: Object) -> Object:
    """A revision of the template as it is now."""
    template = copy.deepcopy(configuration["spec"]["template"])
    labels = {
        **template["metadata"].get("labels", {}),
        f"{GROUP}/configuration": configuration["metadata"]["name"],
        f"{GROUP}/configurationGeneration": str(configuration["metadata"]["generation"]),
        f"{GROUP}/service": service["metadata"]["name"],
        f"{GROUP}/serviceUID": service["metadata"]["uid"],
    }
    annotations = template["metadata"].get("annotations", {})
    body = {
        "apiVersion": API,
        "kind": "Revision",
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": template["spec"],
    }
    made = owners.made(objects, key, configuration, body)
    assert made is not None  # nothing of that name was there
    return made


def reconcile(objects: Objects, pods: Pods, scale: Scale, key: Key, revision: Object, *, routed: bool) -> None:
    """Its objects, its number of pods, and what it says."""
    del pods
    uid, annotations = revision["metadata"]["uid"], revision["metadata"]["annotations"]
    at = ("deployments", key[1], f"{key[2]}-deployment")
    first = int(annotations.get(f"{_SCALING}/initial-scale", 1))
    there = ready(objects, key)
    if len(there) >= first:
        scale.begun.add(uid)
    idle = scale.idle[key] = scale.idle.get(key, 0) + 1
    least = int(annotations.get(f"{_SCALING}/min-scale", 0)) if routed else 0
    live = objects.items.get(at)
    now = live["spec"]["replicas"] if live else first
    if uid in scale.failed and scale.failed[uid] + _GIVEN_UP < idle:
        wanted = 0
    elif uid not in scale.begun:
        wanted = first
    elif idle > _IDLE:
        wanted = least
    else:
        wanted = max(least, now, int(idle <= 1))
    _parts(objects, key, revision, at, wanted)
    said = _said(objects, at, scale, revision, idle)
    status = {
        "observedGeneration": revision["metadata"]["generation"],
        "conditions": said,
        "actualReplicas": len(there),
    }
    objects.set_status(key, status)


def ready(objects: Objects, key: Key) -> list[Object]:
    """Its pods that may get requests."""
    return [pod for pod in _pods(objects, key) if simulation.is_ready(pod) and not simulation.is_going(pod)]


def _pods(objects: Objects, key: Key) -> list[Object]:
    revision = objects.items.get(key)
    if revision is None:
        return []
    chosen = (f"{GROUP}/revisionUID", revision["metadata"]["uid"])
    return [
        one
        for at, one in sorted(objects.items.items())
        if at[:2] == ("pods", key[1]) and chosen in one["metadata"].get("labels", {}).items()
    ]


def _parts(objects: Objects, key: Key, revision: Object, at: Key, replicas: int) -> None:
    metadata, spec = revision["metadata"], revision["spec"]
    chosen = {f"{GROUP}/revisionUID": metadata["uid"]}
    labels = {**metadata["labels"], f"{GROUP}/revision": key[2], **chosen}
    proxy = {
        "name": "queue-proxy",
        "image": "queue",
        "env": [],
        "ports": [{"name": "queue-port", "containerPort": 8012}],
    }
    kept = {name: value for name, value in spec.items() if name not in ("containerConcurrency", "timeoutSeconds")}
    deadline = metadata["annotations"].get(f"{GROUP}/progress-deadline", "600s").removesuffix("s")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"labels": labels, "annotations": metadata["annotations"]},
        "spec": {
            "replicas": replicas,
            "progressDeadlineSeconds": int(deadline),
            "selector": {"matchLabels": chosen},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
            "template": {
                "metadata": {"labels": labels, "annotations": metadata["annotations"]},
                "spec": {**kept, "containers": [*spec["containers"], proxy]},
            },
        },
    }
    owners.made(objects, at, revision, deployment)
    for name, selector in ((key[2], {}), (f"{key[2]}-private", chosen)):
        port = {"name": "http", "port": 80, "targetPort": _PROXY_PORT, "protocol": "TCP"}
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"labels": labels},
            "spec": {"ports": [port], **({"selector": selector} if selector else {})},
        }
        owners.made(objects, ("services", key[1], name), revision, body)


def _said(objects: Objects, at: Key, scale: Scale, revision: Object, idle: int) -> list[Object]:
    uid, key = revision["metadata"]["uid"], ("revisions", at[1], revision["metadata"]["name"])
    there = _pods(objects, key)
    if uid in scale.begun:
        active = ready(objects, key)
        last = condition("Active", "True") if active else condition("Active", "False", "NoTraffic", "not asked")
        return [condition(kind, "True") for kind in ("ContainerHealthy", "ResourcesAvailable", "Ready")] + [last]
    late = condition_of(objects.items[at], "Progressing")["status"] == "False"
    if uid in scale.failed and not there:
        why = "Initial scale was never achieved"
        cause: Object | None = condition("ResourcesAvailable", "False", "ProgressDeadlineExceeded", why)
    else:
        cause = _cause(objects.items[at], there)
    if cause is None:
        return [condition("Ready", "Unknown", "Deploying")]
    if late:
        scale.failed.setdefault(uid, idle)
    return [cause, {**cause, "type": "Ready"}]


def _cause(deployment: Object, pods: list[Object]) -> Object | None:
    """What a revision without a pod that serves says is wrong, by the first pod and by how long it took."""
    late = condition_of(deployment, "Progressing")
    found = (
        condition("ResourcesAvailable", "False", late["reason"], late["message"]) if late["status"] == "False" else None
    )
    for pod in pods[:1]:
        placed: Object = next((one for one in pod["status"].get("conditions", []) if one["type"] == "PodScheduled"), {})
        if placed.get("status") == "False":
            return condition("ResourcesAvailable", "False", placed["reason"], placed["message"])
        for container in pod["status"].get("containerStatuses", []):
            over = container["lastState"].get("terminated")
            if over:
                reason = f"ExitCode{over['exitCode']}"
                return condition("ContainerHealthy", "False", reason, "Container failed with: ")
            waiting = container["state"].get("waiting")
            if waiting and found:
                return condition("ResourcesAvailable", "False", waiting["reason"], waiting["message"])
    return found
