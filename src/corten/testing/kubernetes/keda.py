"""KEDA of the small cluster, as far as a number of replicas goes down to none and back to the least that is asked for.

Requests through a Service count as those its add-on would see.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from corten.testing.kubernetes import owners
from corten.testing.kubernetes.objects import Key, Object, Objects
from corten.testing.kubernetes.simulation import Pods

_MANAGER = "keda-operator"


@dataclass
class Keda:
    """Since how many ticks nobody asked what a ScaledObject scales, and the count of requests by then."""

    idle: dict[Key, int] = field(default_factory=dict)
    asked: int = 0


def tick(objects: Objects, pods: Pods, keda: Keda) -> None:
    """One look of its operator."""
    for key, held in _all(objects, "httpscaledobjects"):
        _scaled_object(objects, key, held)
    came, keda.asked = pods.turn != keda.asked, pods.turn
    for key, scaler in _all(objects, "scaledobjects"):
        target = ("deployments", key[1], scaler["spec"]["scaleTargetRef"]["name"])
        if target not in objects.items:
            continue
        keda.idle[key] = 0 if came else keda.idle.get(key, 0) + 1
        _scale(objects, target, scaler["spec"], idle=keda.idle[key])


def _scale(objects: Objects, target: Key, spec: Object, *, idle: int) -> None:
    live = objects.items[target]
    now, least = live["spec"].get("replicas", 1), spec.get("minReplicaCount", 0)
    wanted = max(now, least)
    if least == 0 and idle > spec.get("cooldownPeriod", 300):
        wanted = 0
    if wanted != now:
        made = copy.deepcopy(live)
        made["spec"]["replicas"] = wanted
        objects.update(target, made, _MANAGER)


def _scaled_object(objects: Objects, key: Key, held: Object) -> None:
    """The add-on's operator makes one of each HTTPScaledObject."""
    spec = held["spec"]
    body = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"labels": held["metadata"].get("labels", {})},
        "spec": {
            "scaleTargetRef": {"name": spec["scaleTargetRef"]["name"]},
            "minReplicaCount": spec["replicas"]["min"],
            "maxReplicaCount": spec["replicas"]["max"],
            "cooldownPeriod": spec.get("scaledownPeriod", 300),
        },
    }
    owners.made(objects, ("scaledobjects", *key[1:]), held, body)


def _all(objects: Objects, plural: str) -> list[tuple[Key, Object]]:
    return [(key, one) for key, one in objects.items.items() if key[0] == plural]
