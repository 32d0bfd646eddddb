"""A small Kubernetes API server on loopback, with the controllers a deployment needs, for tests."""

from corten.testing.kubernetes.server import FakeApiServer
from corten.testing.kubernetes.simulation import Fault

__all__ = ["FakeApiServer", "Fault"]
