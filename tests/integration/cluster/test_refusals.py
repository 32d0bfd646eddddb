"""What clusters refuse, and what breaks: a clear cause, a hint, nothing half-done, and the same command goes on."""

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from clusters import image, site

from corten.cluster.kinds import DEPLOYMENT
from corten.cluster.lightkube_api import connect
from corten.errors import CortenError
from corten.exporters.manifests.whole import objects
from corten.testing import Fault

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def here(tmp_path, monkeypatch):
    yield from site(tmp_path, monkeypatch)


def fails(code, call):
    with pytest.raises(CortenError) as caught:
        call()
    assert caught.value.code == code, caught.value.as_dict()
    assert caught.value.hint or code == "kubernetes.refused"
    return caught.value


def nothing_is_there(site):
    return all(not site.server.names(kind) for kind in ("deployments", "services", "networkpolicies", "secrets"))


def test_no_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    error = fails("kubernetes.no_context", connect)
    assert str(tmp_path / "missing") in error.where
    assert error.exit_code == 2


def test_a_context_nobody_has(here):
    fails("kubernetes.no_context", lambda: connect("other"))


def test_a_cluster_that_does_not_answer(tmp_path, monkeypatch):
    for gone in site(tmp_path, monkeypatch):
        here = gone
    with connect(sleep=here.sleep) as here.api:
        error = fails("kubernetes.unreachable", here.deploy)
    assert error.exit_code == 4
    assert here.server.url in error.where


def test_a_token_that_is_over(here, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(here.server.kubeconfig(tmp_path / "old", token="over")))
    with connect() as here.api:
        fails("kubernetes.unauthorized", here.deploy)
    assert nothing_is_there(here)


def test_a_verb_that_is_not_allowed_is_named_as_the_rule_that_is_missing(here):
    here.server.rest.forbidden = {("patch", "deployments")}
    error = fails("kubernetes.forbidden", here.deploy)
    assert 'apiGroups: ["apps"], resources: ["deployments"], verbs: ["patch"]' in error.why
    assert "corten k8s rbac" in error.hint
    assert nothing_is_there(here)


# Built by hand, a server says an empty major and minor version: that ended in a ValueError.
@pytest.mark.parametrize(("version", "told"), [("1.28", "1.28"), ("", "`v.0`")])
def test_a_cluster_that_is_too_old_is_told_before_anything_is_made(tmp_path, monkeypatch, version, told):
    for old in site(tmp_path, monkeypatch, version=version):
        error = fails("kubernetes.too_old", old.deploy)
        assert f"Kubernetes {told} is older" in error.what
        assert "1.29" in error.why
        assert error.where == old.server.url
        assert error.exit_code == 5
        assert nothing_is_there(old)


def test_a_quota_on_objects(here):
    here.server.rest.over_quota = {"deployments"}
    error = fails("kubernetes.quota", here.deploy)
    assert "used count/deployments.apps=3" in error.why or "count/deployments=3" in error.why
    assert nothing_is_there(here)


def test_a_policy_of_the_cluster(here):
    here.server.rest.denied = {"Deployment": "images must be signed"}
    error = fails("kubernetes.denied", here.deploy)
    assert "policy.example.com" in error.what
    assert error.why == "images must be signed"
    assert nothing_is_there(here)


def test_a_field_that_cannot_change(here):
    manifest = next(one for one in objects(here.workload()) if one["kind"] == "Deployment")
    other = {**manifest, "spec": {**manifest["spec"], "selector": {"matchLabels": {"app": "old"}}}}
    here.server.apply_as("corten", "deployments", other)
    error = fails("kubernetes.immutable", here.deploy)
    assert error.where == "spec.selector"


def test_a_namespace_that_is_not_there(here):
    from dataclasses import replace

    from corten.cluster.deploying import deploy

    workload = here.workload()
    elsewhere = replace(workload, cluster=replace(workload.cluster, namespace="models"))
    error = fails("kubernetes.no_namespace", lambda: deploy(here.api, elsewhere))
    assert "kubectl create namespace models" in error.hint


def test_a_server_that_is_busy_is_asked_again_later(here):
    here.server.rules.busy = 4
    assert here.deploy().changed
    here.server.rules.busy = 100
    fails("kubernetes.busy", here.deploy)


