"""What is wrong within a pod."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from corten.exporters.quantity import parse_quantity
from corten.exporters.rules_names import is_port_name

_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_LEAST = {
    "periodSeconds": 1,
    "timeoutSeconds": 1,
    "failureThreshold": 1,
    "successThreshold": 1,
    "initialDelaySeconds": 0,
}
_MOST_PORT = 65_535

Told = Iterator[tuple[str, str]]


def check_pod(spec: Mapping[str, Any]) -> Told:
    """Paths within the pod's spec, and what is wrong there."""
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    names = [each["name"] for each in spec["containers"]]
    yield from (("containers", f"two called `{name}`") for name, count in Counter(names).items() if count > 1)
    for number, container in enumerate(spec["containers"]):
        told = [
            *_ports(container),
            *_resources(container.get("resources", {})),
            *_probes(container),
            *_mounts(container, volumes),
            *_lingering(container, spec.get("terminationGracePeriodSeconds", 30)),
        ]
        yield from ((f"containers[{number}].{path}", why) for path, why in told)


def port_in_range(port: object) -> bool:
    """Whether that is a number of a port."""
    return isinstance(port, int) and 1 <= port <= _MOST_PORT


def _ports(container: Mapping[str, Any]) -> Told:
    ports = container.get("ports", [])
    for number, port in enumerate(ports):
        if not port_in_range(port.get("containerPort")):
            yield (
                f"ports[{number}].containerPort",
                f"{port.get('containerPort')} is no port: expected 1 to {_MOST_PORT}",
            )
        if "name" in port and not is_port_name(port["name"]):
            why = f"`{port['name']}` is no name of a port: at most 15 of a-z, 0-9 and single `-`, a letter among them"
            yield f"ports[{number}].name", why
    twice = Counter(port.get("name") for port in ports if "name" in port)
    yield from (("ports", f"two called `{name}`") for name, count in twice.items() if count > 1)


def _resources(resources: Mapping[str, Any]) -> Told:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for kind, amounts in (("requests", requests), ("limits", limits)):
        for name, text in amounts.items():
            amount = parse_quantity(text)
            if amount is None or amount < 0:
                yield f"resources.{kind}.{name}", f"`{text}` is no amount"
    for name in requests.keys() & limits.keys():
        asked, most = parse_quantity(requests[name]), parse_quantity(limits[name])
        if asked is not None and most is not None and asked > most:
            yield f"resources.requests.{name}", f"{requests[name]} is above the limit, {limits[name]}"
        if "/" in name and asked != most:
            yield f"resources.requests.{name}", "of devices as many are requested as are the limit"


def _probes(container: Mapping[str, Any]) -> Told:
    known = [port.get("name") for port in container.get("ports", [])]
    for probe in _PROBES:
        found = container.get(probe, {})
        for key, least in _LEAST.items():
            if found.get(key, least) < least:
                yield f"{probe}.{key}", f"{found[key]} is below {least}"
        port = found.get("httpGet", {}).get("port")
        if isinstance(port, str) and port not in known:
            yield f"{probe}.httpGet.port", f"no port is called `{port}`"
        if probe != "readinessProbe" and found.get("successThreshold", 1) != 1:
            yield f"{probe}.successThreshold", "only readiness may need more than one"


def _mounts(container: Mapping[str, Any], volumes: list[str]) -> Told:
    mounts = container.get("volumeMounts", [])
    for number, mount in enumerate(mounts):
        if mount["name"] not in volumes:
            yield f"volumeMounts[{number}]", f"no volume is called `{mount['name']}`"
    paths = Counter(mount["mountPath"] for mount in mounts)
    yield from (("volumeMounts", f"two at `{path}`") for path, count in paths.items() if count > 1)
    variables = Counter(one["name"] for one in container.get("env", []))
    yield from (("env", f"`{name}` is set twice") for name, count in variables.items() if count > 1)


def _lingering(container: Mapping[str, Any], grace_s: int) -> Told:
    linger_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if linger_s >= grace_s:
        yield (
            "lifecycle.preStop",
            f"sleeps for {linger_s} s of a grace period of {grace_s} s: nothing is left to drain in",
        )
