"""The pods of a deployment: what runs, with what it may use, and what it may not do."""

from __future__ import annotations

import math
from typing import Any

from corten.core.route import GRPC_PORT
from corten.exporters.base import HTTP_PORT, Addition, Workload
from corten.exporters.manifests.names import (
    CONTAINER,
    GRPC,
    HTTP,
    Manifest,
    Track,
    config_name,
    described,
    object_name,
    pod_labels,
    selector,
)

USER = 65532
# Until every node has heard that a pod gets nothing new, requests still come (kubernetes#43576).
LINGER_S = 5
_MARGIN_S = 10
_MIB = 1 << 20
_LEAST_CPUS = 0.25
_LEAST_MEMORY_MIB = 256
# What a limit on memory leaves above what a replica is expected to use.
_HEADROOM = 1.25
_GPU = "nvidia.com/gpu"
# Not over /models with a `subPath`: containerd knows those of image volumes from 2.1 on only.
_WEIGHTS = "/weights"
# The versions from which on a field is known and its gate on by default.
_SLEEP = (1, 30)
_USER_NAMESPACES = (1, 33)
IMAGE_VOLUMES = (1, 35)


def template(workload: Workload, track: Track) -> Manifest:
    """A pod template."""
    return {
        "metadata": {"labels": pod_labels(workload, track), "annotations": _annotations(workload)},
        "spec": pod(workload, track),
    }


def pod(workload: Workload, track: Track) -> Manifest:
    """The spec of a pod, passing Pod Security's `restricted`."""
    cluster = workload.cluster
    spec: Manifest = {
        "serviceAccountName": object_name(workload),
        "automountServiceAccountToken": False,  # a model needs no API server
        "enableServiceLinks": False,  # hundreds of variables of other services slow the start (serving#9104)
        "terminationGracePeriodSeconds": grace_s(workload),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if cluster.user_namespaces and cluster.version >= _USER_NAMESPACES:
        spec["hostUsers"] = False
    if cluster.priority_class:
        spec["priorityClassName"] = cluster.priority_class
    if cluster.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in cluster.pull_secrets]
    if workload.gpus:
        # Nodes with GPUs are kept free of what needs none.
        spec["tolerations"] = [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}]
    spec["topologySpreadConstraints"] = _spread(workload, track)
    spec["containers"] = [container(workload)]
    spec["volumes"] = _volumes(workload)
    return spec


def container(workload: Workload) -> Manifest:
    """The container with the model."""
    made: Manifest = {
        "name": CONTAINER,
        "image": str(workload.image),
        "imagePullPolicy": "IfNotPresent",  # a digest never means anything else
        "ports": ports(workload),
        "env": _environment(workload),
    }
    if workload.settings.env:
        made["envFrom"] = [{"configMapRef": {"name": config_name(workload)}}]
    mounts: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 -- a volume of its own
    if mounts_weights(workload):
        mounts.append({"name": "weights", "mountPath": _WEIGHTS, "readOnly": True})
    return {
        **made,
        "resources": resources(workload),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        **_probes(workload),
        "lifecycle": {"preStop": _pre_stop(workload)},
        "volumeMounts": mounts,
    }


def ports(workload: Workload) -> list[Manifest]:
    """The container's ports, by the names that services and probes use."""
    found: list[Manifest] = [{"name": HTTP, "containerPort": HTTP_PORT, "protocol": "TCP"}]
    if workload.settings.grpc:
        found.append({"name": GRPC, "containerPort": GRPC_PORT, "protocol": "TCP"})
    return found


