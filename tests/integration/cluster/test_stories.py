"""Deployments in a cluster, from the first to the last: rollouts, refusals, canaries, going back."""

from dataclasses import replace

import pytest
from clusters import CANARY, GATEWAY, eventually, image, site, under_load

from corten.cluster import deploying
from corten.cluster.deploying import go_back
from corten.core.canary import Canary
from corten.errors import CortenError
from corten.testing import Fault

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def here(tmp_path, monkeypatch):
    yield from site(tmp_path, monkeypatch)


@pytest.fixture
def gated(tmp_path, monkeypatch):
    for made in site(tmp_path, monkeypatch, groups=(GATEWAY,)):
        made.gateway = "infra/public"
        yield made


def fails(code, call):
    with pytest.raises(CortenError) as caught:
        call()
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


# Rollouts


def test_a_first_deployment_answers_and_is_recorded(here):
    done = here.deploy(replicas=2)
    assert done.release.label == "r1"
    assert done.changed
    assert here.revisions() == {"r1"}
    assert here.states() == {"r1": "deployed"}
    assert here.server.names("deployments") == ["fraud"]


def test_the_next_one_is_done_when_nobody_else_answers_any_more(here):
    here.deploy("good", replicas=2)
    here.deploy("better", replicas=2)
    assert here.revisions() == {"r2"}
    assert here.states() == {"r1": "superseded", "r2": "deployed"}


def test_the_same_again_changes_nothing_and_mends_what_was_changed_by_hand(here):
    here.deploy(replicas=2)
    generation = here.server.find("deployments", "fraud")["metadata"]["generation"]
    again = here.deploy(replicas=2)
    assert not again.changed
    assert here.server.find("deployments", "fraud")["metadata"]["generation"] == generation
    with here.server.still():
        here.server.objects.delete(("services", "default", "fraud"))
    here.deploy(replicas=2)
    assert here.revisions() == {"r1"}


def test_what_is_no_longer_wanted_goes(here):
    here.deploy(replicas=2, env={"A": "1"})
    before = here.server.names("configmaps")
    here.deploy(replicas=1, env={"A": "2"})
    assert len(here.server.names("configmaps")) == 1
    assert here.server.names("configmaps") != before
    assert here.server.names("poddisruptionbudgets") == []


# Who is not well


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        (Fault.CRASH, "exit code 1"),
        (Fault.PULL, "cannot be pulled"),
        (Fault.UNSCHEDULABLE, "no node has room"),
        (Fault.NEVER_READY, "no replica got ready"),
        (Fault.NEVER_STARTED, "no replica got ready"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_a_revision_that_does_not_get_ready_is_told_why_and_the_one_before_serves_on(here, fault, what):
    here.deploy("good", replicas=2)
    here.server.fault("team/bad", fault)
    error = fails("deploy.unhealthy", lambda: here.deploy("bad", replicas=2, ready_timeout_s=5.0))
    assert what in error.what
    assert error.hint
    assert error.exit_code == 6
    assert here.revisions() == {"r1"}
    assert here.states() == {"r1": "deployed", "r2": "failed"}


def test_a_crash_shows_the_last_lines_of_the_process_that_ended(here):
    here.server.fault("team/bad", Fault.CRASH)
    error = fails("deploy.unhealthy", lambda: here.deploy("bad"))
    assert "the model did not load" in error.why
    assert "no such file" in here.words
    assert any(request.query.get("previous") for request in here.server.seen if request.path.endswith("/log"))


def test_of_a_first_deployment_that_fails_nothing_is_left_but_the_record(here):
    here.server.fault("team/bad", Fault.CRASH)
    fails("deploy.unhealthy", lambda: here.deploy("bad", env={"A": "1"}))
    for plural in ("deployments", "services", "configmaps", "networkpolicies", "serviceaccounts"):
        assert here.server.names(plural) == []
    assert here.states() == {"r1": "failed"}


def test_a_rollout_that_is_done_while_somebody_else_answers_is_not_done(here):
    """`rollout status` says success there; only a request through the Service finds it."""
    here.deploy("good")
    here.server.fault("team/other", Fault.OTHER_REVISION)
    error = fails("deploy.unhealthy", lambda: here.deploy("other", timeout_s=2.0))
    assert "r0 answers" in error.why
    assert here.states() == {"r1": "deployed", "r2": "failed"}
    assert str(image("good")) in str(here.server.find("deployments", "fraud")["spec"])


def test_a_service_without_a_port_that_fits_is_found_though_the_rollout_is_done(here):
    """As a merge of JSON left one behind: endpoints, no port, and a rollout that said success."""
    here.deploy("good")
    broken = here.workload("better", replicas=2)
    made = deploying.objects_of(broken)
    service = next(one for one in made if one["kind"] == "Service")
    service["spec"]["ports"][0]["targetPort"] = "gone"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploying, "objects_of", lambda _: made)
        error = fails("deploy.unhealthy", lambda: here.deploy("better", replicas=2, timeout_s=1.0))
    assert "no endpoints available" in error.why
    assert here.states() == {"r1": "deployed", "r2": "failed"}
    assert here.server.find("services", "fraud")["spec"]["ports"][0]["targetPort"] == "http"


