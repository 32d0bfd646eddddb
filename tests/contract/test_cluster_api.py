"""The API server that tests talk to keeps the rules of the real one: the same suite runs on both.

A real one is taken from KUBECONFIG with `--need k8s`; it gets a namespace of its own, which goes at the end.
"""

import json
import subprocess
import sys
import time

import pytest

from corten.errors import CortenError

pytestmark = pytest.mark.kubernetes
NAMESPACE = "corten-contract"
LABELS = {"corten.dev/deployment": "x", "app.kubernetes.io/managed-by": "corten"}


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.k8s)])
def api(request, tmp_path, monkeypatch):
    from corten.cluster.lightkube_api import connect
    from corten.testing import FakeApiServer

    if request.param == "fake":
        with FakeApiServer() as server:
            server.namespace(NAMESPACE)
            monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
            with connect() as made:
                yield made
        return
    subprocess.run(["kubectl", "create", "namespace", NAMESPACE], check=True, capture_output=True, timeout=60)
    try:
        with connect() as made:
            yield made
    finally:
        subprocess.run(["kubectl", "delete", "namespace", NAMESPACE, "--wait"], capture_output=True, timeout=120)


def config_map(data, **more):
    metadata = {"name": "x", "labels": LABELS}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data, **more}


def deployment(**spec):
    """Of no pods: nothing has to be pulled."""
    container = {"name": "model", "image": "registry.invalid/x", "ports": [{"containerPort": 8080, "protocol": "TCP"}]}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    whole = {"selector": {"matchLabels": {"corten.dev/deployment": "x"}}, "template": template, "replicas": 0, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "labels": LABELS}, "spec": whole}


def refused(code, call):
    with pytest.raises(CortenError) as caught:
        call()
    assert caught.value.code == code, caught.value.as_dict()
    return caught.value


def test_what_is_applied_is_there_is_listed_and_goes(api):
    from corten.cluster.kinds import CONFIG_MAP

    assert api.get(CONFIG_MAP, "x", NAMESPACE) is None
    api.apply(config_map({"a": "1"}), NAMESPACE)
    assert api.get(CONFIG_MAP, "x", NAMESPACE)["data"] == {"a": "1"}
    assert [one["metadata"]["name"] for one in api.list(CONFIG_MAP, NAMESPACE, "corten.dev/deployment=x").items] == [
        "x"
    ]
    assert api.list(CONFIG_MAP, NAMESPACE, "corten.dev/deployment=y").items == ()
    assert api.delete(CONFIG_MAP, "x", NAMESPACE)
    assert not api.delete(CONFIG_MAP, "x", NAMESPACE)


def test_a_dry_run_leaves_nothing(api):
    from corten.cluster.kinds import CONFIG_MAP

    api.apply(config_map({"a": "1"}), NAMESPACE, dry_run=True)
    assert api.get(CONFIG_MAP, "x", NAMESPACE) is None


def test_what_is_not_applied_any_more_goes_unless_somebody_else_owns_it(api):
    api.apply(config_map({"a": "1", "b": "2", "c": "3"}), NAMESPACE)
    api.apply(config_map({"b": "2"}), NAMESPACE, manager="other")
    assert api.apply(config_map({"c": "3"}), NAMESPACE)["data"] == {"b": "2", "c": "3"}


def test_two_may_say_the_same_and_not_two_things(api):
    api.apply(config_map({"a": "1"}), NAMESPACE, manager="other")
    api.apply(config_map({"a": "1"}), NAMESPACE)
    error = refused("kubernetes.owned", lambda: api.apply(config_map({"a": "2"}), NAMESPACE))
    assert "`other`" in error.what
    assert error.where == ".data.a"


def test_what_is_immutable_stays(api):
    api.apply(config_map({"a": "1"}, immutable=True), NAMESPACE)
    refused("kubernetes.immutable", lambda: api.apply(config_map({"a": "2"}, immutable=True), NAMESPACE))
    api.apply(deployment(), NAMESPACE)
    other = deployment(selector={"matchLabels": {"app.kubernetes.io/managed-by": "corten"}})
    assert "spec.selector" in refused("kubernetes.immutable", lambda: api.apply(other, NAMESPACE)).where


def test_who_writes_the_number_of_replicas_owns_it(api):
    from corten.cluster.objects import set_replicas

    api.apply(deployment(replicas=0), NAMESPACE)
    set_replicas(api, "x", 2, NAMESPACE)
    refused("kubernetes.owned", lambda: api.apply(deployment(replicas=1), NAMESPACE))


def test_a_watch_tells_what_changes_after_a_list(api):
    from corten.cluster.kinds import CONFIG_MAP
    from corten.cluster.port import Change

    api.apply(config_map({"a": "1"}), NAMESPACE)
    since = api.list(CONFIG_MAP, NAMESPACE).version
    api.apply(config_map({"a": "2"}), NAMESPACE)
    api.delete(CONFIG_MAP, "x", NAMESPACE)
    seen = []
    for change, one in api.watch(CONFIG_MAP, NAMESPACE, "corten.dev/deployment=x", since, 5.0):
        seen.append((change, one["data"]["a"]))
        if change is Change.DELETED:
            break
    assert seen == [(Change.MODIFIED, "2"), (Change.DELETED, "2")]


def test_a_watch_ends_when_its_time_is_over(api):
    from corten.cluster.kinds import CONFIG_MAP

    begun_s = time.monotonic()
    assert (
        list(api.watch(CONFIG_MAP, NAMESPACE, "corten.dev/deployment=x", api.list(CONFIG_MAP, NAMESPACE).version, 1.0))
        == []
    )
    assert time.monotonic() - begun_s < 10


def test_a_namespace_that_is_not_there_is_told(api):
    refused("kubernetes.no_namespace", lambda: api.apply(config_map({}), "corten-nowhere"))


def test_in_a_namespace_that_is_not_there_nothing_is_found(api):
    from corten.cluster.kinds import CONFIG_MAP

    assert api.list(CONFIG_MAP, "corten-nowhere").items == ()
    assert api.get(CONFIG_MAP, "x", "corten-nowhere") is None


def test_a_page_that_no_list_led_to_is_refused(api):
    from corten.cluster.kinds import CONFIG_MAP

    query = {"limit": "2", "continue": "garbage"}
    error = refused("kubernetes.refused", lambda: api.ask("GET", CONFIG_MAP.path(NAMESPACE), query=query))
    assert "invalid continue token" in error.why


def test_it_says_what_it_is(api):
    from corten.cluster.facts import discover
    from corten.exporters.base import Cluster

    found = discover(api, Cluster())
    assert found.version >= (1, 29)
    assert json.loads(api.ask("GET", "/version").body)["major"] == "1"


def test_the_small_server_is_found_by_its_name_and_only_when_it_is_asked_for():
    code = (
        "import sys, corten.testing as testing\n"
        "assert 'corten.testing.kubernetes' not in sys.modules\n"
        "with testing.FakeApiServer() as server: print(server.url)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("https://127.0.0.1:"), done.stderr
