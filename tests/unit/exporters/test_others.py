"""The same deployment for charts, overlays and what others put on top of Kubernetes."""

import re
from dataclasses import replace

import pytest

from corten.core.canary import Canary
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.reference import Reference
from corten.core.rest import Strategy
from corten.errors import UsageError
from corten.exporters.base import Addition, Cluster, Workload
from corten.exporters.manifests.whole import objects
from corten.plugin import BUILT_IN, find

yaml = pytest.importorskip("yaml")
IMAGE = Reference("ghcr.io", "team/fraud", digest=Digest.of(b"image"))
WEIGHTS = Reference("ghcr.io", "team/fraud-weights", digest=Digest.of(b"weights"))
FULL = Cluster(additions=frozenset({Addition.GATEWAY_API, Addition.PROMETHEUS}), gateway="infra/public")


def workload(cluster=FULL, *, weights=None, host="", **settings):
    return Workload("fraud", IMAGE, Settings(**settings), cluster=cluster, weights=weights, host=host)


def rendered(to, wanted):
    return find("exporters", to)().render(wanted)


def read(files):
    return [yaml.safe_load(text) for text in files.values()]


def alone(files, kind):
    return next(one for one in read(files) if one.get("kind") == kind)


@pytest.mark.parametrize("to", sorted(BUILT_IN["exporters"]))
def test_every_exporter_gives_the_same_bytes_each_time(to):
    once, again = (rendered(to, workload(env={"A": "1"})) for _ in range(2))
    assert list(once.items()) == list(again.items())
    assert all(text.endswith("\n") for text in once.values())


# Charts: rendered by a template engine of forty lines that knows what ours use, and refuses all else.

EXPRESSION = re.compile(r"\{\{ (.*?) \}\}")


def rendered_chart(files, **changed):
    import json

    values = {**yaml.safe_load(files["values.yaml"]), **changed}

    def evaluate(match):
        text = match[1]
        if text == "`{{`":
            return "{{"
        function, path, piped = re.fullmatch(r"(toJson )?\.Values\.([a-zA-Z.]+)( \| quote)?", text).groups()
        value = values
        for step in path.split("."):
            value = value[step]
        return json.dumps(value) if function or piped else str(value)

    return [
        yaml.safe_load(EXPRESSION.sub(evaluate, text)) for path, text in files.items() if path.startswith("templates/")
    ]


@pytest.mark.parametrize(
    "wanted",
    [
        workload(replicas=3, env={"A": "{{ not ours }}"}),
        workload(replicas=2, most_replicas=8, grpc=True),
        workload(host="fraud.example.com", replicas=1),
    ],
    ids=["fixed", "scaled", "host"],
)
def test_a_chart_with_its_own_values_is_the_plain_manifests(wanted):
    made = rendered_chart(rendered("helm", wanted))
    plain = objects(wanted)
    for one in (*made, *plain):
        if one["kind"] == "Deployment":
            assert one["spec"]["template"]["spec"].pop("nodeSelector", {}) == {}
    assert made == plain


def test_a_value_changes_what_it_says_and_nothing_else():
    files = rendered("helm", workload(replicas=3))
    image = {"repository": "other.example.com/fraud", "digest": str(Digest.of(b"other"))}
    made = next(one for one in rendered_chart(files, image=image, replicas=5) if one["kind"] == "Deployment")
    assert made["spec"]["replicas"] == 5
    pod = made["spec"]["template"]
    assert pod["spec"]["containers"][0]["image"] == f"other.example.com/fraud@{image['digest']}"
    assert pod["metadata"]["annotations"]["corten.dev/image"] == f"other.example.com/fraud@{image['digest']}"


def test_an_overlay_says_where_and_which_image_and_the_base_is_of_no_place():
    files = rendered("kustomize", workload(replace(FULL, namespace="models"), replicas=2))
    overlay = yaml.safe_load(files["overlays/fraud/kustomization.yaml"])
    assert overlay["namespace"] == "models"
    assert overlay["images"] == [{"name": "ghcr.io/team/fraud", "digest": str(IMAGE.digest)}]
    base = yaml.safe_load(files["base/kustomization.yaml"])
    assert sorted(f"base/{path}" for path in base["resources"]) == sorted(
        path for path in files if path.startswith("base/") and not path.endswith("kustomization.yaml")
    )
    assert all("namespace" not in one["metadata"] for one in objects(workload(FULL, replicas=2)))


def test_knative_gets_one_service_that_scales_to_zero():
    files = rendered("knative", workload(replicas=0, most_replicas=4, concurrency=10, weights=WEIGHTS))
    service = alone(files, "Service")
    template = service["spec"]["template"]
    assert template["metadata"]["annotations"]["autoscaling.knative.dev/min-scale"] == "0"
    assert template["spec"]["containerConcurrency"] == 10
    container = template["spec"]["containers"][0]
    assert container["securityContext"]["runAsNonRoot"] is True
    assert "lifecycle" not in container
    # Applied again with other settings it is another revision: Knative names it.
    assert "name" not in template["metadata"]
    assert service["spec"]["traffic"] == [{"latestRevision": True, "percent": 100}]
    with pytest.raises(UsageError):
        rendered("knative", workload(grpc=True))


