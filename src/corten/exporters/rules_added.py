"""What is wrong in objects of what was added to a cluster: their schemas are with who installed them, not here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

_HOST = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# Prometheus: common/model, ParseDuration.
_DURATION = re.compile(r"([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?")
_ALERT = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")

Manifest = Mapping[str, Any]
Told = Iterator[tuple[str, str]]


class Together(Protocol):
    """The other objects."""

    def of(self, *kinds: str) -> list[Manifest]:
        """Those of some kinds."""

    def named(self, kind: str, name: str) -> Manifest | None:
        """One, or None."""


def _interceptor(one: Manifest, together: Together) -> Told:
    spec = one["spec"]
    yield from _leads(spec["target"], "spec.target", together)
    hosts = [host for rule in spec.get("rules", []) for host in rule.get("hosts", [])]
    yield from _hosts(hosts, "spec.rules")
    # The add-on's scaler counts by the route's name.
    if not any(
        trigger.get("metadata", {}).get("interceptorRoute") == one["metadata"]["name"]
        for scaler in together.of("ScaledObject")
        for trigger in scaler["spec"].get("triggers", [])
    ):
        yield "metadata.name", "no ScaledObject asks for its requests: nothing would ever start"


def _held(one: Manifest, together: Together) -> Told:
    spec = one["spec"]
    yield from _leads(spec["scaleTargetRef"], "spec.scaleTargetRef", together)
    yield from _hosts(spec.get("hosts", []), "spec.hosts")
    if together.named("Deployment", spec["scaleTargetRef"]["name"]) is None:
        yield "spec.scaleTargetRef", "names nothing that is here"
    least, most = spec["replicas"].get("min", 0), spec["replicas"].get("max", 100)
    if not 0 <= least <= most or most < 1:
        yield "spec.replicas", f"from {least} to {most} is no range of replicas"


def _monitor(one: Manifest, together: Together) -> Told:
    spec = one["spec"]
    chosen = spec.get("selector", {}).get("matchLabels", {})
    services = [
        service
        for service in together.of("Service")
        if all(service["metadata"].get("labels", {}).get(key) == value for key, value in chosen.items())
    ]
    if not services:
        yield "spec.selector", "fits no Service: nothing is measured"
    for number, endpoint in enumerate(spec.get("endpoints", [])):
        # By the Service's name for the port: a number would not do.
        names = {port.get("name") for service in services for port in service["spec"]["ports"]}
        if services and endpoint.get("port") not in names:
            yield f"spec.endpoints[{number}].port", f"`{endpoint.get('port')}` is no port of the Service"
        if not _is_duration(endpoint.get("interval", "15s")):
            yield f"spec.endpoints[{number}].interval", f"`{endpoint['interval']}` is no duration"


def _alerts(one: Manifest, together: Together) -> Told:
    del together
    groups: Sequence[Manifest] = one["spec"].get("groups", [])
    names = [group["name"] for group in groups]
    if len(set(names)) < len(names):
        yield "spec.groups", "two of one name"
    for place, group in enumerate(groups):
        for number, rule in enumerate(group.get("rules", [])):
            path = f"spec.groups[{place}].rules[{number}]"
            if not rule.get("expr", "").strip():
                yield f"{path}.expr", "is empty"
            elif any(rule["expr"].count(opened) != rule["expr"].count(closed) for opened, closed in ("()", "{}", "[]")):
                yield f"{path}.expr", "has a bracket that does not close"
            if not _ALERT.fullmatch(rule.get("alert", "x")):
                yield f"{path}.alert", f"`{rule['alert']}` is no name of an alert"
            if not _is_duration(rule.get("for", "0s")):
                yield f"{path}.for", f"`{rule['for']}` is no duration"
            for label in rule.get("labels", {}):
                if not _LABEL.fullmatch(label):
                    yield f"{path}.labels", f"`{label}` is no label of Prometheus"


def _leads(target: Manifest, path: str, together: Together) -> Told:
    service = together.named("Service", target["service"])
    if service is None:
        yield f"{path}.service", f"no Service `{target['service']}`"
    elif target.get("port") not in [port["port"] for port in service["spec"]["ports"]]:
        yield f"{path}.port", f"`{target['service']}` has no port {target.get('port')}"


def _hosts(hosts: Sequence[str], path: str) -> Told:
    if not hosts:
        yield path, "no host: no request would find it"
    yield from ((path, f"`{host}` is no host name") for host in hosts if not _HOST.fullmatch(host))


def _is_duration(text: str) -> bool:
    return text == "0" or (bool(text) and _DURATION.fullmatch(text) is not None)


ADDED: Mapping[str, Callable[[Manifest, Any], Told]] = {
    "InterceptorRoute": _interceptor,
    "HTTPScaledObject": _held,
    "ServiceMonitor": _monitor,
    "PrometheusRule": _alerts,
}
