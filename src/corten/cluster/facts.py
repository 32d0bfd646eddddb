"""What a cluster is and has: its version, and what was added to it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace

from corten.cluster.port import Api
from corten.errors import EngineError
from corten.exporters.base import Addition, Cluster

_OLDEST = (1, 29)
_GROUPS: Mapping[str, Addition] = {
    "gateway.networking.k8s.io": Addition.GATEWAY_API,
    "keda.sh": Addition.KEDA,
    "http.keda.sh": Addition.KEDA_HTTP,
    "monitoring.coreos.com": Addition.PROMETHEUS,
    "serving.knative.dev": Addition.KNATIVE,
    "argoproj.io": Addition.ARGO_ROLLOUTS,
    "serving.kserve.io": Addition.KSERVE,
}


def discover(api: Api, given: Cluster) -> Cluster:
    """What was given of a cluster, with what it says of itself. Raises EngineError `kubernetes.too_old`."""
    told = json.loads(api.ask("GET", "/version").body)
    # Providers write `1`, `29+`.
    version = int(told["major"]), int(re.match(r"\d+", told["minor"])[0])  # type: ignore[index]
    if version < _OLDEST:
        raise EngineError(
            "kubernetes.too_old",
            f"Kubernetes {version[0]}.{version[1]} is older than what Corten knows",
            where=api.server,
            why=f"expected {_OLDEST[0]}.{_OLDEST[1]} or newer",
        )
    groups = {group["name"] for group in json.loads(api.ask("GET", "/apis").body)["groups"]}
    additions = frozenset(addition for name, addition in _GROUPS.items() if name in groups)
    return replace(given, version=version, additions=additions, namespace=given.namespace or api.namespace)