def resources(workload: Workload) -> Manifest:
    """What a replica is promised and what it may use at most.

    No limit on processors: throttling is paid for by the slowest answers. Memory has one where the user named it.
    """
    wanted = workload.settings.resources
    cpus = wanted.cpus or _LEAST_CPUS
    requests: Manifest = {"cpu": f"{max(1, round(cpus * 1000))}m", "ephemeral-storage": "64Mi"}
    limits: Manifest = {"ephemeral-storage": "1Gi"}
    if wanted.memory_bytes:
        limit_mib = max(1, wanted.memory_bytes // _MIB)
        limits["memory"] = f"{limit_mib}Mi"
        requests["memory"] = f"{max(1, math.floor(limit_mib / _HEADROOM))}Mi"
    else:
        requests["memory"] = f"{_LEAST_MEMORY_MIB}Mi"
    if workload.gpus:
        requests[_GPU] = limits[_GPU] = str(workload.gpus)
    return {"requests": requests, "limits": limits}


def grace_s(workload: Workload) -> int:
    """How long a pod may take to end: until it gets nothing new, what it has in hand, and a margin."""
    return LINGER_S + math.ceil(workload.settings.drain_s) + _MARGIN_S


def start_s(workload: Workload) -> int:
    """How long a pod may take to get ready."""
    return max(1, math.ceil(workload.settings.ready_timeout_s))


def mounts_weights(workload: Workload) -> bool:
    """Whether the model's files are mounted. Where a cluster cannot, those inside the image serve: the same blobs."""
    return workload.weights is not None and workload.cluster.version >= IMAGE_VOLUMES


def _annotations(workload: Workload) -> dict[str, str]:
    found = described(workload)
    if not workload.cluster.has(Addition.PROMETHEUS):
        found |= {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(HTTP_PORT),
            "prometheus.io/path": "/metrics",
        }
    return found


def _environment(workload: Workload) -> list[Manifest]:
    settings = workload.settings
    plain: dict[str, str] = {
        "CORTEN_DEPLOYMENT": workload.name,
        "CORTEN_REVISION": workload.version,
        "CORTEN_DRAIN_S": f"{settings.drain_s:g}",
    }
    if settings.resources.cpus:
        # Without a limit on processors the server would see all of the node's.
        plain["CORTEN_THREADS"] = str(max(1, math.ceil(settings.resources.cpus)))
    if mounts_weights(workload):
        plain["CORTEN_MODELS_DIR"] = f"{_WEIGHTS}/models"
    found: list[Manifest] = [{"name": name, "value": value} for name, value in plain.items()]
    found.append({"name": "CORTEN_REPLICA", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
    found += [
        {"name": one.variable, "valueFrom": {"secretKeyRef": {"name": one.secret, "key": one.key}}}
        for one in sorted(workload.secrets)
    ]
    return found


def _probes(workload: Workload) -> Manifest:
    # By HTTP: a port that is open says nothing of a model. Liveness never depends on load (runtime contract, 4.1).
    return {
        "startupProbe": _probe("/readyz", period_s=1, failures=start_s(workload), timeout_s=2),
        "readinessProbe": _probe("/readyz", period_s=2, failures=2, timeout_s=2),
        "livenessProbe": _probe("/livez", period_s=10, failures=3, timeout_s=5),
    }


def _probe(path: str, *, period_s: int, failures: int, timeout_s: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": HTTP},
        "periodSeconds": period_s,
        "failureThreshold": failures,
        "timeoutSeconds": timeout_s,
    }


def _pre_stop(workload: Workload) -> Manifest:
    if workload.cluster.version >= _SLEEP:
        return {"sleep": {"seconds": LINGER_S}}
    # The image has no shell, but a Python.
    return {"exec": {"command": ["/usr/bin/python3", "-c", f"import time; time.sleep({LINGER_S})"]}}


def _spread(workload: Workload, track: Track) -> list[Manifest]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",  # a cluster of one node runs them too
            "labelSelector": {"matchLabels": selector(workload, track)},
            "matchLabelKeys": ["pod-template-hash"],  # each revision by itself, or the old one's pods are counted too
        }
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def _volumes(workload: Workload) -> list[Manifest]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {"sizeLimit": "512Mi"}}]
    if mounts_weights(workload):
        image = {"reference": str(workload.weights), "pullPolicy": "IfNotPresent"}
        volumes.append({"name": "weights", "image": image})
    return volumes
