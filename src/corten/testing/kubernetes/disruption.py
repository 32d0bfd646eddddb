"""Disruption budgets, and the evictions they refuse: what a drain of a node goes by."""

from __future__ import annotations

import math

from corten.testing.kubernetes import simulation, statuses
from corten.testing.kubernetes.objects import Key, Object, Objects


def tick(objects: Objects) -> None:
    """Say of each budget how many of its pods may go."""
    for key, budget in [(key, one) for key, one in objects.items.items() if key[0] == "poddisruptionbudgets"]:
        pods = _guarded(objects, key, budget)
        healthy = sum(simulation.is_ready(pod) for pod in pods)
        least = _least(budget["spec"], len(pods))
        status = {
            "currentHealthy": healthy,
            "desiredHealthy": least,
            "disruptionsAllowed": max(0, healthy - least),
            "expectedPods": len(pods),
            "observedGeneration": budget["metadata"]["generation"],
        }
        objects.set_status(key, status)


def _least(spec: Object, pods: int) -> int:
    """How many of so many pods have to serve."""
    if "minAvailable" in spec:
        return min(pods, _count(spec["minAvailable"], pods))
    return max(0, pods - _count(spec.get("maxUnavailable", 0), pods))


def _count(amount: int | str, of: int) -> int:
    """Percents are rounded up, as the controller does it."""
    return math.ceil(of * int(amount.rstrip("%")) / 100) if isinstance(amount, str) else amount


def evict(objects: Objects, key: Key) -> None:
    """End a pod as a drain does. Raises RefusedError (429) where its budget does not allow it now."""
    pod = objects.items[key]
    tick(objects)
    for at, budget in objects.items.items():
        guards = at[0] == "poddisruptionbudgets" and pod in _guarded(objects, at, budget)
        # `unhealthyPodEvictionPolicy: AlwaysAllow`: one that does not serve protects nobody.
        if guards and simulation.is_ready(pod) and budget["status"]["disruptionsAllowed"] < 1:
            raise statuses.disrupted(at[2], budget["status"])
    simulation.end(objects, key)


def _guarded(objects: Objects, key: Key, budget: Object) -> list[Object]:
    chosen = budget["spec"].get("selector", {}).get("matchLabels", {})
    return [
        pod
        for at, pod in objects.items.items()
        if at[:2] == ("pods", key[1])
        and not simulation.is_going(pod)
        and all(pod["metadata"].get("labels", {}).get(name) == value for name, value in chosen.items())
    ]
