"""The words of every day with `--engine kubernetes`, and what only clusters have."""

import json

import pytest
from clusters import image, needed, site

from corten.testing import Fault

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("CORTEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CORTEN_ENGINE", "kubernetes")
    yield from site(tmp_path, monkeypatch)


def test_a_day_with_a_deployment(here, run):
    out, err = run("deploy", image("fraud"), "--replicas", 2, "--env", "A=1")
    assert out == "http://fraud.default.svc/\n"
    assert "fraud r1 answers" in err
    assert json.loads(run("predict", "fraud", "-i", "[[1]]")[0]) == {"outputs": [1]}
    out, _ = run("status")
    assert "fraud" in out
    assert "2/2" in out
    assert out.count("ready") >= 3
    out, _ = run("logs", "fraud", "--tail", 5)
    assert out.count('{"message":"ready"}') == 2
    run("deploy", image("better"), "--name", "fraud")
    out, _ = run("k8s", "history", "fraud")
    assert "superseded" in out
    assert "deployed" in out
    run("rollback", "fraud")
    assert here.revisions() == {"r1"}
    out, _ = run("stop", "fraud")
    assert out == "fraud\n"
    for plural in ("deployments", "services", "configmaps", "networkpolicies", "serviceaccounts", "secrets"):
        assert here.server.names(plural) == []
    assert "control.unknown_deployment" in run("stop", "fraud", code=3)[1]


def test_what_somebody_changed_by_hand_is_shown_with_its_writer(here, run):
    run("deploy", image("fraud"))
    assert "no difference" in run("k8s", "diff", "fraud")[1]
    here.server.scale_as("kubectl", "fraud", 3)
    out, _ = run("k8s", "diff", "fraud")
    assert "spec.replicas" in out
    assert "kubectl" in out
    found = json.loads(run("k8s", "diff", "fraud", "--json")[0])["differences"]
    assert [(one["path"], one["wanted"], one["found"]) for one in found] == [("spec.replicas", 1, 3)]


def test_two_releases_are_compared_by_what_was_made_of_them(here, run):
    run("deploy", image("fraud"), "--memory", "1g")
    run("deploy", image("fraud"), "--memory", "2g")
    out, _ = run("k8s", "diff", "fraud", "r1", "r2")
    assert "limits.memory" in out
    assert "1024Mi" in out
    assert "2048Mi" in out
    assert "control.unknown_revision" in run("k8s", "diff", "fraud", "r1", "r9", code=3)[1]


def test_the_number_of_replicas_may_be_set_unless_a_scaler_decides(here, run):
    run("deploy", image("fraud"))
    run("k8s", "scale", "fraud", 3)
    assert here.server.find("deployments", "fraud")["spec"]["replicas"] == 3
    run("deploy", image("fraud"), "--replicas", "1..4")
    assert "kubernetes.scaled_by_others" in run("k8s", "scale", "fraud", 2, code=2)[1]


def test_what_drills_break_costs_no_request_where_there_are_two(here, run, monkeypatch):
    monkeypatch.setattr("corten.cluster.drilling._BEFORE_S", 0.1)
    run("deploy", image("fraud"), "--replicas", 2)
    before = set(here.server.names("pods"))
    out, _ = run("k8s", "drill", "fraud", '{"inputs": [[1]]}')
    assert out.count("\u2713") == 3
    assert not before & set(here.server.names("pods"))
    assert "no difference" in run("k8s", "diff", "fraud")[1]
    document = json.loads(run("k8s", "drill", "fraud", "[[1]]", "--only", "evict", "--json")[0])
    assert [(one["scenario"], one["failed"]) for one in document["scores"]] == [("evict", 0)]
    assert document["scores"][0]["ok"] > 5
    assert "drill.unknown_scenario" in run("k8s", "drill", "fraud", "[1]", "--only", "fire", code=2)[1]
    run("k8s", "scale", "fraud", 0)
    assert "drill.not_well" in run_until_empty(here, run)


def run_until_empty(here, run):
    while here.server.names("pods"):
        pass
    return run("k8s", "drill", "fraud", "[1]", code=6)[1]


def test_a_canary_that_stays_at_its_share_is_promoted(here, run):
    assert "control.no_canary" in run("promote", "fraud", code=3)[1]
    run("deploy", image("fraud"), "--replicas", 4)
    _, err = run("deploy", image("better"), "--name", "fraud", "--replicas", 4, "--canary", "20%")
    assert "20 % of the requests" in err
    assert here.revisions() == {"r1", "r2"}
    assert "cli.usage" in run("promote", "fraud", "--to", 50, code=2)[1]
    run("promote", "fraud")
    assert here.revisions() == {"r2"}
    assert here.states() == {"r1": "superseded", "r2": "deployed"}
    assert here.server.names("deployments") == ["fraud"]


def test_of_many_each_is_told_and_the_worst_decides_the_exit_code(here, run):
    here.server.fault("team/bad", Fault.CRASH)
    out, err = run("deploy", image("good"), image("bad"), code=6)
    assert out == "http://good.default.svc/\n"
    assert "bad FAILED" in err
    document = json.loads(run("deploy", image("good"), image("bad"), "--json", code=6)[0])
    assert [sorted(one) for one in document["deployments"]][1] == ["error", "name"]


def test_a_failed_one_says_why_in_the_words_of_the_cluster(here, run):
    here.server.fault("team/bad", Fault.PULL)
    _, err = run("deploy", image("bad"), "--timeout", 30, code=6)
    assert "the image cannot be pulled" in err
    assert "hint:" in err


