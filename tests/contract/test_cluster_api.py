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


def test_what_says_that_it_is_immutable_says_so_for_ever(api):
    api.apply(config_map({"a": "1"}, immutable=True), NAMESPACE)
    error = refused("kubernetes.immutable", lambda: api.apply(config_map({"a": "1"}, immutable=False), NAMESPACE))
    assert error.where == "immutable"
    assert "Forbidden: field is immutable when `immutable` is set" in error.why


def test_who_writes_the_number_of_replicas_owns_it(api):
    from corten.cluster.kinds import DEPLOYMENT
    from corten.cluster.objects import set_replicas

    api.apply(deployment(replicas=0), NAMESPACE)
    set_replicas(api, "x", 2, NAMESPACE)
    error = refused("kubernetes.owned", lambda: api.apply(deployment(replicas=1), NAMESPACE))
    assert "`corten-scale`" in error.what
    entries = api.get(DEPLOYMENT, "x", NAMESPACE)["metadata"]["managedFields"]
    (scaled,) = [one for one in entries if one["manager"] == "corten-scale"]
    assert (scaled["operation"], scaled["subresource"], scaled["apiVersion"]) == ("Update", "scale", "apps/v1")
    assert all(time.strptime(one["time"], "%Y-%m-%dT%H:%M:%SZ") for one in entries)


def test_a_conflict_is_told_with_how_its_owner_wrote(api):
    from corten.cluster.kinds import CONFIG_MAP

    def conflict(**data):
        path, body = CONFIG_MAP.path(NAMESPACE, "x"), json.dumps(config_map(data)).encode()
        query = {"fieldManager": "corten"}
        media_type = "application/apply-patch+yaml"
        with pytest.raises(CortenError) as caught:
            api.ask("PATCH", path, query=query, body=body, media_type=media_type)
        return caught.value

    api.ask(
        "POST",
        CONFIG_MAP.path(NAMESPACE),
        query={"fieldManager": "hand"},
        body=json.dumps(config_map({"a": "1"})).encode(),
    )
    api.apply(config_map({"b": "1"}), NAMESPACE, manager="other")
    assert "`hand`" in conflict(a="2").what
    assert "`hand`, `other`" in conflict(a="2", b="2").what


def test_what_is_new_is_told_by_its_status(api):
    from corten.cluster.kinds import CONFIG_MAP

    path, query = CONFIG_MAP.path(NAMESPACE, "x"), {"fieldManager": "corten"}
    body, media_type = json.dumps(config_map({"a": "1"})).encode(), "application/apply-patch+yaml"
    assert [api.ask("PATCH", path, query=query, body=body, media_type=media_type).status for _ in range(2)] == [
        201,
        200,
    ]


def test_a_scale_of_what_has_changed_since_is_a_conflict_and_none_is_below_zero(api):
    from corten.cluster.kinds import DEPLOYMENT
    from corten.cluster.objects import set_replicas

    api.apply(deployment(replicas=0), NAMESPACE)
    path = DEPLOYMENT.path(NAMESPACE, "x", "scale")
    scale = json.loads(api.ask("GET", path).body)
    api.apply(deployment(replicas=0, minReadySeconds=1), NAMESPACE)
    scale["spec"]["replicas"] = 1
    refused("kubernetes.conflict", lambda: api.ask("PUT", path, body=json.dumps(scale).encode()))
    assert refused("kubernetes.refused", lambda: set_replicas(api, "x", -1, NAMESPACE)).where == "spec.replicas"
    assert api.get(DEPLOYMENT, "x", NAMESPACE)["spec"]["replicas"] == 0


def test_a_watch_from_no_version_is_refused(api):
    from corten.cluster.kinds import DEPLOYMENT

    error = refused("kubernetes.refused", lambda: list(api.watch(DEPLOYMENT, NAMESPACE, "", "garbage", 1.0)))
    assert error.where == "resourceVersion"


def service(**port):
    spec = {"selector": LABELS, "ports": [{"port": 80, "protocol": "TCP", **port}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": spec}


def container(**parts):
    made = deployment()
    made["spec"]["template"]["spec"]["containers"][0] |= parts
    return made


def autoscaler(most):
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}},
    }
    spec = {"scaleTargetRef": target, "maxReplicas": most, "metrics": [metric]}
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"}, "spec": spec}


PROBE = {"httpGet": {"path": "/livez", "port": 8080}, "periodSeconds": -1}
MORE = {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}
STILL = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}
PORT = [{"containerPort": 8080, "protocol": "TCP", "name": "http_port_too_long"}]
# Planted on a real cluster of 1.36: its dry run found seven of eight, the schemas none.
FAULTS = {
    "selector": (deployment(selector={"matchLabels": {"app": "other"}}), "spec.template.metadata.labels"),
    "maxReplicas": (autoscaler(0), "spec.maxReplicas"),
    "period": (container(livenessProbe=PROBE), "spec.template.spec.containers[0].livenessProbe.periodSeconds"),
    "port": (service(port=80800), "spec.ports[0].port"),
    "surge": (deployment(strategy=STILL), "spec.strategy.rollingUpdate.maxUnavailable"),
    "request": (container(resources=MORE), "spec.template.spec.containers[0].resources.requests"),
    "name": (container(ports=PORT), "spec.template.spec.containers[0].ports[0].name"),
    "nodePort": (service(nodePort=80), ""),
    "replicas": (deployment(replicas=-1), "spec.replicas"),
}


@pytest.mark.parametrize(("manifest", "field"), FAULTS.values(), ids=FAULTS)
def test_a_dry_run_finds_what_means_nothing_but_not_all_of_it(api, manifest, field):
    if not field:
        api.apply(manifest, NAMESPACE, dry_run=True)
        return
    error = refused("kubernetes.refused", lambda: api.apply(manifest, NAMESPACE, dry_run=True))
    assert field in error.where


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
