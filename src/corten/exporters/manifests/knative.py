"""The Service of Knative Serving: one object that is pods, their number down to none, revisions and their shares."""

from __future__ import annotations

from dataclasses import replace

from corten.core.rest import Strategy
from corten.exporters.base import HTTP_PORT, Addition, Workload, refuse
from corten.exporters.manifests.names import (
    Manifest,
    Track,
    described,
    inventory,
    manifest,
    object_name,
    pod_labels,
)
from corten.exporters.manifests.pod import pod, start_s

API = "serving.knative.dev/v1"
# Where its own parts are, those that pods are asked by among them.
NAMESPACE = "knative-serving"
PROGRESS_DEADLINE = "serving.knative.dev/progress-deadline"
_SCALING = "autoscaling.knative.dev"
_TARGET_PERCENT = 70
_LONGEST_REQUEST_S = 600
# What a rollout may take besides the time a pod may: pulling an image, waiting for a node.
_SLACK_S = 60
_KEPT = ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "imagePullSecrets", "volumes")


def runs(workload: Workload) -> bool:
    """Whether Knative is to run it: what may have no replica, where the cluster has it and KEDA's add-on is not meant.

    The add-on finds a deployment by its host name, so who names one means the add-on where both are there.
    """
    cluster = workload.cluster
    kept_at_none = workload.scales and workload.settings.replicas == 0
    return kept_at_none and cluster.has(Addition.KNATIVE) and not (cluster.holds and workload.host)


def refuse_where_it_runs(exporter: str, workload: Workload) -> None:
    """Raises UsageError `render.unsupported` in the name of an exporter that is made of a Deployment."""
    if runs(workload):
        raise refuse(
            exporter,
            f"`replicas = 0..{workload.most}`",
            why="with Knative that is no Deployment but a Service of its own",
            hint="corten render --to knative, kubernetes or kustomize",
        )


def refuse_what_it_has_not(exporter: str, workload: Workload) -> None:
    """Raises UsageError `render.unsupported` for what a Service of Knative cannot say as it is by default."""
    if workload.settings.grpc:
        raise refuse(
            exporter,
            "`grpc` beside HTTP",
            why="a Knative Service has one port",
            hint="build the image without grpc, or give it replicas that are never 0",
        )
    if workload.settings.strategy is Strategy.SWAP:
        why = "Knative starts the next revision beside the one that serves"
        raise refuse(exporter, f"`strategy = {Strategy.SWAP.value}`", why=why, hint="leave it out")
    if workload.cluster.priority_class:
        raise refuse(
            exporter,
            f"`--priority-class {workload.cluster.priority_class}`",
            why="Knative takes it only where its flag kubernetes.podspec-priorityclassname is on",
            hint="leave it out",
        )


def revision_name(workload: Workload) -> str:
    """What Knative is to call the revision; empty where nobody counts them, and it does."""
    return f"{object_name(workload)}-{workload.revision}" if workload.revision else ""


def service(workload: Workload) -> Manifest:
    """The Service. What Knative sets itself is left out: names of ports mean protocols there, probes go through it."""
    settings, name = workload.settings, revision_name(workload)
    template: Manifest = {
        "metadata": {
            **({"name": name} if name else {}),
            "labels": pod_labels(workload, Track.STABLE),
            "annotations": {
                **described(workload),
                # Of the container itself: what is asked through Knative's proxy would keep the pod awake.
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(HTTP_PORT),
                "prometheus.io/path": "/metrics",
                f"{_SCALING}/metric": "concurrency",
                f"{_SCALING}/target": str(settings.concurrency),
                f"{_SCALING}/target-utilization-percentage": str(_TARGET_PERCENT),
                f"{_SCALING}/min-scale": str(settings.replicas),
                f"{_SCALING}/max-scale": str(workload.most),
                # One pod has to get ready, also of what may have none: else nobody knew of a revision whether it can.
                f"{_SCALING}/initial-scale": str(max(1, settings.replicas)),
                # All requests by the activator: pods are asked from its namespace alone, which a policy can say.
                f"{_SCALING}/target-burst-capacity": "-1",
                # A revision that is not ready in time fails; the one before keeps its requests.
                PROGRESS_DEADLINE: f"{start_s(workload) + _SLACK_S}s",
            },
        },
        "spec": {
            **_pod(workload),
            # Above it requests wait in Knative, not in the replica: it sees them there, and scales by them.
            "containerConcurrency": settings.concurrency,
            "timeoutSeconds": max(1, min(_LONGEST_REQUEST_S, round(settings.request_timeout_s))),
        },
    }
    alone = share(name, 100) if name else {"latestRevision": True, "percent": 100}
    spec: Manifest = {"template": template, "traffic": [alone]}
    made = manifest(API, "Service", object_name(workload), workload, spec=spec)
    made["metadata"]["labels"] = inventory(workload)
    return made


def share(revision: str, percent: int) -> Manifest:
    """So much of the requests for a revision. `latestRevision` would be added by Knative: a difference without one."""
    return {"revisionName": revision, "latestRevision": False, "percent": percent}


def _pod(workload: Workload) -> Manifest:
    """What Knative takes of a pod without flags of its own: no drains, which its proxy does, and nothing of nodes.

    Nor an image as a volume: the model's files inside the image serve, the same blobs.
    """
    whole = pod(replace(workload, weights=None), Track.STABLE)
    container = dict(whole["containers"][0])
    del container["lifecycle"], container["startupProbe"]
    container["ports"] = [{"name": "http1", "containerPort": container["ports"][0]["containerPort"]}]
    # A pod's own name (`fieldRef`) is behind the flag kubernetes.podspec-fieldref.
    container["env"] = [one for one in container["env"] if "fieldRef" not in one.get("valueFrom", {})]
    for probe in ("readinessProbe", "livenessProbe"):
        asked = {key: value for key, value in container[probe]["httpGet"].items() if key != "port"}
        container[probe] = {**container[probe], "httpGet": asked}
    # Written out: Knative's own default is none of it.
    container["securityContext"] = {
        **container["securityContext"],
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {**{key: whole[key] for key in _KEPT if key in whole}, "containers": [container]}
