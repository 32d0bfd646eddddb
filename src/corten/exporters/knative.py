"""One Service of Knative: revisions, shares of the requests, scale to zero and back are its own."""

from __future__ import annotations

from collections.abc import Mapping

from corten.exporters.base import Workload, refuse_devices, refuse_what_only_our_gateway_does
from corten.exporters.kubernetes import files
from corten.exporters.manifests.knative import refuse_what_it_has_not
from corten.exporters.manifests.whole import of_knative


class Knative:
    """`kubectl apply` it where Knative Serving is."""

    name = "knative"

    def render(self, workload: Workload) -> Mapping[str, str]:
        """The Service, and what its pods need. Raises UsageError `render.unsupported`."""
        refuse_what_only_our_gateway_does(self.name, workload.settings)
        refuse_devices(self.name, workload.settings)
        refuse_what_it_has_not(self.name, workload)
        return files(of_knative(workload))
