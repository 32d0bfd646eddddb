"""The words of every day for a deployment that Knative runs."""

import json

import pytest
from clusters import eventually, image, needed, site

from corten.testing import Fault

pytestmark = pytest.mark.kubernetes
ZERO = ("--replicas", "0..4")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("CORTEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CORTEN_ENGINE", "kubernetes")
    monkeypatch.setattr("corten.cluster.drilling._BEFORE_S", 0.1)
    yield from site(tmp_path, monkeypatch, groups=("serving.knative.dev",))


def asleep(here):
    eventually(lambda: not here.server.names("pods"))


def test_a_day_with_one_that_sleeps(here, run):
    out, err = run("deploy", image("fraud"), *ZERO, "--env", "A=1")
    assert out == "http://fraud.default.svc/\n"
    assert "fraud r1 answers" in err
    asleep(here)
    (seen,) = json.loads(run("status", "fraud", "--json")[0])["deployments"]
    assert (seen["state"], seen["ready"], seen["wanted"], seen["revision"]) == ("serving", 0, 0, "r1")
    assert run("logs", "fraud")[0] == ""
    assert json.loads(run("predict", "fraud", "-i", "[[1]]")[0]) == {"outputs": [1]}
    assert run("logs", "fraud", "--tail", 5)[0].count('{"message":"ready"}') == 1
    assert "1/1" in run("status")[0]
    assert "no difference" in run("k8s", "diff", "fraud")[1]
    _, err = run("k8s", "scale", "fraud", 3, code=2)
    assert "kubernetes.scaled_by_others" in err
    assert "Knative" in err
    run("deploy", image("better"), "--name", "fraud", *ZERO)
    assert "image" in run("k8s", "diff", "fraud", "r1", "r2")[0]
    run("rollback", "fraud")
    assert "superseded" in run("k8s", "history", "fraud")[0]
    assert run("stop", "fraud")[0] == "fraud\n"
    gone = ("ksvc", "routes", "configurations", "revisions", "deployments", "services", "configmaps", "secrets", "pods")
    eventually(lambda: not any(here.server.names(plural) for plural in gone))
    assert "control.unknown_deployment" in run("logs", "fraud", code=3)[1]


def test_two_of_them_and_a_deployment_are_told_apart(here, run):
    run("deploy", image("alpha"), image("beta"), *ZERO)
    run("deploy", image("gamma"))
    document = json.loads(run("status", "--json")[0])["deployments"]
    assert [(one["name"], one["revision"], one["state"]) for one in document] == [
        (name, "r1", "serving") for name in ("alpha", "beta", "gamma")
    ]
    assert [one["image"] for one in document] == [str(image(name)) for name in ("alpha", "beta", "gamma")]


def test_what_drills_break_is_held_until_the_next_pod_answers(here, run):
    run("deploy", image("fraud"), *ZERO)
    asleep(here)
    document = json.loads(run("k8s", "drill", "fraud", "[[1]]", "--json")[0])
    assert [(one["scenario"], one["failed"]) for one in document["scores"]] == [("delete", 0), ("evict", 0)]
    assert all(one["ok"] > 5 and one["broken"] for one in document["scores"])
    assert "drill.unknown_scenario" in run("k8s", "drill", "fraud", "[1]", "--only", "rollout", code=2)[1]


def test_the_role_that_is_printed_is_enough_for_it(here, run):
    """Each request of a day is allowed by a rule, and each rule for Knative is needed by one."""
    yaml = pytest.importorskip("yaml")
    role = next(one for one in yaml.safe_load_all(run("k8s", "rbac", "--with", "knative")[0]) if one["kind"] == "Role")
    allowed = {
        (group, verb, kind)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for kind in rule["resources"]
        for verb in rule["verbs"]
    }
    here.server.fault("team/bad", Fault.CRASH)
    run("deploy", image("fraud"), *ZERO, "--env", "A=1")
    run("deploy", image("bad"), "--name", "fraud", *ZERO, code=6)
    run("deploy", image("better"), "--name", "fraud", *ZERO, "--canary", "20%")
    run("promote", "fraud")
    run("deploy", image("better"), "--name", "fraud")
    for words in (["rollback"], ["k8s", "drill"], ["logs"], ["k8s", "diff"], ["stop"]):
        run(*words, "fraud", *(["[[1]]"] if "drill" in words else []))
    asked = {(group_of(call), *needed(call)) for call in here.server.seen if "/namespaces/" in call.path}
    assert asked <= allowed, asked - allowed
    ours = {one for one in allowed if one[0] == "serving.knative.dev"}
    assert ours - asked == {("serving.knative.dev", "create", "services")}  # applying what is not there is that, too


def group_of(call):
    _, root, group, *_ = call.path.split("/")
    return group if root == "apis" else ""


def test_a_right_that_is_missing_is_told_by_the_doctor(here, run):
    found = {one["name"]: one for one in json.loads(run("doctor", "--json")[0])["checks"]}
    assert "Knative" in found["zero"]["found"]
    here.server.rest.forbidden = {("watch", "revisions")}
    found = {one["name"]: one for one in json.loads(run("doctor", "--json", code=1)[0])["checks"]}
    assert found["rights"]["found"] == "may not watch revisions"
