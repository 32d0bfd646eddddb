"""Names, labels and annotations of a deployment's objects in a cluster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any

from corten.exporters.base import Workload

# A document of the Kubernetes API, as JSON has it.
Manifest = dict[str, Any]

DOMAIN = "corten.dev"
DEPLOYMENT_LABEL = f"{DOMAIN}/deployment"
REVISION_LABEL = f"{DOMAIN}/revision"
TRACK_LABEL = f"{DOMAIN}/track"
MANAGED_BY = "app.kubernetes.io/managed-by"
CONTAINER = "model"
HTTP = "http"
GRPC = "grpc"


class Track(Enum):
    """Which of the two sets of pods: those that serve, or those that are tried."""

    STABLE = "stable"
    CANARY = "canary"


def object_name(workload: Workload, track: Track = Track.STABLE) -> str:
    """What a track's objects are called."""
    return workload.name if track is Track.STABLE else f"{workload.name}-{track.value}"


def inventory(workload: Workload) -> dict[str, str]:
    """Labels of everything that belongs to a deployment: by them it is found again, and pruned."""
    return {"app.kubernetes.io/name": workload.name, MANAGED_BY: "corten", DEPLOYMENT_LABEL: workload.name}


def selector(workload: Workload, track: Track | None) -> dict[str, str]:
    """Labels that pods are chosen by; None: both tracks. They never change: a Deployment's selector is immutable."""
    chosen = {DEPLOYMENT_LABEL: workload.name}
    return chosen if track is None else {**chosen, TRACK_LABEL: track.value}


def pod_labels(workload: Workload, track: Track) -> dict[str, str]:
    """Labels of a track's pods; those of the selector are among them."""
    return {
        **inventory(workload),
        "app.kubernetes.io/version": workload.version,
        REVISION_LABEL: workload.version,
        TRACK_LABEL: track.value,
    }


def described(workload: Workload) -> dict[str, str]:
    """What one wants to know of an object: which image, and where that came from."""
    return {
        f"{DOMAIN}/image": str(workload.image),
        **{f"{DOMAIN}/{key}": text for key, text in sorted(workload.notes.items())},
    }


def manifest(api: str, kind: str, name: str, workload: Workload, **parts: Any) -> Manifest:
    """An object of a deployment; `parts` are its `spec` and the like."""
    metadata: Manifest = {"name": name}
    if workload.cluster.namespace:
        metadata["namespace"] = workload.cluster.namespace
    metadata["labels"] = inventory(workload)
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **parts}


def content_hash(content: Mapping[str, str]) -> str:
    """Ten digits of a hash of a table: a name with it changes with the content."""
    return hashlib.sha256(json.dumps(dict(sorted(content.items()))).encode()).hexdigest()[:10]


def config_name(workload: Workload) -> str:
    """The name of the ConfigMap with the environment: another one for another environment."""
    return f"{workload.name}-env-{content_hash(workload.settings.env)}"