def test_a_port_the_dry_run_does_not_find_is_found_for_real_and_nothing_of_it_stays(here):
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"ports": [{"port": 80, "nodePort": 80, "protocol": "TCP"}]},
    }
    here.api.apply(service, "default", dry_run=True)
    assert here.server.names("services") == []
    error = fails_any(lambda: here.api.apply(service, "default"))
    assert "valid range" in error.why
    assert here.server.names("services") == []


def fails_any(call):
    with pytest.raises(CortenError) as caught:
        call()
    return caught.value


# The API server goes away and comes back


def test_a_rollout_outlives_a_restart_of_the_api_server(here):
    here.server.rules.drop_watches = 3
    here.deploy("good", replicas=2)

    def restart():
        time.sleep(0.03)
        here.server.rules.broken = 4
        here.server.rules.compacted = True

    beside = threading.Thread(target=restart)
    beside.start()
    done = here.deploy("better", replicas=3)
    beside.join()
    assert done.release.label == "r2"
    assert here.revisions() == {"r2"}


def test_a_restart_that_takes_a_while_is_told_and_outlived(here):
    """Six tries were over in six seconds; a control plane of one node needs a minute."""
    here.server.fault("team/slow", Fault.NEVER_READY)

    def restart():
        until_s = time.monotonic() + 20
        while not here.server.names("pods") and time.monotonic() < until_s:
            time.sleep(0.01)
        with here.server.down():
            time.sleep(0.4)
        here.server.fault("team/slow", Fault.NONE)

    beside = threading.Thread(target=restart)
    beside.start()
    with connect(sleep=here.sleep, listen=here.told.append) as here.api:
        done = here.deploy("slow", ready_timeout_s=600.0)
    beside.join()
    assert done.release.label == "r1"
    assert sum("does not answer" in event.message for event in here.told) == 1


def test_one_that_stays_away_is_given_up_in_the_end_and_nothing_is_orphaned(here):
    here.server.fault("team/slow", Fault.NEVER_READY)
    until_s = time.monotonic() + 20

    def end():
        while not here.server.names("pods") and time.monotonic() < until_s:
            time.sleep(0.01)
        away.enter_context(here.server.down())

    away = ExitStack()
    beside = threading.Thread(target=end)
    beside.start()
    error = fails("kubernetes.unreachable", lambda: here.deploy("slow", ready_timeout_s=600.0))
    beside.join()
    assert "refused" in error.why
    away.close()
    here.server.fault("team/slow", Fault.NONE)
    assert here.deploy("slow", ready_timeout_s=600.0).release.label == "r1"
    assert here.states() == {"r1": "deployed"}


def test_a_server_that_takes_connections_and_says_nothing_is_given_up_soon(here, tmp_path, monkeypatch):
    """Six times thirty seconds it took."""
    monkeypatch.setattr("corten.cluster.lightkube_api._CONNECT_S", 0.2)
    monkeypatch.setattr("corten.cluster.lightkube_api._TRYING_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text = here.server.kubeconfig(tmp_path / "silent").read_text()
        path = tmp_path / "silent"
        path.write_text(text.replace(here.server.url, f"https://127.0.0.1:{silent.getsockname()[1]}"))
        monkeypatch.setenv("KUBECONFIG", str(path))
        begun_s = time.monotonic()
        with connect(sleep=here.sleep) as api:
            fails("kubernetes.unreachable", lambda: api.get(DEPLOYMENT, "fraud", "default"))
            assert api.calls <= 3
        assert time.monotonic() - begun_s < 10


@pytest.mark.parametrize("images", [["slow"], ["slow", "other"]], ids=["one", "many"])
def test_who_interrupts_waits_for_no_rollout(here, images):
    """The threads of a pool were waited for: until the rollout was over, or had been rolled back."""
    here.server.fault("team/", Fault.NEVER_READY)
    words = [sys.executable, "-m", "corten", "deploy", *(str(image(name)) for name in images), "--timeout", "300"]
    process = subprocess.Popen([*words, "--engine", "kubernetes"], stderr=subprocess.PIPE, text=True)
    until_s = time.monotonic() + 60
    while len(here.server.names("pods")) < len(images) and time.monotonic() < until_s:
        time.sleep(0.01)
    begun_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert time.monotonic() - begun_s < 4
    assert process.returncode == 130
    assert "the same command again takes it up" in told
    assert set(here.states("slow").values()) == {"progressing"}


def test_who_was_interrupted_goes_on_with_the_same_command(here):
    here.deploy("good", replicas=2)

    class CutError(Exception):
        pass

    for step in range(1, 9):
        calls = iter(range(1000))
        request = here.api._request

        def dies(*words, calls=calls, request=request, step=step, **more):
            if words[0] == "PATCH" and "dryRun" not in (words[2] or {}) and next(calls) == step:
                raise CutError
            return request(*words, **more)

        here.api._request = dies
        with pytest.raises(CutError):
            here.deploy(f"next{step}", replicas=2)
        here.api._request = request
        done = here.deploy(f"next{step}", replicas=2)
        assert here.revisions() == {done.release.label}
        assert list(here.states().values()).count("deployed") == 1
        assert "progressing" not in here.states().values()
        assert here.server.names("deployments") == ["fraud"]
    assert here.states()["r9"] == "deployed"


def test_what_an_interrupted_one_made_goes_when_something_else_is_wanted(here):
    here.deploy("good", env={"A": "1"})
    here.server.fault("team/slow", Fault.NEVER_READY)
    fails("deploy.timeout", lambda: here.deploy("slow", env={"A": "2"}, ready_timeout_s=600.0, timeout_s=0.05))
    here.deploy("better", env={"A": "3"})
    assert len(here.server.names("configmaps")) == 1
    assert here.states() == {"r1": "superseded", "r2": "failed", "r3": "deployed"}


def test_records_are_kept_but_not_forever(here):
    for number in range(13):
        here.deploy(f"model{number}")
    assert len(here.states()) == 10
    assert here.states()["r13"] == "deployed"


# Conflicts of versions and owners, as the port tells them


def test_who_changed_it_meanwhile_is_told_as_a_conflict(here):
    here.deploy()
    live = here.server.find("deployments", "fraud")
    stale = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "fraud", "resourceVersion": "1"},
        "spec": {"replicas": live["spec"]["replicas"]},
    }
    fails("kubernetes.conflict", lambda: here.api.apply(stale, "default"))


