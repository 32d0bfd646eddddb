"""Plain manifests: one file an object, for `kubectl apply --server-side -f FOLDER` or a repository that is synced."""

from __future__ import annotations

from collections.abc import Mapping

from corten.exporters.base import Workload
from corten.exporters.manifests.names import Manifest
from corten.exporters.manifests.whole import objects
from corten.exporters.yaml_text import documents


class Kubernetes:
    """What `corten deploy --engine kubernetes` sends, as files."""

    name = "kubernetes"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """`KIND-NAME.yaml` for each object, in the order of creation."""
        return files(objects(workload))


def files(manifests: list[Manifest]) -> dict[str, str]:
    """Text by file: `service-fraud.yaml`. No numbers: an object's file is the same whatever else there is."""
    return {f"{one['kind'].lower()}-{one['metadata']['name']}.yaml": documents([one]) for one in manifests}
