"""What a cluster is and has: its version, and what was added to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from corten.cluster.kinds import HELD_OBJECT, INTERCEPTOR, KNATIVE_SERVICE, MONITOR, ROUTE, SCALED_OBJECT, Kind
from corten.cluster.port import Api
from corten.errors import EngineError
from corten.exporters.base import Addition, Cluster

_OLDEST = (1, 29)
# What has to be served for an addition to be there: a group alone may be an older version of it, or another part.
_NEEDED: Mapping[Addition, Kind] = {
    Addition.GATEWAY_API: ROUTE,
    Addition.KEDA: SCALED_OBJECT,
    Addition.KEDA_HTTP: INTERCEPTOR,
    Addition.KEDA_HTTP_ALPHA: HELD_OBJECT,
    Addition.PROMETHEUS: MONITOR,
    Addition.KNATIVE: KNATIVE_SERVICE,
}


def discover(api: Api, given: Cluster) -> Cluster:
    """What was given of a cluster, with what it says of itself. Raises EngineError `kubernetes.too_old`."""
    told = json.loads(api.ask("GET", "/version").body)
    version = _version(told)
    if version < _OLDEST:
        said = f"{version[0]}.{version[1]}" if version[0] else f"`{told.get('gitVersion', '')}`"
        raise EngineError(
            "kubernetes.too_old",
            f"Kubernetes {said} is older than what Corten knows",
            where=api.server,
            why=f"expected {_OLDEST[0]}.{_OLDEST[1]} or newer",
            hint="have it upgraded, or choose another one: --context (kubectl config get-contexts)",
        )
    listed = json.loads(api.ask("GET", "/apis").body)["groups"]
    served = {one["groupVersion"] for group in listed for one in group.get("versions", [])}
    additions = frozenset(addition for addition, kind in _NEEDED.items() if kind.api in served and _has(api, kind))
    return replace(given, version=version, additions=additions, namespace=given.namespace or api.namespace)


def _version(told: Mapping[str, str]) -> tuple[int, int]:
    """Providers write `1`, `29+`; who built it without telling it a version, nothing: that is 0.0."""
    found = [re.match(r"\d+", told.get(part, "")) for part in ("major", "minor")]
    major, minor = (int(one[0]) if one else 0 for one in found)
    return major, minor


def _has(api: Api, kind: Kind) -> bool:
    """Whether the kind is among what its version serves: definitions are installed one by one."""
    listed = json.loads(api.ask("GET", f"/apis/{kind.api}").body)
    return any(one["name"] == kind.plural for one in listed.get("resources", []))