def test_a_deployment_that_is_deleted_meanwhile_is_told(here):
    here.server.fault("team/slow", Fault.NEVER_READY)

    def delete():
        with connect() as api:
            until_s = time.monotonic() + 20
            while not api.delete(DEPLOYMENT, "fraud", "default") and time.monotonic() < until_s:
                time.sleep(0.01)

    beside = threading.Thread(target=delete)
    beside.start()
    fails("kubernetes.conflict", lambda: here.deploy("slow", ready_timeout_s=600.0))
    beside.join()
    assert str(image("slow")) not in str(here.server.find("deployments", "fraud"))


@pytest.mark.parametrize(
    "text", ["{: not yaml", "[]", "{}", "", '{"clusters": [], "contexts": [], "current-context": "x"}']
)
def test_a_kubeconfig_that_is_none(tmp_path, monkeypatch, text):
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{path}")
    assert fails("kubernetes.no_context", connect).where == str(path)


def test_a_field_the_cluster_does_not_know_is_named_at_once(here):
    """The server says 500 there, as for what may be better in a moment."""
    manifest = next(one for one in objects(here.workload()) if one["kind"] == "Deployment")
    manifest["spec"]["replica"] = 1
    error = fails("kubernetes.refused", lambda: here.api.apply(manifest, "default"))
    assert error.where == "spec.replica"
    assert sum(call.method == "PATCH" for call in here.server.seen) == 1


def test_a_wrong_type_is_told_with_its_path(here):
    manifest = next(one for one in objects(here.workload()) if one["kind"] == "Deployment")
    manifest["spec"]["minReadySeconds"] = "5"
    assert "minReadySeconds" in fails("kubernetes.refused", lambda: here.api.apply(manifest, "default")).where


def test_a_long_list_comes_in_pages_and_begins_anew_when_its_moment_is_gone(here, monkeypatch):
    from corten.cluster import lightkube_api
    from corten.cluster.kinds import CONFIG_MAP

    monkeypatch.setattr(lightkube_api, "_PAGE", 2)
    for number in range(5):
        manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"x{number}"}}
        here.api.apply(manifest, "default")
    here.server.seen.clear()
    assert len(here.api.list(CONFIG_MAP, "default").items) == 5
    assert len(here.server.seen) == 3
    first, request = here.server.objects.version, here.api._request

    def compacts(*words, **more):
        if len(words) > 2 and "continue" in (words[2] or {}) and here.server.objects.oldest <= first:
            here.api.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "y"}}, "default")
            here.server.objects.oldest = here.server.objects.version
        return request(*words, **more)

    monkeypatch.setattr(here.api, "_request", compacts)
    assert len(here.api.list(CONFIG_MAP, "default").items) == 6
