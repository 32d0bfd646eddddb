"""The small server's own cluster: pods of nobody, pods that end, budgets, as a real one has them."""

import json
import time

import pytest
from clusters import site

from corten.cluster.kinds import BUDGET, DEPLOYMENT, POD
from corten.testing.kubernetes import simulation

pytestmark = pytest.mark.kubernetes
BARE = {"name": "x", "image": "registry.example.com/x"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    yield from site(tmp_path, monkeypatch)


def make(here, kind, name, spec, **labels):
    """As `kubectl create` does."""
    document = {"apiVersion": kind.api, "kind": kind.name, "metadata": {"name": name, "labels": labels}, "spec": spec}
    return here.api.ask("POST", kind.path("default"), body=json.dumps(document).encode())


def until(condition):
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


def test_a_pod_that_nobody_owns_runs_and_ends_and_stops_nothing(here):
    """The controllers ended with a KeyError, and no deployment got on any more."""
    assert make(here, POD, "debug", {"containers": [BARE]}).status == 201
    until(lambda: simulation.is_ready(here.server.find("pods", "debug")))
    here.deploy(replicas=2)
    assert here.revisions() == {"r1"}
    assert "debug" in here.server.names("pods")
    here.api.delete(POD, "debug", "default")
    until(lambda: "debug" not in here.server.names("pods"))


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 2, "strategy": {"type": "Recreate"}},
        {"replicas": 3, "strategy": {"rollingUpdate": {"maxSurge": "50%", "maxUnavailable": "34%"}}},
    ],
    ids=["recreate", "percents"],
)
def test_a_deployment_that_is_not_ours_gets_on_too(here, spec):
    template = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [BARE]}}
    make(here, DEPLOYMENT, "x", {"selector": {"matchLabels": {"app": "x"}}, "template": template, **spec})
    until(lambda: here.server.find("deployments", "x").get("status", {}).get("availableReplicas") == spec["replicas"])
    here.server.scale_as("kubectl", "x", 1)
    until(lambda: len(here.server.names("pods")) == 1)


@pytest.mark.parametrize("limit", [{"minAvailable": 2}, {"minAvailable": "60%"}, {"maxUnavailable": "34%"}], ids=str)
def test_budgets_count_in_pods_and_in_percent(here, limit):
    here.deploy(replicas=3)
    make(here, BUDGET, "mine", {"selector": {"matchLabels": {"corten.dev/deployment": "fraud"}}, **limit})
    until(lambda: "status" in here.server.find("poddisruptionbudgets", "mine"))
    allowed = 2 if "maxUnavailable" in limit else 1  # 34 % of three is rounded up
    assert here.server.find("poddisruptionbudgets", "mine")["status"]["disruptionsAllowed"] == allowed


def test_a_pod_that_ends_is_there_until_its_hook_is_over_and_is_asked_no_more_by_then(here):
    here.deploy("good", replicas=1)
    (name,) = here.server.names("pods")
    with here.server.still():
        objects, pods = here.server.objects, here.server.pods
        key = ("pods", "default", name)
        service = objects.items["services", "default", "fraud"]
        simulation.end(objects, key)
        assert objects.items[key]["metadata"]["deletionGracePeriodSeconds"] > 30
        asked, there = [], []
        for _ in range(10):
            simulation.tick(objects, pods)
            there.append(key in objects.items)
            asked.append(any(pod["metadata"]["name"] == name for pod in simulation.ready(objects, pods, service)))
    assert sum(there) == 6, "five seconds of preStop, and the process"
    assert sum(asked) == 1, "until everybody has heard of it"


def test_one_that_is_killed_is_gone_at_once(here):
    here.deploy("good", replicas=1)
    (name,) = here.server.names("pods")
    here.api.ask("DELETE", POD.path("default", name), body=b'{"gracePeriodSeconds": 0}')
    assert name not in here.server.names("pods")


def test_a_time_is_that_of_the_last_change_and_controllers_own_what_they_say(here, monkeypatch):
    here.deploy("good", replicas=1)

    def times():
        entries = here.server.find("deployments", "fraud")["metadata"]["managedFields"]
        return {(one["manager"], one.get("subresource", "")): one["time"] for one in entries}

    before = times()
    assert set(before) == {("corten", ""), ("kube-controller-manager", "status")}
    monkeypatch.setattr("corten.testing.kubernetes.objects._now", lambda: "2027-01-01T00:00:00Z")
    here.deploy("good", replicas=1)
    assert times() == before, "nothing has changed"
    here.deploy("better", replicas=1)
    assert times()["corten", ""] == "2027-01-01T00:00:00Z"