def test_what_knative_takes_behind_a_flag_alone_is_left_out_or_refused():
    template = alone(rendered("knative", workload(weights=WEIGHTS)), "Service")["spec"]["template"]["spec"]
    assert [volume["name"] for volume in template["volumes"]] == ["tmp"]  # no image as a volume
    assert not any("fieldRef" in one.get("valueFrom", {}) for one in template["containers"][0]["env"])
    high = Cluster(priority_class="high")
    with pytest.raises(UsageError) as caught:
        rendered("knative", workload(high))
    assert "podspec-priorityclassname" in caught.value.why
    with pytest.raises(UsageError):
        rendered("knative", workload(strategy=Strategy.SWAP))


def test_pods_of_knative_are_asked_by_its_activator_alone():
    policy = alone(rendered("knative", workload(replicas=0, most_replicas=4)), "NetworkPolicy")["spec"]
    peers = {
        one["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]: {
            port["port"] for port in one["ports"]
        }
        for one in policy["ingress"]
    }
    assert peers["knative-serving"] == {8012, 8112, 9090}
    assert peers["kube-system"] == {8080}
    assert policy["egress"] == []


KNATIVE = frozenset({Addition.KNATIVE})
ADD_ON = frozenset({Addition.KNATIVE, Addition.KEDA, Addition.KEDA_HTTP})


@pytest.mark.parametrize(
    ("additions", "host", "least", "runs"),
    [
        (KNATIVE, "", 0, True),
        (KNATIVE, "", 1, False),
        (ADD_ON, "", 0, True),
        (ADD_ON, "f.example.com", 0, False),
    ],
    ids=["zero", "one", "both", "by-host"],
)
def test_knative_runs_what_may_have_no_replica_unless_a_host_name_means_the_add_on(additions, host, least, runs):
    made = objects(workload(Cluster(additions=additions), host=host, replicas=least, most_replicas=4))
    assert ("serving.knative.dev/v1" in {one["apiVersion"] for one in made}) is runs
    assert ("Deployment" in {one["kind"] for one in made}) is not runs


@pytest.mark.parametrize("to", ["helm", "argo-rollouts"])
def test_what_is_made_of_a_deployment_refuses_what_knative_runs(to):
    with pytest.raises(UsageError) as caught:
        rendered(to, workload(Cluster(additions=KNATIVE), replicas=0, most_replicas=4))
    assert "--to knative" in caught.value.hint


@pytest.mark.parametrize("way", [{"host": "f.example.com"}, {"gateway": "infra/public"}], ids=["host", "gateway"])
def test_a_way_in_that_is_not_knatives_is_refused(way):
    cluster = Cluster(additions=KNATIVE | {Addition.GATEWAY_API}, gateway=way.get("gateway", ""))
    with pytest.raises(UsageError) as caught:
        objects(workload(cluster, host=way.get("host", ""), replicas=0, most_replicas=4))
    assert "DomainMapping" in caught.value.hint


def test_kserve_gets_its_weights_as_the_cluster_can_mount_them():
    new, old = (
        alone(rendered("kserve", workload(Cluster(version=version), weights=WEIGHTS)), "InferenceService")
        for version in ((1, 35), (1, 33))
    )
    variables = [
        {one["name"]: one.get("value") for one in each["spec"]["predictor"]["containers"][0]["env"]}
        for each in (new, old)
    ]
    assert variables[0]["STORAGE_URI"] == f"oci+native://{WEIGHTS}"
    assert variables[1]["STORAGE_URI"] == f"oci://{WEIGHTS}"
    assert variables[0]["CORTEN_MODELS_DIR"] == "/mnt/models/models"
    with pytest.raises(UsageError):
        rendered("kserve", workload(replicas=0, most_replicas=2))


def test_kserve_scales_only_what_the_deployment_lets_it():
    fixed, scaled, hurried = (
        alone(rendered("kserve", workload(**settings)), "InferenceService")["spec"]["predictor"]
        for settings in ({"replicas": 2}, {"replicas": 1, "most_replicas": 4}, {"request_timeout_s": 0.2})
    )
    assert (fixed["minReplicas"], fixed["maxReplicas"]) == (2, 2)
    assert "scaleMetric" not in fixed
    assert (scaled["minReplicas"], scaled["maxReplicas"], scaled["scaleMetric"]) == (1, 4, "cpu")
    assert scaled["deploymentStrategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert hurried["timeout"] == 1, "whole seconds, and 0 would be none"


def test_argo_takes_the_shares_as_steps_and_the_scaler_scales_the_rollout():
    files = rendered("argo-rollouts", workload(replicas=2, most_replicas=8, canary=Canary((5, 25), judged=True)))
    spec = alone(files, "Rollout")["spec"]
    assert [step["setWeight"] for step in spec["strategy"]["canary"]["steps"] if "setWeight" in step] == [5, 25]
    assert spec["progressDeadlineAbort"] is True
    assert spec["strategy"]["canary"]["canaryService"] == "fraud-canary"
    assert alone(files, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"] == "Rollout"
    assert "isNaN" in alone(files, "AnalysisTemplate")["spec"]["metrics"][0]["successCondition"]
    with pytest.raises(UsageError):
        rendered("argo-rollouts", workload(Cluster(), canary=Canary((5,), judged=True)))


@pytest.mark.parametrize("to", sorted(BUILT_IN["exporters"]))
def test_nobody_leaves_tokens_out_silently(to):
    with pytest.raises(UsageError) as caught:
        rendered(to, workload(auth="token"))
    assert caught.value.code == "render.unsupported"
