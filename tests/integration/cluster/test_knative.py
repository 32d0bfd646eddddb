"""Deployments that Knative runs: from none to some and back, revisions, shares, and the name between two ways."""

from functools import partial

import pytest
from clusters import CANARY, CutError, cut_off, eventually, fails, site, under_load

from corten.cluster import objects, release
from corten.cluster.deploying import go_back, promote
from corten.cluster.facts import discover
from corten.cluster.kinds import REVISION
from corten.core.canary import Canary
from corten.errors import UsageError
from corten.exporters.base import Cluster
from corten.ops import kubernetes
from corten.testing import Fault

pytestmark = pytest.mark.kubernetes
KNATIVE = "serving.knative.dev"
ZERO = {"replicas": 0, "most_replicas": 4}
TWO = {"replicas": 2}
LEFT = ("ksvc", "configurations", "routes", "revisions", "deployments", "services", "configmaps", "networkpolicies")


@pytest.fixture
def here(tmp_path, monkeypatch):
    yield from site(tmp_path, monkeypatch, groups=(KNATIVE,))


def shares(here):
    found = here.server.find("routes", "fraud").get("status", {}).get("traffic", [])
    return {target["revisionName"]: target["percent"] for target in found}


def asleep(here):
    eventually(lambda: not here.server.names("pods"))


def predicted(here):
    return kubernetes.predict("fraud", [[1]], kubernetes.Place())


def served(here):
    """The name is Knative's, and leads to one revision, which answers."""
    ((revision, percent),) = shares(here).items()
    assert percent == 100
    assert here.server.find("services", "fraud")["spec"]["type"] == "ExternalName"
    assert predicted(here) == {"outputs": [1]}
    return revision


def nothing_else(here):
    """What is there is what serves, and what Knative makes of it."""
    serving = release.current(release.history(here.api, "fraud", "default"))
    found = objects.inventory(here.api, "fraud", discover(here.api, Cluster(namespace="default")))
    assert set(found) == {objects.identity(one) for one in serving.manifests}


# Rollouts


def test_what_may_have_no_replica_is_knatives_and_answers_from_none(here):
    done = here.deploy(**ZERO)
    assert done.release.label == "r1"
    assert here.server.names("ksvc") == ["fraud"]
    assert here.server.names("deployments") == ["fraud-r1-deployment"]
    asleep(here)
    assert served(here) == "fraud-r1"
    assert here.server.names("pods")
    assert here.states() == {"r1": "deployed"}


def test_the_next_one_is_asked_before_anybody_is_sent_to_it(here):
    here.deploy("good", **ZERO)
    asleep(here)
    here.deploy("better", **ZERO)
    assert served(here) == "fraud-r2"
    assert here.states() == {"r1": "superseded", "r2": "deployed"}
    asked = [at for at, call in enumerate(here.server.seen) if "/fraud-r2:http/proxy/" in call.path]
    applied = [
        at
        for at, call in enumerate(here.server.seen)
        if call.path.endswith("serving.knative.dev/v1/namespaces/default/services/fraud") and call.method == "PATCH"
        if [target.get("revisionName") for target in call.document["spec"]["traffic"]] == ["fraud-r2"]
        if not call.query.get("dryRun")
    ]
    assert min(asked) < min(applied)