def test_answers_that_are_none_are_told_as_on_one_machine(here, run):
    run("deploy", image("fraud"))
    here.server.fault("team/fraud", Fault.BAD_ANSWERS)
    assert "predict.failed" in run("predict", "fraud", "-i", "[[1]]", code=1)[1]
    run("k8s", "scale", "fraud", 0)
    while here.server.names("pods"):
        pass
    _, err = run("predict", "fraud", "-i", "[[1]]", code=6)
    assert "no endpoints available" in err
    assert "control.unknown_deployment" in run("predict", "other", "-i", "[[1]]", code=3)[1]


def test_a_model_that_thinks_for_long_is_asked_once_and_has_the_time_it_has_on_one_machine(here, run, monkeypatch):
    run("deploy", image("fraud"))
    here.server.pods.thinking_s = 0.4
    assert json.loads(run("predict", "fraud", "-i", "[[1]]")[0]) == {"outputs": [1]}
    monkeypatch.setattr("corten.ops.kubernetes.LONGEST_ANSWER_S", 0.1)
    here.server.seen.clear()
    _, err = run("predict", "fraud", "-i", "[[1]]", code=6)
    assert "no answer within 0.1 s" in err
    assert [call.method for call in here.server.seen].count("POST") == 1


def test_the_role_that_is_printed_is_enough_for_all_that_is_asked(here, run, monkeypatch):
    """Each request of a day is allowed by a rule, and each rule is needed by one."""
    yaml = pytest.importorskip("yaml")
    role = next(one for one in yaml.safe_load_all(run("k8s", "rbac")[0]) if one["kind"] == "Role")
    allowed = {(verb, kind) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}
    monkeypatch.setattr("corten.cluster.drilling._BEFORE_S", 0.1)
    here.server.fault("team/bad", Fault.CRASH)
    run("deploy", image("fraud"), "--replicas", 2, "--env", "A=1")
    run("k8s", "drill", "fraud", "[[1]]")
    run("deploy", image("bad"), "--name", "fraud", "--env", "A=2", code=6)
    run("deploy", image("fraud"), "--replicas", "1..4")
    run("deploy", image("fraud"), "--replicas", 1)
    for words in (
        ["status"],
        ["logs", "fraud"],
        ["predict", "fraud", "-i", "[[1]]"],
        ["k8s", "diff", "fraud"],
        ["stop", "fraud"],
    ):
        run(*words)
    asked = {needed(request) for request in here.server.seen if "/namespaces/" in request.path}
    assert asked <= allowed, asked - allowed
    assert {kind for _, kind in allowed} - {kind for _, kind in asked} == {"pods/proxy"}  # which canaries ask


def test_the_namespace_that_is_printed_lets_in_only_pods_that_may_do_nothing(run):
    yaml = pytest.importorskip("yaml")
    space, *others = yaml.safe_load_all(run("k8s", "rbac", "--namespace", "models", "--with-namespace")[0])
    assert (space["kind"], space["metadata"]["name"]) == ("Namespace", "models")
    assert space["metadata"]["labels"] == {"pod-security.kubernetes.io/enforce": "restricted"}
    assert [one["metadata"]["namespace"] for one in others] == ["models"] * 3
    assert "--namespace models" in run("k8s", "rbac", "--with-namespace", code=2)[1]


def test_lists_are_never_merged_by_hand_and_nothing_is_ever_forced(here, run):
    """A merge of JSON puts a whole list of containers in another's place: a port was lost so, and nobody noticed."""
    run("deploy", image("fraud"), "--replicas", 2, "--env", "A=1")
    run("deploy", image("better"), "--name", "fraud", "--replicas", "1..4")
    run("rollback", "fraud")
    patches = [request for request in here.server.seen if request.method == "PATCH"]
    merged = [request.path for request in patches if not request.media_type.startswith("application/apply-patch")]
    assert all(path.endswith("/scale") for path in merged)
    assert not any(request.query.get("force") for request in patches)
    assert {request.query["fieldManager"] for request in patches} <= {"corten", "corten-state", "corten-scale"}


def test_an_engine_nobody_knows_and_words_for_another_one_are_refused(here, run, monkeypatch):
    monkeypatch.setenv("CORTEN_ENGINE", "swarm")
    assert "swarm" in run("status", code=2)[1]
    monkeypatch.delenv("CORTEN_ENGINE")
    assert "--engine kubernetes" in run("deploy", image("x"), "--namespace", "models", code=2)[1]


def test_what_a_cluster_is_and_allows_and_keeps_apart_is_tried_out(here, run, monkeypatch):
    monkeypatch.setattr("corten.cluster.probing._LOOK_S", 0.02)

    def checks(code=0):
        found = json.loads(run("doctor", "--json", code=code)[0])["checks"]
        return {one["name"]: (one["outcome"], one["found"]) for one in found}

    assert checks()["policies"][0] == "info"  # nothing to try it with
    run("deploy", image("fraud"))
    before = {kind: here.server.names(kind) for kind in ("deployments", "networkpolicies")}
    assert [outcome for outcome, _ in checks().values()] == ["ok", "info", "info", "ok", "ok"]
    here.server.pods.enforces = False
    outcome, found = checks()["policies"]
    assert (outcome, "NOT enforced" in found) == ("warning", True)
    assert {kind: here.server.names(kind) for kind in before} == before
    here.server.rest.forbidden = {("patch", "deployments"), ("create", "pods/eviction")}
    outcome, found = checks(code=1)["rights"]
    assert outcome == "failed"
    assert found == "may not create pods/eviction, patch deployments"


def test_a_cluster_that_does_not_answer_is_a_check_that_failed(here, run, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "no cluster to talk to" in run("doctor", code=1)[0]
