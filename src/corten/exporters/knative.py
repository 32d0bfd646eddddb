"""One Service of Knative: revisions, shares of the requests, scale to zero and back are its own."""

from __future__ import annotations

from collections.abc import Mapping

from corten.exporters.base import Workload, refuse, refuse_devices, refuse_what_only_our_gateway_does
from corten.exporters.kubernetes import files
from corten.exporters.manifests import deployment
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

_TARGET_PERCENT = 70
_LONGEST_REQUEST_S = 600
_NAMES = 63


class Knative:
    """`kubectl apply` it where Knative Serving is."""

    name = "knative"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """The Service, and what its pods need. Raises UsageError `render.unsupported`."""
        refuse_what_only_our_gateway_does(self.name, workload.settings)
        refuse_devices(self.name, workload.settings)
        if workload.settings.grpc:
            raise refuse(
                self.name,
                "`grpc` beside HTTP",
                why="a Knative Service has one port",
                hint="build the image without grpc, or --to kubernetes",
            )
        found = [deployment.service_account(workload)]
        if workload.settings.env:
            found.append(deployment.config_map(workload))
        return files([*found, service(workload)])


def service(workload: Workload) -> Manifest:
    """The Service. What Knative sets itself is left out: names of ports mean protocols there, probes go through it."""
    settings = workload.settings
    template: Manifest = {
        "metadata": {
            "name": f"{object_name(workload)}-{workload.version}"[:_NAMES],
            "labels": pod_labels(workload, Track.STABLE),
            "annotations": {
                **described(workload),
                "autoscaling.knative.dev/metric": "concurrency",
                "autoscaling.knative.dev/target": str(settings.concurrency),
                "autoscaling.knative.dev/target-utilization-percentage": str(_TARGET_PERCENT),
                "autoscaling.knative.dev/min-scale": str(settings.replicas),
                "autoscaling.knative.dev/max-scale": str(workload.most),
            },
        },
        "spec": {
            **_pod(workload),
            # Above it requests wait in Knative, not in the replica: it sees them there, and scales by them.
            "containerConcurrency": settings.concurrency,
            "timeoutSeconds": max(1, min(_LONGEST_REQUEST_S, round(settings.request_timeout_s))),
        },
    }
    spec: Manifest = {"template": template, "traffic": [{"latestRevision": True, "percent": 100}]}
    made = manifest("serving.knative.dev/v1", "Service", object_name(workload), workload, spec=spec)
    made["metadata"]["labels"] = inventory(workload)
    # A revision that is not ready in time fails; the one before keeps its requests.
    template["metadata"]["annotations"]["serving.knative.dev/progress-deadline"] = f"{start_s(workload) + 60}s"
    return made


def _pod(workload: Workload) -> Manifest:
    """What Knative takes of a pod: no drains of our own, which its proxy does, and nothing of nodes (feature flags)."""
    whole = pod(workload, Track.STABLE)
    kept = ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "imagePullSecrets", "volumes")
    spec = {key: whole[key] for key in kept if key in whole}
    container = dict(whole["containers"][0])
    del container["lifecycle"], container["startupProbe"]
    container["ports"] = [{"name": "http1", "containerPort": container["ports"][0]["containerPort"]}]
    for probe in ("readinessProbe", "livenessProbe"):
        asked = {key: value for key, value in container[probe]["httpGet"].items() if key != "port"}
        container[probe] = {**container[probe], "httpGet": asked}
    # Written out: Knative's own default is none of it.
    container["securityContext"] = {
        **container["securityContext"],
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {**spec, "containers": [container]}
