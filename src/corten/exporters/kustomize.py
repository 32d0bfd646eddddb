"""A base of plain manifests and a first overlay, for `kubectl apply -k`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from corten.exporters.base import Workload
from corten.exporters.kubernetes import files
from corten.exporters.manifests.names import object_name
from corten.exporters.manifests.whole import objects
from corten.exporters.yaml_text import documents

_API = "kustomize.config.k8s.io/v1beta1"


class Kustomize:
    """The base is of no namespace; overlays say where it is to be, and what is different there."""

    name = "kustomize"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """`base/` with a file an object, an overlay of the deployment's name."""
        bare = replace(workload, cluster=replace(workload.cluster, namespace=""))
        base = files(objects(bare))
        listed = {"apiVersion": _API, "kind": "Kustomization", "resources": list(base)}
        overlay = {
            "apiVersion": _API,
            "kind": "Kustomization",
            "namespace": workload.cluster.namespace or "default",
            "resources": ["../../base"],
            # By digest, as in the base: another one here is another model in this place alone.
            "images": [
                {
                    "name": f"{workload.image.registry}/{workload.image.repository}",
                    "digest": str(workload.image.digest),
                }
            ],
        }
        return {
            "base/kustomization.yaml": documents([listed]),
            **{f"base/{path}": text for path, text in base.items()},
            f"overlays/{object_name(workload)}/kustomization.yaml": documents([overlay]),
        }