def test_pods_that_were_refused_by_a_quota_are_told_with_its_numbers(here):
    here.server.pods.most_pods = 1
    error = fails("deploy.unhealthy", lambda: here.deploy(replicas=3, ready_timeout_s=2.0))
    assert "exceeded quota" in error.why


def test_pods_that_a_policy_refuses_are_told_with_its_words_and_not_as_a_quota(here):
    here.server.pods.denied = "images must be signed"
    error = fails("deploy.unhealthy", lambda: here.deploy(ready_timeout_s=2.0))
    assert error.why.endswith("denied the request: images must be signed")
    assert "policy" in error.hint


def test_a_container_that_was_never_made_is_told_by_the_warnings_about_its_pod(here):
    """It has no log, and to ask for one is a refusal: that was told instead, and nothing was rolled back."""
    here.deploy("good")
    here.server.fault("team/bad", Fault.NEVER_STARTED)
    error = fails("deploy.unhealthy", lambda: here.deploy("bad", ready_timeout_s=2.0))
    assert "FailedMount: MountVolume.SetUp failed" in error.why
    assert "ContainerCreating" in error.why
    assert here.states() == {"r1": "deployed", "r2": "failed"}


def test_whoever_waits_no_longer_is_told_what_was_waited_for(here):
    here.server.fault("team/slow", Fault.NEVER_READY)
    error = fails("deploy.timeout", lambda: here.deploy("slow", ready_timeout_s=600.0, timeout_s=0.3))
    assert error.where.startswith("pod fraud-")
    assert '{"message":"ready"}' in error.why, "the last lines of its log"
    here.server.fault("team/full", Fault.UNSCHEDULABLE)
    error = fails("deploy.timeout", lambda: here.deploy("full", ready_timeout_s=600.0, timeout_s=0.3))
    assert "no node has room" in error.why
    assert "--memory" in error.hint
    assert "the same command" in error.hint


# Canaries


def test_a_good_canary_takes_over_share_by_share(gated):
    gated.deploy("good", replicas=2)
    under_load(gated, lambda: gated.deploy("better", replicas=2, canary=CANARY))
    assert "r2 gets 10 %" in gated.words
    assert "r2 gets 50 %" in gated.words
    assert gated.revisions() == {"r2"}
    assert gated.server.names("deployments") == ["fraud"]
    backends = gated.server.find("httproutes", "fraud")["spec"]["rules"][0]["backendRefs"]
    assert [backend["weight"] for backend in backends] == [100, 0]
    # It kept its share until all the others were new, too.
    log = gated.server.objects.log
    taken = max(version for version, _, plural, _, _ in log if plural == "httproutes")
    done = max(v for v, _, plural, _, one in log if plural == "deployments" and one["metadata"]["name"] == "fraud")
    assert taken > done


