"""What is wrong in a Service of Knative: its webhook says so as well, but only once somebody sends it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from corten.exporters.rules_pod import check_pod

GROUP = "serving.knative.dev"
_SCALING = "autoscaling.knative.dev"
_PORT_NAMES = ("", "http1", "h2c")
_RESERVED = ("PORT", "K_SERVICE", "K_CONFIGURATION", "K_REVISION")

Manifest = Mapping[str, Any]
Told = Iterator[tuple[str, str]]


def check_service(one: Manifest, together: object) -> Told:
    """Paths within the Service, and what is wrong there."""
    del together
    spec = one["spec"]
    template = spec["template"]
    name = template["metadata"].get("name", "")
    if name and not name.startswith(f"{one['metadata']['name']}-"):
        yield "spec.template.metadata.name", f"`{name}` does not begin with the Service's name and `-`"
    shares = [target.get("percent", 0) for target in spec.get("traffic", [])]
    if shares and sum(shares) != 100:
        yield "spec.traffic", f"shares sum to {sum(shares)}: expected 100"
    annotations = template["metadata"].get("annotations", {})
    least, most = (int(annotations.get(f"{_SCALING}/{which}-scale", 0)) for which in ("min", "max"))
    if most and least > most:
        yield "spec.template.metadata.annotations", f"from {least} to {most} is no range of replicas"
    yield from ((f"spec.template.spec.{path}", why) for path, why in _pod(template["spec"]))


def _pod(spec: Manifest) -> Told:
    yield from check_pod(spec)
    ports = [port for container in spec["containers"] for port in container.get("ports", [])]
    if len(ports) > 1:
        yield "containers", "more than one port: Knative asks one"
    for port in ports:
        if port.get("name", "") not in _PORT_NAMES:
            yield "containers", f"`{port['name']}` is no name of a port here: expected http1 or h2c"
    for container in spec["containers"]:
        for variable in container.get("env", []):
            if variable["name"] in _RESERVED:
                yield "containers", f"`{variable['name']}` is set by Knative"