def test_the_same_again_wakes_nobody_and_changes_nothing(here):
    here.deploy(**ZERO)
    asleep(here)
    before = here.server.find("ksvc", "fraud")["metadata"]["generation"]
    assert not here.deploy(**ZERO).changed
    assert here.server.find("ksvc", "fraud")["metadata"]["generation"] == before
    assert here.server.names("pods") == []


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault.CRASH, "exit code 1"),
        (Fault.PULL, "cannot be pulled"),
        (Fault.UNSCHEDULABLE, "no node has room"),
        (Fault.NEVER_READY, "ProgressDeadlineExceeded"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_a_revision_that_does_not_get_ready_is_told_why_and_gets_no_request(here, fault, what):
    here.deploy("good", **ZERO)
    here.server.fault("team/bad", fault)
    error = fails("deploy.unhealthy", lambda: here.deploy("bad", ready_timeout_s=2.0, **ZERO))
    assert what in error.what
    assert served(here) == "fraud-r1"
    assert here.states() == {"r1": "deployed", "r2": "failed"}
    eventually(lambda: here.server.names("revisions") == ["fraud-r1"])
    assert here.server.find("ksvc", "fraud")["status"]["conditions"][-1]["status"] == "True"


def test_a_crash_shows_the_last_lines_of_the_process_that_ended(here):
    here.server.fault("team/bad", Fault.CRASH)
    error = fails("deploy.unhealthy", lambda: here.deploy("bad", **ZERO))
    assert "the model did not load" in error.why
    eventually(lambda: not any(here.server.names(kind) for kind in LEFT))
    assert here.states() == {"r1": "failed"}


def test_a_revision_that_is_ready_while_somebody_else_answers_gets_no_request(here):
    here.deploy("good", **ZERO)
    here.server.fault("team/other", Fault.OTHER_REVISION)
    error = fails("deploy.unhealthy", lambda: here.deploy("other", timeout_s=3.0, **ZERO))
    assert "r0 answers" in error.why
    assert served(here) == "fraud-r1"


def test_a_name_that_is_somebody_elses_is_told(here, monkeypatch):
    monkeypatch.setattr("corten.cluster.knative._LONGEST_S", 0.5)
    foreign = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fraud"}, "spec": {"ports": [{"port": 80}]}}
    here.server.apply_as("kubectl", "services", foreign)
    error = fails("deploy.unhealthy", lambda: here.deploy(**ZERO))
    assert "that we do not own" in error.why
    eventually(lambda: here.server.names("services") == ["fraud"])


def test_a_revision_of_that_name_that_is_somebody_elses_is_not_taken_for_it(here):
    """As one of a deployment that was stopped a moment ago, and whose pods are still ending."""
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}}
    here.server.apply_as("kubectl", "configmaps", body)
    owner = {"kind": "ConfigMap", "name": "theirs", "uid": here.server.find("configmaps", "theirs")["metadata"]["uid"]}
    left = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Revision",
        "metadata": {
            "labels": {"serving.knative.dev/service": "other", "serving.knative.dev/serviceUID": "gone"},
            "ownerReferences": [{**owner, "controller": True}],
        },
        "spec": {},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    with here.server.still():
        here.server.objects.put(("revisions", "default", "fraud-r1"), left)
    assert "0 of 1" in fails("deploy.timeout", lambda: here.deploy(timeout_s=0.5, **ZERO)).why
    with here.server.still():
        here.server.objects.delete(("revisions", "default", "fraud-r1"))
    here.deploy(**ZERO)
    assert served(here) == "fraud-r1"


def test_a_template_that_somebody_changed_is_a_conflict_with_a_name(here):
    here.deploy(**ZERO)
    theirs = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "fraud"},
        "spec": {"traffic": [{"latestRevision": True, "percent": 100}]},
    }
    here.server.apply_as("kubectl", "ksvc", theirs, force=True)
    assert "`kubectl`" in fails("kubernetes.owned", lambda: here.deploy("better", **ZERO)).what


# Canaries


def test_a_good_canary_takes_over_share_by_share(here):
    here.deploy("good", **ZERO)
    under_load(here, lambda: here.deploy("better", canary=CANARY, **ZERO))
    assert "r2 gets 10 %" in here.words
    assert "r2 gets 50 %" in here.words
    assert served(here) == "fraud-r2"
    assert here.states() == {"r1": "superseded", "r2": "deployed"}


def test_a_bad_canary_is_taken_away_before_it_has_more(here, monkeypatch):
    led = []
    delete = type(here.api).delete

    def noted(api, kind, name, namespace):
        if kind == REVISION:
            led.append((name, shares(here)))
        return delete(api, kind, name, namespace)

    monkeypatch.setattr(type(here.api), "delete", noted)
    here.deploy("good", **ZERO)
    here.server.fault("team/bad", Fault.BAD_ANSWERS)
    error = under_load(here, lambda: fails("deploy.rolled_back", lambda: here.deploy("bad", canary=CANARY, **ZERO)))
    assert "failed" in error.why
    assert "r2 gets 50 %" not in here.words
    assert served(here) == "fraud-r1"
    assert led == [("fraud-r2", {"fraud-r1": 100})], "its revision goes once nobody is led to it"
    eventually(lambda: here.server.names("revisions") == ["fraud-r1"])


@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.OTHER_REVISION], ids=["crash", "other"])
def test_a_canary_that_is_not_well_gets_no_request(here, fault):
    here.deploy("good", **ZERO)
    here.server.fault("team/bad", fault)
    fails("deploy.rolled_back", lambda: here.deploy("bad", canary=CANARY, timeout_s=3.0, **ZERO))
    assert "r2 gets" not in here.words
    assert served(here) == "fraud-r1"
    assert here.states() == {"r1": "deployed", "r2": "failed"}


def test_a_canary_that_stays_at_its_share_is_promoted_or_gone_back_from(here):
    here.deploy("good", env={"A": "1"}, **ZERO)
    done = here.deploy("better", env={"A": "2"}, canary=Canary((20,)), **ZERO)
    assert done.share == 20
    assert shares(here) == {"fraud-r1": 80, "fraud-r2": 20}
    (seen,) = kubernetes.status("fraud", kubernetes.Place())
    assert (seen.revision, seen.canary) == ("r1", "r2")
    promote(here.api, "fraud", "default", clock=here.clock)
    assert served(here) == "fraud-r2"
    here.deploy("third", env={"A": "3"}, canary=Canary((20,)), **ZERO)
    assert shares(here) == {"fraud-r2": 80, "fraud-r3": 20}
    go_back(here.api, "fraud", "default", clock=here.clock)
    assert served(here) == "fraud-r2"
    assert here.states() == {"r1": "superseded", "r2": "deployed", "r3": "failed"}
    eventually(lambda: here.server.names("revisions") == ["fraud-r1", "fraud-r2"])