def test_a_bad_canary_is_rolled_back_before_it_has_more(gated):
    gated.deploy("good", replicas=2)
    gated.server.fault("team/bad", Fault.BAD_ANSWERS)
    error = under_load(
        gated, lambda: fails("deploy.rolled_back", lambda: gated.deploy("bad", replicas=2, canary=CANARY))
    )
    assert "failed" in error.why
    assert "r2 gets 50 %" not in gated.words
    assert gated.revisions() == {"r1"}
    assert gated.server.names("deployments") == ["fraud"]
    assert gated.states() == {"r1": "deployed", "r2": "failed"}


def test_a_canary_that_never_gets_ready_gets_no_request(gated):
    gated.deploy("good")
    gated.server.fault("team/bad", Fault.CRASH)
    fails("deploy.rolled_back", lambda: gated.deploy("bad", canary=CANARY))
    assert "gets 10 %" not in gated.words
    weights = [
        backend["weight"] for backend in gated.server.find("httproutes", "fraud")["spec"]["rules"][0]["backendRefs"]
    ]
    assert weights == [100, 0]


def test_without_a_gateway_its_share_is_its_share_of_the_pods(here):
    here.deploy("good", replicas=4)
    done = here.deploy("better", replicas=4, canary=Canary((20,)))
    assert done.share == 20
    assert here.server.find("deployments", "fraud-canary")["spec"]["replicas"] == 1
    assert here.revisions() == {"r1", "r2"}
    here.deploy("better", replicas=4)
    assert here.revisions() == {"r2"}
    assert here.server.names("deployments") == ["fraud"]


# Going back


def test_going_back_needs_nothing_but_the_record(here):
    here.deploy("good", replicas=2, env={"A": "1"})
    here.deploy("better", replicas=2, env={"A": "2"})
    done = go_back(here.api, "fraud", "default", clock=here.clock)
    assert done.release.label == "r1"
    assert here.revisions() == {"r1"}
    assert here.states() == {"r1": "deployed", "r2": "superseded"}
    go_back(here.api, "fraud", "default", "r2", clock=here.clock)
    assert here.revisions() == {"r2"}


def test_going_back_from_a_canary_takes_it_away(here):
    here.deploy("good", replicas=4)
    here.deploy("better", replicas=4, canary=Canary((20,)))
    go_back(here.api, "fraud", "default", clock=here.clock)
    assert here.server.names("deployments") == ["fraud"]
    assert here.states() == {"r1": "deployed", "r2": "failed"}


def test_there_may_be_nothing_to_go_back_to(here):
    fails("control.no_earlier_revision", lambda: go_back(here.api, "fraud", "default"))
    here.deploy()
    fails("control.unknown_revision", lambda: go_back(here.api, "fraud", "default", "r9"))


# Who owns the number of replicas


def test_what_a_scaler_did_is_not_undone(here):
    here.deploy("good", replicas=2, most_replicas=8)
    here.server.scale_as("kube-controller-manager", "fraud", 5)
    here.deploy("better", replicas=2, most_replicas=8)
    assert here.server.find("deployments", "fraud")["spec"]["replicas"] == 5


def test_a_scaler_takes_over_without_a_fall_to_one(here):
    here.deploy("good", replicas=4)
    here.deploy("good", replicas=2, most_replicas=8)
    assert here.server.find("deployments", "fraud")["spec"]["replicas"] == 4


def test_and_gives_back_what_it_owned(here):
    here.deploy("good", replicas=2, most_replicas=8)
    here.server.scale_as("kube-controller-manager", "fraud", 5)
    here.deploy("good", replicas=3)
    assert here.server.find("deployments", "fraud")["spec"]["replicas"] == 3
    assert here.server.names("horizontalpodautoscalers") == []


def test_a_refusal_leaves_the_scaler_that_was_to_go(here):
    here.deploy("good", replicas=2, most_replicas=8)
    here.server.rest.denied = {"Service": "not today"}
    fails("kubernetes.denied", lambda: here.deploy("good", replicas=3))
    assert here.server.names("horizontalpodautoscalers") == ["fraud"]


def test_somebody_elses_number_is_a_conflict_with_a_name(here):
    here.deploy(replicas=2)
    here.server.scale_as("kubectl", "fraud", 5)
    error = fails("kubernetes.owned", lambda: here.deploy(replicas=3))
    assert "`kubectl`" in error.what
    assert ".spec.replicas" in error.where
    assert here.server.find("deployments", "fraud")["spec"]["replicas"] == 5


