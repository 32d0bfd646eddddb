"""That the small API server speaks the API of Kubernetes: told by clients that are not ours, kubectl and the official one."""

import json
import os
import subprocess
import time

import pytest
from clusters import image

from corten.core.deployment import Settings
from corten.exporters.base import Cluster, Workload
from corten.exporters.kubernetes import Kubernetes
from corten.exporters.manifests.whole import objects
from corten.testing import Fault

pytestmark = pytest.mark.kubernetes
WORKLOAD = Workload("fraud", image("good"), Settings(replicas=2, env={"A": "1"}), cluster=Cluster(version=(1, 36)))


@pytest.fixture
def cluster(cluster, tmp_path):
    cluster.kubeconfig(tmp_path / "kubeconfig")
    return cluster


@pytest.fixture
def kubectl(cluster, tmp_path):
    env = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}
    told = subprocess.run(["kubectl", "version", "--client", "-o", "json"], env=env, capture_output=True, check=True)
    version = json.loads(told.stdout)["clientVersion"]
    # Old ones would check fields and dry runs themselves, by a document that is not served here.
    old = int(version["minor"].rstrip("+")) < 27
    options = ["--validate=false"] if old else []

    def run(*words, code=0, text=None):
        given = [*words, *(options if words[0] == "apply" else [])]
        done = subprocess.run(["kubectl", *given], env=env, capture_output=True, text=True, input=text, timeout=60)
        assert done.returncode == code, f"{given}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    run.old = old
    return run


def rendered(folder, workload=WORKLOAD):
    folder.mkdir(exist_ok=True)
    for name, text in Kubernetes().render(workload).items():
        (folder / name).write_text(text)
    return str(folder)


@pytest.mark.kubectl
def test_kubectl_applies_what_is_rendered_and_works_with_it(kubectl, cluster, tmp_path):
    folder = rendered(tmp_path / "files")
    if not kubectl.old:
        out = kubectl("apply", "--server-side", "--dry-run=server", "-f", folder)
        assert out.count("serverside-applied (server dry run)") == 6
        assert cluster.names("deployments") == []
    kubectl("apply", "--server-side", "-f", folder)
    assert "successfully rolled out" in kubectl("rollout", "status", "deploy/fraud", "--timeout=30s")
    listed = kubectl("get", "deploy,pods,svc,pdb,cm,netpol", "-o", "name")
    assert {line.partition("/")[0] for line in listed.split()} == {
        "deployment.apps",
        "pod",
        "service",
        "poddisruptionbudget.policy",
        "configmap",
        "networkpolicy.networking.k8s.io",
    }
    assert '{"message":"ready"}' in kubectl("logs", "deploy/fraud")
    assert "scaled" in kubectl("scale", "deploy/fraud", "--replicas=3")
    assert "scaled" in kubectl("scale", "deploy/fraud", "--current-replicas=3", "--replicas=4")
    assert '"kubectl"' in kubectl("apply", "--server-side", "-f", folder, code=1)
    kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
    assert kubectl("get", "deploy/fraud", "-o", "jsonpath={.spec.replicas}") == "2"
    kubectl("label", "deploy/fraud", "team=risk")
    assert kubectl("get", "deploy", "-l", "team in (risk, other)", "-o", "name") == "deployment.apps/fraud\n"
    assert kubectl("get", "deploy", "-l", "team!=risk", "-o", "name") == ""
    kubectl("delete", "-f", folder, "--timeout=30s")
    assert cluster.names("deployments") == []


