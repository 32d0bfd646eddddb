"""A small cluster, and workloads to be deployed into it."""

from __future__ import annotations

import threading
import time
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


def eventually(true, seconds=20):
    """Until something is so."""
    until_s = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def under_load(here, call):
    """What a call gives, while clients ask `fraud` all the time."""
    over = threading.Event()

    def ask():
        while not over.wait(0.02):
            here.server.traffic(200, "fraud")

    clients = threading.Thread(target=ask)
    clients.start()
    try:
        return call()
    finally:
        over.set()
        clients.join()


def needed(request):
    """The verb and the resource that a role must have for a request."""
    verbs = {"PATCH": "patch", "DELETE": "delete", "POST": "create"}
    _, _, rest = request.path.partition("/namespaces/")
    kind, *more = rest.split("/")[1:]
    sub = f"/{more[1]}" if len(more) > 1 else ""
    if request.method != "GET":
        return verbs[request.method], kind + sub
    return ("watch" if request.query.get("watch") else "get" if more else "list"), kind + sub


class CutError(Exception):
    """The command ends here, as by kill -9."""


class cut_off:
    """After so many writes the command is gone."""

    def __init__(self, here, writes):
        self.api, self.left = here.api, writes

    def __enter__(self):
        self.request = self.api._request
        self.api._request = self.dies

    def __exit__(self, *_):
        self.api._request = self.request

    def dies(self, *words, **more):
        if words[0] != "GET" and "dryRun" not in (words[2] if len(words) > 2 and words[2] else {}):
            self.left -= 1
            if self.left <= 0:
                raise CutError
        return self.request(*words, **more)
