"""What the schemas of Kubernetes do not say: whether objects mean what they should, alone and together.

Most of it the API server or a controller would find out, some of it nobody: a Service whose selector fits no pod is
well-formed, and nothing answers. Pure; asked before anything is rendered or sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corten.exporters.rules_added import ADDED
from corten.exporters.rules_knative import GROUP as KNATIVE
from corten.exporters.rules_knative import check_service as check_knative
from corten.exporters.rules_names import is_label_value, is_name, is_service_name
from corten.exporters.rules_pod import check_pod, port_in_range

_NODE_PORTS = range(30_000, 32_768)
_MOST_WEIGHT = 1_000_000
_WORKLOADS = ("Deployment", "Rollout")
_SCALERS = ("HorizontalPodAutoscaler", "ScaledObject", "HTTPScaledObject")

Manifest = Mapping[str, Any]
# Where something is wrong in an object, and what.
Told = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: of which object, where in it, and why."""

    kind: str
    name: str
    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.kind} `{self.name}`, {self.path}: {self.why}"


def check(objects: Sequence[Manifest]) -> tuple[Finding, ...]:
    """All that is wrong with objects that are to be there together; nothing is, as a rule."""
    together = _Together(objects)
    found: list[Finding] = []
    for one in objects:
        kind, name = str(one["kind"]), str(one["metadata"]["name"])
        # The one kind whose name is another's, too.
        rule = check_knative if one["apiVersion"].startswith(KNATIVE) else _RULES.get(kind)
        told = [*_names(one), *(rule(one, together) if rule else ())]
        found += [Finding(kind, name, path, why) for path, why in told]
    twice = Counter((one["kind"], one["metadata"].get("namespace", ""), one["metadata"]["name"]) for one in objects)
    found += [
        Finding(kind, name, "metadata.name", "is there twice") for (kind, _, name), count in twice.items() if count > 1
    ]
    return tuple(found)


def _names(one: Manifest) -> Told:
    """Names and labels as the API server takes them."""
    name = one["metadata"]["name"]
    fits = is_service_name(name) if one["kind"] == "Service" else is_name(name)
    if not fits:
        what = "a letter first, at most 63" if one["kind"] == "Service" else "at most 253"
        yield "metadata.name", f"`{name}` is no name: expected a-z, 0-9 and `-` within, {what}"
    for key, value in one["metadata"].get("labels", {}).items():
        if not is_label_value(value):
            yield (
                f"metadata.labels.{key}",
                f"`{value}` is no value of a label: at most 63 of A-Z, a-z, 0-9, `-_.` within",
            )