@pytest.mark.kubectl
def test_kubectl_drains_a_node_as_the_budget_allows(kubectl, cluster, tmp_path):
    kubectl("apply", "--server-side", "-f", rendered(tmp_path / "files"))
    kubectl("rollout", "status", "deploy/fraud", "--timeout=30s")
    kubectl("drain", "node-a", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=30s")
    nodes = json.loads(kubectl("get", "pods", "-o", "json"))["items"]
    assert "node-a" not in {pod["spec"].get("nodeName") for pod in nodes if "deletionTimestamp" not in pod["metadata"]}
    kubectl("uncordon", "node-a")


@pytest.mark.kubectl
def test_kubectl_is_told_of_a_field_too_many(kubectl, tmp_path):
    manifest = next(one for one in objects(WORKLOAD) if one["kind"] == "Deployment")
    manifest["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    out = kubectl("apply", "--server-side", "-f", "-", code=1, text=json.dumps(manifest))
    assert '.spec.template.spec.containers[name="model"].imagee: field not declared in schema' in out


@pytest.fixture
def official(cluster, tmp_path):
    from kubernetes import client, config

    made = config.new_client_from_config(str(tmp_path / "kubeconfig"))
    with made:
        yield client, made


def test_the_official_client_reads_everything_as_its_models_have_it(official, cluster):
    from kubernetes import dynamic

    client, made = official
    anything = dynamic.DynamicClient(made)
    for manifest in objects(WORKLOAD):
        resource = anything.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
        resource.server_side_apply(body=manifest, namespace="default", field_manager="theirs")
    apps, core = client.AppsV1Api(made), client.CoreV1Api(made)
    until_s = time.monotonic() + 30
    while (apps.read_namespaced_deployment_status("fraud", "default").status.available_replicas or 0) < 2:
        assert time.monotonic() < until_s
        time.sleep(0.05)
    deployment = apps.list_namespaced_deployment("default", label_selector="app.kubernetes.io/name=fraud").items[0]
    written = {(entry.manager, entry.subresource) for entry in deployment.metadata.managed_fields}
    assert written == {("theirs", None), ("kube-controller-manager", "status")}
    assert all(entry.time.year >= 2024 for entry in deployment.metadata.managed_fields)
    pods = core.list_namespaced_pod("default").items
    assert [pod.status.container_statuses[0].ready for pod in pods] == [True, True]
    assert core.read_namespaced_pod_log(pods[0].metadata.name, "default") == '{"message":"ready"}\n'
    assert apps.read_namespaced_deployment_scale("fraud", "default").spec.replicas == 2
    apps.patch_namespaced_deployment_scale("fraud", "default", {"spec": {"replicas": 3}})
    assert client.PolicyV1Api(made).read_namespaced_pod_disruption_budget("fraud", "default").status.expected_pods
    pages = core.list_namespaced_config_map("default", limit=1)
    assert len(pages.items) == 1


def test_the_official_client_is_refused_as_by_a_real_one(official, cluster):
    from kubernetes import dynamic, watch
    from kubernetes.client.exceptions import ApiException

    client, made = official
    core = client.CoreV1Api(made)
    config_map = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="x"), data={"a": "1"})
    created = core.create_namespaced_config_map("default", config_map)
    with pytest.raises(ApiException) as caught:
        core.create_namespaced_config_map("default", config_map)
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (409, "AlreadyExists")
    core.patch_namespaced_config_map("x", "default", {"data": {"a": "2"}})
    with pytest.raises(ApiException) as caught:
        core.replace_namespaced_config_map("x", "default", created)  # as it was before the patch
    assert (caught.value.status, json.loads(caught.value.body)["reason"]) == (409, "Conflict")
    resource = dynamic.DynamicClient(made).resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "3"}}
    with pytest.raises(ApiException) as caught:
        resource.server_side_apply(body=body, namespace="default", field_manager="theirs")
    causes = json.loads(caught.value.body)["details"]["causes"]
    assert [(cause["reason"], cause["field"]) for cause in causes] == [("FieldManagerConflict", ".data.a")]
    cluster.objects.oldest = cluster.objects.version + 1
    version = core.list_namespaced_config_map("default").metadata.resource_version
    with pytest.raises(ApiException) as caught:
        list(
            watch.Watch().stream(
                core.list_namespaced_config_map, "default", resource_version=version, timeout_seconds=1
            )
        )
    assert caught.value.status == 410
    cluster.rest.forbidden = {("get", "pods/log")}
    cluster.fault("x", Fault.CRASH)
    with pytest.raises(ApiException) as caught:
        core.read_namespaced_pod_log("any", "default")
    assert caught.value.status == 403
