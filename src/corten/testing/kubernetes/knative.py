"""Knative Serving of the small cluster: its controllers, its autoscaler down to none, and its activator.

As in `pkg/reconciler` of knative/serving: a Service is a Configuration and a Route; a Configuration has a Revision for
each template, which never changes; a Revision is a Deployment and two Services; a Route leads to revisions that are
ready, and has a Service by its own name. All requests pass the activator (`target-burst-capacity: -1`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corten.testing.kubernetes import knative_revisions as revisions
from corten.testing.kubernetes import owners, simulation
from corten.testing.kubernetes.knative_revisions import API, GROUP, Scale
from corten.testing.kubernetes.objects import Key, Object, Objects
from corten.testing.kubernetes.simulation import Pods

# A controller that failed looks again later and later; at once when what it looks at has changed.
_AGAIN_AFTER = 400
_HOLDS_S = 10.0


@dataclass
class Knative:
    """What its parts know beyond the objects. `refused`: Routes whose name is taken, as they were seen, and when."""

    scale: Scale = field(default_factory=Scale)
    refused: dict[str, tuple[int, int]] = field(default_factory=dict)
    now: int = 0


def tick(objects: Objects, pods: Pods, knative: Knative) -> None:
    """One look of all controllers."""
    knative.now += 1
    for key, service in [(key, one) for key, one in objects.items.items() if key[0] == "ksvc"]:
        configuration = _part(objects, key, service, "configurations", {"template": service["spec"]["template"]})
        route = _part(objects, key, service, "routes", {"traffic": service["spec"]["traffic"]})
        if configuration is None or route is None:
            continue
        _configure(objects, key, service, configuration)
        routed = _lead(objects, knative, key, route)
        for at, revision in revisions.of(objects, key):
            revisions.reconcile(objects, pods, knative.scale, at, revision, routed=at[2] in routed)
        _report(objects, key)


def hold(objects: Objects, pods: Pods, knative: Knative, headers: Mapping[str, str]) -> Object | tuple[int, bytes]:
    """The activator: the pod that a request goes to, once there is one; or what it says itself."""
    name, namespace = headers.get("knative-serving-revision", ""), headers.get("knative-serving-namespace", "")
    key = ("revisions", namespace, name)
    if key not in objects.items:
        return 404, f'Error getting active endpoint: revision.{GROUP} "{name}" not found\n'.encode()
    until_s = time.monotonic() + _HOLDS_S
    while not (ready := revisions.ready(objects, key)):
        knative.scale.idle[key] = 0
        if time.monotonic() > until_s or key not in objects.items:
            return 503, b"activator: no pod got ready in time\n"
        objects.changed.wait(0.02)
    knative.scale.idle[key] = 0
    pods.turn += 1
    return ready[pods.turn % len(ready)]


def send(objects: Objects, pods: Pods, knative: Knative, route: Key, requests: int) -> None:
    """Clients ask by a Route's name, and get whom its shares say; who has no pod now is started, and not waited for."""
    for target in objects.items[route].get("status", {}).get("traffic", []):
        key = ("revisions", route[1], target["revisionName"])
        knative.scale.idle[key] = 0
        ready = revisions.ready(objects, key)
        for number in range(requests * target["percent"] // 100 if ready else 0):
            simulation.answer(pods, ready[number % len(ready)], "POST", "/predict")


def _part(objects: Objects, key: Key, service: Object, plural: str, spec: Object) -> Object | None:
    kind = {"configurations": "Configuration", "routes": "Route"}[plural]
    labels = {**service["metadata"].get("labels", {}), f"{GROUP}/service": key[2]}
    body = {"apiVersion": API, "kind": kind, "metadata": {"labels": labels}, "spec": spec}
    return owners.made(objects, (plural, *key[1:]), service, body)


def _configure(objects: Objects, key: Key, service: Object, configuration: Object) -> None:
    """A revision for the template as it is, unless there is one; else by whose name another one is there."""
    _, namespace, name = key
    template, generation = configuration["spec"]["template"], configuration["metadata"]["generation"]
    wanted = template["metadata"].get("name") or f"{name}-{generation:05d}"
    at = ("revisions", namespace, wanted)
    live = objects.items.get(at)
    status: dict[str, Any] = {**configuration.get("status", {}), "observedGeneration": generation}
    if live is None:
        live = revisions.create(objects, at, service, configuration)
    elif not owners.is_controlled(live, configuration) or live["spec"] != template["spec"]:
        why = f'Revision creation failed with message: revisions.{GROUP} "{wanted}" already exists.'
        status["conditions"] = [condition("Ready", "False", "RevisionFailed", why)]
        objects.set_status(("configurations", namespace, name), status)
        return
    status["latestCreatedRevisionName"] = wanted
    ready = revisions.condition_of(live, "Ready")
    if ready["status"] == "True":
        status["latestReadyRevisionName"] = wanted
        status["conditions"] = [condition("Ready", "True")]
    elif ready["status"] == "False":
        why = f'Revision "{wanted}" failed with message: {ready["message"]}.'
        status["conditions"] = [condition("Ready", "False", "RevisionFailed", why)]
    else:
        status["conditions"] = [condition("Ready", "Unknown")]
    objects.set_status(("configurations", namespace, name), status)


def _lead(objects: Objects, knative: Knative, key: Key, route: Object) -> set[str]:
    """Lead requests by the name to revisions that are ready; gives those that have some."""
    _, namespace, name = key
    at = ("routes", namespace, name)
    generation = route["metadata"]["generation"]
    before: dict[str, Any] = route.get("status", {})
    status: dict[str, Any] = {**before, "observedGeneration": generation}
    told = _assigned(objects, key, route)
    wanted = told if isinstance(told, list) else before.get("traffic", [])
    if not _has_name(objects, knative, key, route):
        why = f'There is an existing placeholder Service "{name}" that we do not own.'
        status["conditions"] = [condition("Ready", "False", "NotOwned", why)]
    elif isinstance(told, list):
        status["traffic"] = told
        status["conditions"] = [condition("Ready", "True")]
    else:
        status["conditions"] = [told]
    objects.set_status(at, status)
    return {target["revisionName"] for target in wanted}


def _assigned(objects: Objects, key: Key, route: Object) -> list[Object] | Object:
    """The shares with the names of revisions, all of which are ready; or the condition that says why not."""
    configuration = objects.items["configurations", key[1], key[2]].get("status", {})
    found = []
    for target in route["spec"]["traffic"]:
        name = target.get("revisionName") or configuration.get("latestReadyRevisionName", "")
        revision = objects.items.get(("revisions", key[1], name))
        if not name:
            why = f'Configuration "{key[2]}" is waiting for a Revision to become ready.'
            return condition("Ready", "Unknown", "RevisionMissing", why)
        if revision is None:
            return condition("Ready", "False", "RevisionMissing", f'Revision "{name}" referenced in traffic not found.')
        ready = revisions.condition_of(revision, "Ready")["status"]
        if ready != "True":
            why = f'Revision "{name}" ' + ("failed to become ready." if ready == "False" else "is not yet ready.")
            return condition("Ready", ready, "RevisionMissing", why)
        found.append(
            {"revisionName": name, "percent": target["percent"], "latestRevision": not target.get("revisionName")}
        )
    return found


def _has_name(objects: Objects, knative: Knative, key: Key, route: Object) -> bool:
    """Whether the Service of the Route's name is its own; it leads to the gateway."""
    _, namespace, name = key
    uid, generation = route["metadata"]["uid"], route["metadata"]["generation"]
    seen, when = knative.refused.get(uid, (0, 0))
    if seen == generation and knative.now - when < _AGAIN_AFTER:
        return False
    gateway = "knative-local-gateway.example.svc.cluster.local"
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"labels": {**route["metadata"].get("labels", {}), f"{GROUP}/route": name}},
        "spec": {"type": "ExternalName", "externalName": gateway, "ports": [{"name": "http2", "port": 80}]},
    }
    if owners.made(objects, ("services", namespace, name), route, body) is None:
        knative.refused[uid] = (generation, knative.now)
        return False
    knative.refused.pop(uid, None)
    return True


def _report(objects: Objects, key: Key) -> None:
    """The Service says what its parts say."""
    parts = {
        "ConfigurationsReady": objects.items["configurations", key[1], key[2]],
        "RoutesReady": objects.items["routes", key[1], key[2]],
    }
    conditions = []
    for kind, part in parts.items():
        said = revisions.condition_of(part, "Ready")
        conditions.append({**said, "type": kind})
    worst = next((one for one in conditions if one["status"] == "False"), None)
    worst = worst or next((one for one in conditions if one["status"] == "Unknown"), conditions[0])
    configured, routed = (part.get("status", {}) for part in parts.values())
    names = {name: configured[name] for name in configured if name.endswith("RevisionName")}
    status = {
        **names,
        "traffic": routed.get("traffic", []),
        "url": f"http://{key[2]}.{key[1]}.example.com",
        "observedGeneration": objects.items[key]["metadata"]["generation"],
        "conditions": [*conditions, {**worst, "type": "Ready"}],
    }
    objects.set_status(key, status)


condition = revisions.condition
