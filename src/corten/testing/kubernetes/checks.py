"""What the API server finds wrong with the meaning of an object, once its fields are known: in its words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from corten.cluster.kinds import KNATIVE_SERVICE, Kind
from corten.testing.kubernetes import checks_pod, knative_webhook, statuses
from corten.testing.kubernetes.checks_pod import NOT_NEGATIVE, missing, not_a_port, wrong
from corten.testing.kubernetes.objects import Key, Object
from corten.testing.kubernetes.statuses import Mistake

__all__ = ["NOT_NEGATIVE", "check"]
_NODE_PORTS = range(30_000, 32_768)
_IMMUTABLE = "field is immutable when `immutable` is set"

Found = Iterator[Mistake]


def check(kind: Kind, key: Key, live: Object | None, made: Object, *, dry: bool = False) -> None:
    """Fills in the defaults that matter here. Raises RefusedError."""
    if kind == KNATIVE_SERVICE:
        knative_webhook.check(live, made)
    found = list(_mistakes(kind, live, made, dry=dry))
    if found:
        raise statuses.invalid(kind.name, kind.group, key[2], found)


def _mistakes(kind: Kind, live: Object | None, made: Object, *, dry: bool) -> Found:
    spec = made.get("spec", {})
    match kind.plural:
        case "deployments":
            yield from _deployment(live, spec)
        case "pods":
            made.setdefault("status", {"phase": "Pending"})
            yield from checks_pod.pod(spec, "spec")
        case "services" if not kind.group:
            yield from _service(spec, dry=dry)
        case "horizontalpodautoscalers":
            yield from _autoscaler(spec)
        case "configmaps" | "secrets" if live and live.get("immutable"):
            if not made.get("immutable"):
                yield Mistake("immutable", f"Forbidden: {_IMMUTABLE}", "FieldValueForbidden")
            for part in ("data", "binaryData"):
                if live.get(part, {}) != made.get(part, {}):
                    yield Mistake(part, f"Forbidden: {_IMMUTABLE}", "FieldValueForbidden")
        case _:
            pass


def _deployment(live: Object | None, spec: Object) -> Found:
    spec.setdefault("replicas", 1)
    for name in ("replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"):
        if spec.get(name, 0) < 0:
            yield wrong(f"spec.{name}", spec[name], NOT_NEGATIVE)
    if 0 <= spec.get("progressDeadlineSeconds", 600) <= spec.get("minReadySeconds", 0):
        yield wrong(
            "spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], "must be greater than minReadySeconds"
        )
    rolling = spec.get("strategy", {}).get("rollingUpdate", {})
    if all(str(rolling.get(name, "25%")).rstrip("%") == "0" for name in ("maxSurge", "maxUnavailable")):
        at = "spec.strategy.rollingUpdate.maxUnavailable"
        yield wrong(at, rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0")
    template = spec.get("template", {})
    labels = template.get("metadata", {}).get("labels", {})
    chosen = spec.get("selector")
    if not chosen:
        yield missing("spec.selector")
    elif live and live["spec"]["selector"] != chosen:
        yield wrong("spec.selector", chosen, "field is immutable")
    elif any(labels.get(label) != value for label, value in chosen.get("matchLabels", {}).items()):
        yield wrong("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    yield from checks_pod.pod(template.get("spec", {}), "spec.template.spec")


def _service(spec: Object, *, dry: bool) -> Found:
    ports = spec.get("ports", [])
    if not ports and spec.get("type") != "ExternalName" and spec.get("clusterIP") != "None":
        yield missing("spec.ports")
    for number, port in enumerate(ports):
        at = f"spec.ports[{number}]"
        yield from not_a_port(port.get("port"), f"{at}.port")
        target = port.get("targetPort", port.get("port"))
        if isinstance(target, int) and "targetPort" in port:
            yield from not_a_port(target, f"{at}.targetPort")
        if len(ports) > 1 and not port.get("name"):
            yield missing(f"{at}.name")
        # A dry run allocates nothing, and so does not find this.
        if not dry and port.get("nodePort", _NODE_PORTS.start) not in _NODE_PORTS:
            why = "provided port is not in the valid range. The range of valid ports is 30000-32767"
            yield wrong(f"{at}.nodePort", port["nodePort"], why)


def _autoscaler(spec: Mapping[str, Any]) -> Found:
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    outside = any(metric.get("type") in ("Object", "External") for metric in spec.get("metrics", []))
    # Pods that are not there measure nothing.
    bound = 0 if outside else 1
    if least < bound:
        yield wrong("spec.minReplicas", least, f"must be greater than or equal to {bound}")
    if most < 1:
        yield wrong("spec.maxReplicas", most, "must be greater than 0")
    if most < least:
        yield wrong("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    target = spec.get("scaleTargetRef", {})
    yield from (missing(f"spec.scaleTargetRef.{name}") for name in ("kind", "name") if not target.get(name))
