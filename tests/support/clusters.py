"""A small cluster, and workloads to be deployed into it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corten.cluster.deploying import Clock, deploy
from corten.cluster.facts import discover
from corten.cluster.lightkube_api import connect
from corten.core.canary import Canary
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.reference import Reference
from corten.errors import CortenError
from corten.exporters.base import Cluster, Workload
from corten.testing.kubernetes import FakeApiServer

GATEWAY = "gateway.networking.k8s.io"


def image(name):
    return Reference("registry.example.com", f"team/{name}", digest=Digest.of(name.encode()))


class Site:
    """A fake API server with a client of ours, whose waits take a hundredth of their time."""

    def __init__(self, server, api):
        self.server = server
        self.api = api
        self.told = []
        self.gateway = ""

    def workload(self, content="good", name="fraud", **settings):
        cluster = Cluster(gateway=self.gateway)
        return Workload(name, image(content), Settings(**settings), cluster=discover(self.api, cluster))

    def deploy(self, content="good", name="fraud", *, timeout_s=30.0, **settings):
        workload = self.workload(content, name, **settings)
        return deploy(self.api, workload, listen=self.told.append, clock=self.clock, timeout_s=timeout_s)

    @property
    def clock(self):
        return replace(Clock(), sleep=self.sleep)

    def sleep(self, seconds):
        import time

        time.sleep(min(seconds, 0.02))

    def revisions(self, name="fraud"):
        """What answers requests through the Service, asked often enough to meet everybody."""
        path = f"/api/v1/namespaces/default/services/{name}:http/proxy/"
        return {self.api.ask("GET", path).headers.get("x-corten-revision") for _ in range(12)}

    def states(self, name="fraud"):
        from corten.cluster.release import history

        return {one.label: one.state.value for one in history(self.api, name, "default")}

    @property
    def words(self):
        return "\n".join(event.message for event in self.told)


def site(tmp_path, monkeypatch, **options):
    """As a generator, for a fixture."""
    with FakeApiServer(**options) as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        made = Site(server, None)
        with connect(sleep=made.sleep) as made.api:
            yield made


CANARY = Canary((10, 50), judged=True)


def fails(code, call):
    """The error of that code, with a hint, which a call ends with."""
    with pytest.raises(CortenError) as caught:
        call()
    assert caught.value.code == code, caught.value.as_dict()
    assert caught.value.hint
    return caught.value