# Going back


def test_going_back_is_to_the_revision_that_is_there_still(here):
    here.deploy("good", env={"A": "1"}, **ZERO)
    uid = here.server.find("revisions", "fraud-r1")["metadata"]["uid"]
    here.deploy("better", env={"A": "2"}, **ZERO)
    asleep(here)
    go_back(here.api, "fraud", "default", clock=here.clock)
    assert served(here) == "fraud-r1"
    assert here.server.find("revisions", "fraud-r1")["metadata"]["uid"] == uid
    assert here.states() == {"r1": "deployed", "r2": "superseded"}


def test_going_back_makes_a_revision_again_that_knative_has_collected(here):
    here.deploy("good", **ZERO)
    here.deploy("better", **ZERO)
    with here.server.still():
        here.server.objects.delete(("revisions", "default", "fraud-r1"))
    go_back(here.api, "fraud", "default", clock=here.clock)
    assert served(here) == "fraud-r1"


# From one way to the other


def test_a_deployment_becomes_knatives_and_one_again_and_nothing_stays(here):
    here.deploy("good", replicas=2, env={"A": "1"})
    here.deploy("good", env={"A": "1"}, **ZERO)
    assert served(here) == "fraud-r2"
    assert here.server.names("poddisruptionbudgets") == []
    assert here.server.names("deployments") == ["fraud-r2-deployment"]
    # Ours went once; the one that came in its place is Knative's to take away.
    path = "/api/v1/namespaces/default/services/fraud"
    assert [call.method for call in here.server.seen if call.path == path].count("DELETE") == 1
    here.deploy("good", replicas=2, env={"A": "1"})
    assert here.revisions() == {"r3"}
    eventually(lambda: here.server.names("deployments") == ["fraud"])
    assert here.server.names("services") == ["fraud"]
    assert not any(here.server.names(kind) for kind in ("ksvc", "configurations", "routes", "revisions"))
    go_back(here.api, "fraud", "default", clock=here.clock)
    assert served(here) == "fraud-r2"
    assert here.states() == {"r1": "superseded", "r2": "deployed", "r3": "superseded"}
    nothing_else(here)


@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.OTHER_REVISION], ids=["crash", "other"])
def test_who_fails_to_take_over_from_the_other_way_leaves_it_as_it_was(here, fault):
    here.server.fault("team/bad", fault)
    here.deploy("good", replicas=2)
    fails("deploy.unhealthy", lambda: here.deploy("bad", timeout_s=3.0, **ZERO))
    assert here.revisions() == {"r1"}
    eventually(lambda: here.server.names("deployments") == ["fraud"])
    here.deploy("good", **ZERO)
    fails("deploy.unhealthy", lambda: here.deploy("bad", replicas=1, timeout_s=3.0))
    eventually(lambda: shares(here) == {"fraud-r3": 100})
    eventually(lambda: here.server.names("deployments") == ["fraud-r3-deployment"])
    assert served(here) == "fraud-r3"


def test_a_canary_between_the_two_ways_is_refused_before_anything_is_made(here):
    here.deploy("good", replicas=1)
    with pytest.raises(UsageError) as caught:
        here.deploy("better", canary=CANARY, **ZERO)
    assert caught.value.code == "render.unsupported"
    assert here.states() == {"r1": "deployed"}
    assert here.server.names("ksvc") == []


@pytest.mark.parametrize("to", ["knative", "deployment", "revision"])
def test_who_is_cut_off_at_any_write_goes_on_with_the_same_command(here, to):
    ways = {"knative": (TWO, ZERO), "deployment": (ZERO, TWO), "revision": (ZERO, ZERO)}
    first, then = ways[to]
    cuts = 0
    for write in range(1, 60):
        here.deploy("good", env={"A": "1"}, **first)
        command = partial(here.deploy, "better", env={"A": "2"}, **then)
        try:
            with cut_off(here, write):
                command()
        except CutError:
            cuts += 1
        else:
            break
        command()
        assert here.states() == {"r1": "superseded", "r2": "deployed"}
        assert (served(here) == "fraud-r2") if then is ZERO else (here.revisions() == {"r2"})
        nothing_else(here)
        kubernetes.stop("fraud", kubernetes.Place())
        eventually(lambda: not any(here.server.names(kind) for kind in (*LEFT, "secrets", "pods")))
    assert cuts >= 8