# What a cluster has


APIS = {
    "both": (("keda.sh", "http.keda.sh"), ["interceptorroutes", "scaledobjects"]),
    "newer": (("keda.sh", "http.keda.sh/v1beta1"), ["interceptorroutes", "scaledobjects"]),
    "older": (("keda.sh", "http.keda.sh/v1alpha1"), ["httpscaledobjects", "scaledobjects"]),  # that makes the other
}
ZERO = {"replicas": 0, "most_replicas": 4}


@pytest.fixture
def held(tmp_path, monkeypatch, request):
    """A cluster with KEDA's add-on, where deployments have a host name."""
    for here in site(tmp_path, monkeypatch, groups=APIS[getattr(request, "param", "newer")][0]):
        here.unheld = asked = here.workload
        here.workload = lambda *words, asked=asked, **more: replace(asked(*words, **more), host="f.example.com")
        yield here


def at_rest(here):
    """Down to none, as after a while without requests."""
    here.server.scale_as("keda-operator", "fraud", 0)
    eventually(lambda: not here.server.names("pods"))


def least(here):
    """How many replicas the scaler leaves."""
    return here.server.find("scaledobjects", "fraud")["spec"]["minReplicaCount"]


@pytest.mark.parametrize(("held", "kinds"), [(name, kinds) for name, (_, kinds) in APIS.items()], indirect=["held"])
def test_down_to_zero_goes_by_the_api_that_the_add_on_has(held, kinds):
    held.deploy(**ZERO)
    there = ["interceptorroutes", "httpscaledobjects", "scaledobjects"]
    eventually(lambda: [kind for kind in there if held.server.names(kind)] == kinds)
    assert held.revisions() == {"r1"}
    eventually(lambda: least(held) == 0)
    held.workload = held.unheld
    held.deploy("better", replicas=2)
    eventually(lambda: [kind for kind in there if held.server.names(kind)] == [])
    assert held.revisions() == {"r2"}


@pytest.mark.parametrize("held", ["newer", "older"], indirect=True)
def test_who_rests_is_woken_to_be_asked_and_may_rest_again(held):
    held.deploy("good", **ZERO)
    at_rest(held)
    asked = len(held.server.seen)
    held.deploy("better", **ZERO)
    assert any("/services/fraud:http/proxy/" in call.path for call in held.server.seen[asked:])
    assert held.revisions() == {"r2"}
    eventually(lambda: least(held) == 0)
    at_rest(held)
    go_back(held.api, "fraud", "default", clock=held.clock)
    assert held.revisions() == {"r1"}
    eventually(lambda: least(held) == 0)


@pytest.mark.parametrize("held", ["newer", "older"], indirect=True)
@pytest.mark.parametrize("fault", [Fault.CRASH, Fault.OTHER_REVISION], ids=["crash", "other"])
def test_a_revision_that_is_not_well_is_found_though_nobody_asks(held, fault):
    """None of none is a rollout that is done: a broken one was found by the first client."""
    held.deploy("good", **ZERO)
    at_rest(held)
    held.server.fault("team/bad", fault)
    fails("deploy.unhealthy", lambda: held.deploy("bad", timeout_s=3.0, **ZERO))
    assert held.states() == {"r1": "deployed", "r2": "failed"}
    eventually(lambda: least(held) == 0)
    assert str(image("good")) in str(held.server.find("deployments", "fraud")["spec"])


def test_the_same_again_wakes_nobody_who_rests(held):
    held.deploy("good", **ZERO)
    at_rest(held)
    assert not held.deploy("good", **ZERO).changed
    assert held.server.find("deployments", "fraud")["spec"]["replicas"] == 0


def test_a_group_without_the_kind_that_is_needed_is_not_taken_for_it(tmp_path, monkeypatch):
    """As where only the older versions of a definition are installed."""
    older = ("gateway.networking.k8s.io/v1beta1", "monitoring.coreos.com/v1alpha1", "keda.sh/v2")
    for here in site(tmp_path, monkeypatch, groups=older):
        assert here.workload().cluster.additions == frozenset()
        here.deploy()
