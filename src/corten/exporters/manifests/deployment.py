"""The objects that run pods: Deployment, what it stands on, and what guards it."""

from __future__ import annotations

from corten.core.rest import Strategy
from corten.exporters.base import Workload, refuse
from corten.exporters.manifests.names import (
    Manifest,
    Track,
    config_name,
    described,
    manifest,
    object_name,
    pod_labels,
    selector,
)
from corten.exporters.manifests.pod import start_s, template

# What a rollout may take besides the time a pod may: pulling an image, waiting for a node.
_SLACK_S = 60
_STEADY_S = 5
_REVISIONS = 5


def service_account(workload: Workload) -> Manifest:
    """An account of its own that can do nothing."""
    return manifest("v1", "ServiceAccount", object_name(workload), workload, automountServiceAccountToken=False)


def config_map(workload: Workload) -> Manifest:
    """The environment. It never changes: another one has another name, so that a rollback finds the old one."""
    return manifest(
        "v1",
        "ConfigMap",
        config_name(workload),
        workload,
        immutable=True,
        data=dict(sorted(workload.settings.env.items())),
    )


def deployment(workload: Workload, track: Track = Track.STABLE, *, replicas: int | None = None) -> Manifest:
    """The pods of a track. `replicas` wins over the settings' number; where a scaler owns it, it is not there."""
    spec: Manifest = {}
    count = replicas if replicas is not None else None if workload.scales else workload.settings.replicas
    if count is not None:
        spec["replicas"] = count
    spec |= {
        "selector": {"matchLabels": selector(workload, track)},
        "strategy": _strategy(workload),
        "minReadySeconds": _STEADY_S,
        "progressDeadlineSeconds": start_s(workload) + _SLACK_S,
        "revisionHistoryLimit": _REVISIONS,
        "template": template(workload, track),
    }
    made = manifest("apps/v1", "Deployment", object_name(workload, track), workload, spec=spec)
    made["metadata"]["labels"] = pod_labels(workload, track)
    made["metadata"]["annotations"] = described(workload)
    return made


def disruption_budget(workload: Workload) -> Manifest:
    """One pod at a time may be evicted; only where there are two, or no node could ever be drained."""
    spec = {
        "maxUnavailable": 1,
        # A pod that does not serve protects nobody.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": selector(workload, Track.STABLE)},
    }
    return manifest("policy/v1", "PodDisruptionBudget", object_name(workload), workload, spec=spec)


def _strategy(workload: Workload) -> Manifest:
    match workload.settings.strategy:
        case Strategy.AUTO | Strategy.SURGE:
            return _rolling(unavailable=0, surge="25%")
        case Strategy.SWAP if workload.settings.replicas > 1:
            # No room for one more, as with GPUs: one ends before the next starts, and the others serve.
            return _rolling(unavailable=1, surge=0)
        case Strategy.SWAP:
            raise refuse(
                "kubernetes",
                f"`strategy = {Strategy.SWAP.value}` of one replica",
                why="nothing there holds requests while the only replica ends and the next one starts",
                hint="replicas = 2, or leave `strategy` out",
            )


def _rolling(*, unavailable: int, surge: int | str) -> Manifest:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}