class _Together:
    """The other objects, as rules ask for them."""

    def __init__(self, objects: Sequence[Manifest]) -> None:
        self.objects = objects

    def of(self, *kinds: str) -> list[Manifest]:
        return [one for one in self.objects if one["kind"] in kinds]

    def pods(self, selector: Mapping[str, str]) -> list[Manifest]:
        """The pod templates that a selector fits."""
        templates = [one["spec"]["template"] for one in self.of(*_WORKLOADS)]
        return [template for template in templates if selects(selector, template["metadata"].get("labels", {}))]

    def named(self, kind: str, name: str) -> Manifest | None:
        return next((one for one in self.of(kind) if one["metadata"]["name"] == name), None)


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether labels have all that a selector asks for."""
    return all(labels.get(key) == value for key, value in selector.items())


def _deployment(one: Manifest, together: _Together) -> Told:
    spec = one["spec"]
    chosen = spec.get("selector", {}).get("matchLabels", {})
    if not chosen:
        yield "spec.selector", "chooses every pod there is"
    if not selects(chosen, spec["template"]["metadata"].get("labels", {})):
        yield "spec.selector", "does not fit the labels of its own pods"
    rolling = spec.get("strategy", {}).get("rollingUpdate", {})
    if rolling and all(_is_zero(rolling.get(key, 1)) for key in ("maxSurge", "maxUnavailable")):
        yield "spec.strategy.rollingUpdate", "maxSurge and maxUnavailable are both 0, so nothing could ever change"
    if spec.get("progressDeadlineSeconds", 600) <= spec.get("minReadySeconds", 0):
        yield "spec.progressDeadlineSeconds", "is not above minReadySeconds, so every rollout fails"
    for key in ("minReadySeconds", "revisionHistoryLimit", "replicas"):
        if spec.get(key, 0) < 0:
            yield f"spec.{key}", "is below 0"
    if "replicas" in spec and any(_targets(scaler, one) for scaler in together.of(*_SCALERS)):
        yield "spec.replicas", "is set here and by a scaler: each apply would undo what the scaler did"
    yield from ((f"spec.template.spec.{path}", why) for path, why in check_pod(spec["template"]["spec"]))


def _service(one: Manifest, together: _Together) -> Told:
    spec = one["spec"]
    ports = spec.get("ports", [])
    yield from _unnamed(ports)
    for number, port in enumerate(ports):
        path = f"spec.ports[{number}]"
        if not port_in_range(port.get("port")):
            yield f"{path}.port", f"{port.get('port')} is no port: expected 1 to 65535"
        if port.get("nodePort") is not None and port["nodePort"] not in _NODE_PORTS:
            yield f"{path}.nodePort", f"{port['nodePort']} is outside of {_NODE_PORTS.start} to {_NODE_PORTS.stop - 1}"
    pods = together.pods(spec.get("selector", {}))
    # The pods of a canary are there only while there is one.
    if together.of(*_WORKLOADS) and not pods and spec.get("selector", {}).get("corten.dev/track") != "canary":
        yield "spec.selector", "fits no pod: nothing would answer"
    for pod in pods:
        known = [port for each in pod["spec"]["containers"] for port in each.get("ports", [])]
        for number, port in enumerate(ports):
            wanted = port.get("targetPort", port.get("port"))
            if wanted not in [port.get("name") for port in known] + [port.get("containerPort") for port in known]:
                yield f"spec.ports[{number}].targetPort", f"`{wanted}` is no port of the pods: endpoints without a port"


def _unnamed(ports: Sequence[Manifest]) -> Told:
    names = [port.get("name", "") for port in ports]
    if len(ports) > 1 and ("" in names or len(set(names)) < len(names)):
        yield "spec.ports", "several ports need different names"
    if not ports:
        yield "spec.ports", "has none"


def _autoscaler(one: Manifest, together: _Together) -> Told:
    spec = one["spec"]
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    if most < 1:
        yield "spec.maxReplicas", f"is {most}: expected at least 1"
    if least > most:
        yield "spec.minReplicas", f"{least} is above maxReplicas, {most}"
    outside = {"Object", "External"}
    if least < 1 and not any(metric["type"] in outside for metric in spec.get("metrics", [])):
        yield "spec.minReplicas", "0 needs a metric from outside: pods that are not there measure nothing"
    target = _target(one, together)
    if target is None:
        yield "spec.scaleTargetRef", "names nothing that is here"
        return
    containers = target["spec"]["template"]["spec"]["containers"]
    for number, metric in enumerate(spec.get("metrics", [])):
        if metric["type"] != "ContainerResource":
            continue
        asked = metric["containerResource"]
        container = next((each for each in containers if each["name"] == asked["container"]), None)
        if container is None:
            yield f"spec.metrics[{number}]", f"no container `{asked['container']}`"
        elif asked["target"]["type"] == "Utilization" and asked["name"] not in container["resources"].get(
            "requests", {}
        ):
            yield f"spec.metrics[{number}]", f"a share of the requested {asked['name']}, and none is requested"


def _scaled_object(one: Manifest, together: _Together) -> Told:
    spec = one["spec"]
    least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)
    if not 0 <= least <= most or most < 1:
        yield "spec.maxReplicaCount", f"from {least} to {most} is no range of replicas"
    if _target(one, together) is None:
        yield "spec.scaleTargetRef", "names nothing that is here"


def _budget(one: Manifest, together: _Together) -> Told:
    spec = one["spec"]
    chosen = spec.get("selector", {}).get("matchLabels", {})
    guarded = [
        each
        for each in together.of(*_WORKLOADS)
        if selects(chosen, each["spec"]["template"]["metadata"].get("labels", {}))
    ]
    if not guarded:
        yield "spec.selector", "fits no pod: it guards nothing"
    if _is_zero(spec.get("maxUnavailable", 1)):
        yield "spec.maxUnavailable", "0 blocks every drain of a node"
    for each in guarded:
        least = _least(each, together)
        if least <= 1 or ("minAvailable" in spec and _count(spec["minAvailable"], least) >= least):
            yield "spec", f"of {least} replica{'s' * (least != 1)} none could ever be evicted, and no node drained"


def _policy(one: Manifest, together: _Together) -> Told:
    chosen = one["spec"].get("podSelector", {}).get("matchLabels", {})
    if together.of(*_WORKLOADS) and not together.pods(chosen):
        yield "spec.podSelector", "fits no pod: it guards nothing"


def _route(one: Manifest, together: _Together) -> Told:
    for number, rule in enumerate(one["spec"].get("rules", [])):
        backends = rule.get("backendRefs", [])
        for place, backend in enumerate(backends):
            path = f"spec.rules[{number}].backendRefs[{place}]"
            service = together.named("Service", backend["name"])
            if service is None:
                yield path, f"no Service `{backend['name']}`"
            elif backend.get("port") not in [port["port"] for port in service["spec"]["ports"]]:
                yield f"{path}.port", f"`{backend['name']}` has no port {backend.get('port')}"
            if not 0 <= backend.get("weight", 1) <= _MOST_WEIGHT:
                yield f"{path}.weight", f"{backend['weight']} is no weight: expected 0 to {_MOST_WEIGHT}"
        if backends and not any(backend.get("weight", 1) for backend in backends):
            yield f"spec.rules[{number}]", "all weights are 0: every request fails"


def _target(scaler: Manifest, together: _Together) -> Manifest | None:
    return next((one for one in together.of(*_WORKLOADS) if _targets(scaler, one)), None)


def _targets(scaler: Manifest, one: Manifest) -> bool:
    named = scaler["spec"]["scaleTargetRef"]
    return bool(named["name"] == one["metadata"]["name"] and named.get("kind", "Deployment") == one["kind"])


def _least(one: Manifest, together: _Together) -> int:
    for scaler in together.of(*_SCALERS):
        if _targets(scaler, one):
            spec = scaler["spec"]
            held = spec.get("replicas", {}).get("min", 1)
            return int(spec.get("minReplicas", spec.get("minReplicaCount", held)))
    return int(one["spec"].get("replicas", 1))


def _count(amount: int | str, of: int) -> int:
    """How many an amount is, in pods or percent (rounded up, as the controller does)."""
    return -(-int(amount.rstrip("%")) * of // 100) if isinstance(amount, str) else amount


def _is_zero(amount: int | str) -> bool:
    return str(amount).rstrip("%") == "0"


_RULES: Mapping[str, Callable[[Manifest, _Together], Told]] = {
    "Deployment": _deployment,
    "Rollout": _deployment,
    "Service": _service,
    "HorizontalPodAutoscaler": _autoscaler,
    "ScaledObject": _scaled_object,
    "PodDisruptionBudget": _budget,
    "NetworkPolicy": _policy,
    "HTTPRoute": _route,
    **ADDED,
}
