"""What the API server finds wrong within a pod (core validation), in its words."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from corten.exporters.quantity import parse_quantity
from corten.testing.kubernetes.statuses import Mistake

NOT_NEGATIVE = "must be greater than or equal to 0"
_MOST_PORT = 65_535
_LONGEST_PORT = 15
_PORT = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_TIMES = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")

Found = Iterator[Mistake]


def wrong(field: str, value: Any, why: str) -> Mistake:
    """A value that is not taken, as the server shows it."""
    return Mistake(field, f"Invalid value: {json.dumps(value, separators=(',', ':'))}: {why}")


def missing(field: str) -> Mistake:
    """One that has to be there."""
    return Mistake(field, "Required value", "FieldValueRequired")


def not_a_port(number: Any, field: str) -> Found:
    """A number that no port has."""
    if number is None:
        yield missing(field)
    elif not 1 <= number <= _MOST_PORT:
        yield wrong(field, number, f"must be between 1 and {_MOST_PORT}, inclusive")


def pod(spec: Mapping[str, Any], at: str) -> Found:
    """The spec of a pod, or of a template for them."""
    if not spec.get("containers"):
        yield missing(f"{at}.containers")
    if spec.get("terminationGracePeriodSeconds", 0) < 0:
        yield wrong(f"{at}.terminationGracePeriodSeconds", spec["terminationGracePeriodSeconds"], NOT_NEGATIVE)
    volumes = {volume.get("name") for volume in spec.get("volumes", [])}
    for number, container in enumerate(spec.get("containers", [])):
        yield from _container(container, volumes, f"{at}.containers[{number}]")


def _container(container: Mapping[str, Any], volumes: set[Any], at: str) -> Found:
    yield from (missing(f"{at}.{name}") for name in ("name", "image") if not container.get(name))
    yield from _ports(container.get("ports", []), f"{at}.ports")
    for probe in _PROBES:
        found = container.get(probe, {})
        yield from (
            wrong(f"{at}.{probe}.{name}", found[name], NOT_NEGATIVE) for name in _TIMES if found.get(name, 0) < 0
        )
    for number, mount in enumerate(container.get("volumeMounts", [])):
        if mount.get("name") not in volumes:
            told = f'Not found: "{mount.get("name")}"'
            yield Mistake(f"{at}.volumeMounts[{number}].name", told, "FieldValueNotFound")
    yield from _resources(container.get("resources", {}), f"{at}.resources")


def _ports(ports: list[Mapping[str, Any]], at: str) -> Found:
    for number, port in enumerate(ports):
        yield from not_a_port(port.get("containerPort"), f"{at}[{number}].containerPort")
        name = port.get("name")
        if name is None:
            continue
        if len(name) > _LONGEST_PORT:
            yield wrong(f"{at}[{number}].name", name, f"must be no more than {_LONGEST_PORT} characters")
        if not _PORT.fullmatch(name):
            why = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
            yield wrong(f"{at}[{number}].name", name, why)
        elif not re.search("[a-z]", name):
            yield wrong(f"{at}[{number}].name", name, "must contain at least one letter (a-z)")
    twice = Counter(port["name"] for port in ports if port.get("name"))
    for number, port in enumerate(ports):
        if twice[port.get("name")] > 1 and [one.get("name") for one in ports].index(port["name"]) < number:
            yield Mistake(f"{at}[{number}].name", f'Duplicate value: "{port["name"]}"', "FieldValueDuplicate")


def _resources(resources: Mapping[str, Any], at: str) -> Found:
    limits = resources.get("limits", {})
    for name, text in resources.get("requests", {}).items():
        asked, most = parse_quantity(text), parse_quantity(limits[name]) if name in limits else None
        if asked is not None and most is not None and asked > most:
            yield wrong(f"{at}.requests", text, f"must be less than or equal to {name} limit of {limits[name]}")
