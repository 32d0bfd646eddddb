"""An InferenceService of KServe: the image answers the Open Inference Protocol itself, so it is its own runtime.

With a weights image the model comes as KServe's storage does: `oci+native://` where the cluster has image volumes,
else `oci://` (a sidecar that shares its files).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from corten.exporters.base import Workload, refuse, refuse_devices, refuse_what_only_our_gateway_does
from corten.exporters.kubernetes import files
from corten.exporters.manifests import deployment
from corten.exporters.manifests.names import Manifest, Track, described, inventory, manifest, object_name
from corten.exporters.manifests.pod import IMAGE_VOLUMES, grace_s, pod

# Where KServe puts what a `storageUri` names, and what it calls the container that answers.
_MOUNTED = "/mnt/models"
_CONTAINER = "kserve-container"


class KServe:
    """`kubectl apply` it where KServe is, in its Standard mode."""

    name = "kserve"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """The InferenceService, and what its pods need. Raises UsageError `render.unsupported`."""
        refuse_what_only_our_gateway_does(self.name, workload.settings)
        refuse_devices(self.name, workload.settings)
        if workload.settings.replicas == 0:
            raise refuse(
                self.name,
                f"`replicas = 0..{workload.most}`",
                why="KServe scales to zero with Knative alone",
                hint=f"replicas = 1..{workload.most}, or --to knative",
            )
        found = [deployment.service_account(workload)]
        if workload.settings.env:
            found.append(deployment.config_map(workload))
        return files([*found, inference_service(workload)])


def inference_service(workload: Workload) -> Manifest:
    """The InferenceService."""
    whole = pod(replace(workload, weights=None), Track.STABLE)
    container = {**whole["containers"][0], "name": _CONTAINER}
    predictor: Manifest = {
        "minReplicas": workload.settings.replicas,
        "maxReplicas": workload.most,
        "timeout": max(1, round(workload.settings.request_timeout_s)),
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}},
        **{key: value for key, value in whole.items() if key not in ("containers", "topologySpreadConstraints")},
        "terminationGracePeriodSeconds": grace_s(workload),
    }
    if workload.scales:
        predictor |= {"scaleMetric": "cpu", "scaleTarget": 70}
    if workload.weights is not None:
        scheme = "oci+native" if workload.cluster.version >= IMAGE_VOLUMES else "oci"
        # For a container of one's own KServe takes the place from this variable.
        storage = {"name": "STORAGE_URI", "value": f"{scheme}://{workload.weights}"}
        models = {"name": "CORTEN_MODELS_DIR", "value": f"{_MOUNTED}/models"}
        container["env"] = [*container["env"], models, storage]
    predictor["containers"] = [container]
    annotations = {"serving.kserve.io/deploymentMode": "Standard", **described(workload)}
    spec = {"predictor": predictor}
    made = manifest("serving.kserve.io/v1beta1", "InferenceService", object_name(workload), workload, spec=spec)
    made["metadata"] |= {"labels": inventory(workload), "annotations": annotations}
    return made
