"""Where a release is asked through the API server: a Service, and what it has to be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from corten.cluster.kinds import SERVICE
from corten.exporters.manifests.names import HTTP


@dataclass(frozen=True, slots=True)
class Door:
    """One Service in a namespace, with the headers that requests to it need."""

    service: str
    namespace: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def path(self, rest: str = "") -> str:
        """Where to ask for `rest` (`predict`)."""
        return SERVICE.path(self.namespace, f"{self.service}:{HTTP}", f"proxy/{rest}")
