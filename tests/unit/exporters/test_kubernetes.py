"""A deployment as objects of Kubernetes: each field with a reason in docs/explanation/kubernetes-objects.md."""

import dataclasses
from types import SimpleNamespace

import pytest

from corten.core.canary import Canary
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.reference import Reference
from corten.core.resources import Resources
from corten.core.rest import Strategy
from corten.errors import UsageError
from corten.exporters.base import Addition, Cluster, SecretVariable, Workload
from corten.exporters.kubernetes import Kubernetes
from corten.exporters.manifests.whole import objects

IMAGE = Reference("ghcr.io", "team/fraud", digest=Digest.of(b"image"))
WEIGHTS = Reference("ghcr.io", "team/fraud-weights", digest=Digest.of(b"weights"))


def workload(cluster=None, **parts):
    settings = {
        key: parts.pop(key) for key in list(parts) if key in {field.name for field in dataclasses.fields(Settings)}
    }
    return Workload("fraud", IMAGE, Settings(**settings), cluster=Cluster(**(cluster or {})), **parts)


def rendered(*additions, cluster=None, **parts):
    """The objects by kind and name, as attributes for those that are alone."""
    made = objects(workload({**(cluster or {}), "additions": frozenset(additions)}, **parts))
    return SimpleNamespace(
        all=made,
        kinds=[one["kind"] for one in made],
        get=lambda kind, name="fraud": next(o for o in made if (o["kind"], o["metadata"]["name"]) == (kind, name)),
    )


def pod(**parts):
    return rendered(**parts).get("Deployment")["spec"]["template"]["spec"]


def container(**parts):
    return pod(**parts)["containers"][0]


def test_the_same_workload_gives_the_same_bytes():
    once, again = (Kubernetes().render(workload(env={"B": "2", "A": "1"})) for _ in range(2))
    assert once == again == Kubernetes().render(workload(env={"A": "1", "B": "2"}))


def test_a_plain_deployment_is_four_objects_and_the_policy_comes_before_the_pods():
    assert rendered().kinds == ["ServiceAccount", "NetworkPolicy", "Service", "Deployment"]


def test_the_image_is_named_by_its_digest():
    assert container()["image"] == f"ghcr.io/team/fraud@{IMAGE.digest}"


def test_no_number_of_replicas_where_a_scaler_owns_it():
    assert rendered(replicas=3).get("Deployment")["spec"]["replicas"] == 3
    assert "replicas" not in rendered(replicas=2, most_replicas=8).get("Deployment")["spec"]


def test_no_dip_in_a_rollout_and_no_wait_without_end():
    spec = rendered(ready_timeout_s=90.0).get("Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}
    assert spec["progressDeadlineSeconds"] == 150
    assert spec["revisionHistoryLimit"] == 5


def test_without_room_for_one_more_one_ends_before_the_next_starts():
    spec = rendered(strategy=Strategy.SWAP, replicas=2).get("Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    with pytest.raises(UsageError) as caught:
        rendered(strategy=Strategy.SWAP)
    assert caught.value.code == "render.unsupported"


def test_the_pod_passes_restricted_and_has_no_token():
    spec = pod()
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["hostUsers"] is False
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_probes_ask_the_model_and_liveness_does_not_depend_on_it():
    found = container(ready_timeout_s=45.0)
    assert found["startupProbe"]["httpGet"]["path"] == found["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert found["startupProbe"]["failureThreshold"] * found["startupProbe"]["periodSeconds"] == 45
    assert found["livenessProbe"]["httpGet"]["path"] == "/livez"


def test_a_pod_lingers_until_all_nodes_know_and_drains_within_its_grace():
    spec = pod(drain_s=20.0)
    assert spec["terminationGracePeriodSeconds"] == 5 + 20 + 10
    assert spec["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}


def test_old_clusters_get_only_fields_they_know():
    old = pod(cluster={"version": (1, 29)})
    assert old["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][0] == "/usr/bin/python3"
    assert "hostUsers" not in old
    assert "hostUsers" not in pod(cluster={"user_namespaces": False})


def test_memory_is_limited_where_it_was_named_and_processors_never():
    found = container(resources=Resources(memory_bytes=1000 << 20, cpus=1.5))["resources"]
    assert found["requests"]["memory"] == "800Mi"
    assert found["limits"]["memory"] == "1000Mi"
    assert found["requests"]["cpu"] == "1500m"
    assert "cpu" not in found["limits"]
    assert "memory" not in container()["resources"]["limits"]


def test_gpus_are_limited_and_their_nodes_tolerated():
    spec = pod(resources=Resources(gpus=2))
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_another_environment_has_another_name_and_the_pods_follow_it():
    first, second = (rendered(env={"A": value}) for value in "12")
    names = [next(o for o in r.all if o["kind"] == "ConfigMap")["metadata"]["name"] for r in (first, second)]
    assert names[0] != names[1]
    used = first.get("Deployment")["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]
    assert used == names[0]
    assert first.get("ConfigMap", names[0])["immutable"] is True


def test_secrets_are_named_and_never_written():
    variables = container(secrets=(SecretVariable("TOKEN", "hub", "token"),))["env"]
    assert {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}} in variables


def test_weights_are_a_volume_where_the_cluster_has_image_volumes_and_else_those_of_the_image():
    spec = pod(weights=WEIGHTS, cluster={"version": (1, 35)})
    assert {"name": "weights", "image": {"reference": str(WEIGHTS), "pullPolicy": "IfNotPresent"}} in spec["volumes"]
    assert {"name": "CORTEN_MODELS_DIR", "value": "/weights/models"} in spec["containers"][0]["env"]
    old = pod(weights=WEIGHTS, cluster={"version": (1, 34)})
    assert [volume["name"] for volume in old["volumes"]] == ["tmp"]
    assert all(variable["name"] != "CORTEN_MODELS_DIR" for variable in old["containers"][0]["env"])


def test_one_replica_has_no_budget_that_would_block_a_drain():
    assert "PodDisruptionBudget" not in rendered().kinds
    assert rendered(replicas=2).get("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_nothing_comes_in_but_from_here_and_who_measures_and_nothing_goes_out():
    spec = rendered().get("NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == []
    assert spec["ingress"][0]["from"][0] == {"podSelector": {}}
    assert "kube-system" in str(spec["ingress"][0]["from"][1])
    assert len(spec["ingress"][0]["from"]) == 2


def test_egress_goes_anywhere_but_to_the_credentials_of_the_machine():
    out = rendered(egress=True).get("NetworkPolicy")["spec"]["egress"]
    blocks = [peer["ipBlock"] for rule in out for peer in rule["to"] if "ipBlock" in peer]
    assert blocks[0] == {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}


def test_a_gateway_shares_requests_out_by_weight_between_two_services():
    seen = rendered(Addition.GATEWAY_API, cluster={"gateway": "infra/public"}, pinnable=True)
    route = seen.get("HTTPRoute")["spec"]
    assert route["parentRefs"] == [{"name": "public", "namespace": "infra"}]
    assert [(ref["name"], ref["weight"]) for ref in route["rules"][1]["backendRefs"]] == [
        ("fraud", 100),
        ("fraud-canary", 0),
    ]
    assert route["rules"][0]["matches"][0]["headers"] == [{"name": "x-corten-revision", "value": "canary"}]
    assert seen.get("Service")["spec"]["selector"] == {"corten.dev/deployment": "fraud", "corten.dev/track": "stable"}
    assert seen.get("Service", "fraud-canary")["spec"]["selector"]["corten.dev/track"] == "canary"


def test_without_one_the_service_leads_to_both_tracks_so_that_their_numbers_share_the_requests():
    assert rendered().get("Service")["spec"]["selector"] == {"corten.dev/deployment": "fraud"}


def test_the_prefix_of_the_path_is_the_gateways_affair_and_a_host_needs_none():
    by_path = rendered(Addition.GATEWAY_API, cluster={"gateway": "public"}).get("HTTPRoute")["spec"]
    assert by_path["rules"][0]["matches"] == [{"path": {"type": "PathPrefix", "value": "/fraud"}}]
    assert by_path["rules"][0]["filters"][0]["type"] == "URLRewrite"
    by_host = rendered(Addition.GATEWAY_API, cluster={"gateway": "public"}, host="f.example.com").get("HTTPRoute")[
        "spec"
    ]
    assert by_host["hostnames"] == ["f.example.com"]
    assert "filters" not in by_host["rules"][0]


def test_replicas_follow_the_processors_of_the_model_alone():
    spec = rendered(replicas=2, most_replicas=8).get("HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 8)
    assert spec["metrics"][0]["containerResource"]["container"] == "model"
    assert "tolerance" not in spec["behavior"]["scaleUp"]
    newer = rendered(replicas=2, most_replicas=8, cluster={"version": (1, 35)}).get("HorizontalPodAutoscaler")["spec"]
    assert newer["behavior"]["scaleUp"]["tolerance"] == "50m"


def test_with_keda_they_follow_the_requests_in_flight_of_each_pod():
    spec = rendered(Addition.KEDA, replicas=1, most_replicas=8, concurrency=10).get("ScaledObject")["spec"]
    metadata = spec["triggers"][0]["metadata"]
    assert metadata["valueLocation"] == "corten_in_flight"
    assert metadata["targetValue"] == "7"
    assert ":8080/" in metadata["url"]  # the pods' port, as KEDA asks them one by one
    assert spec["fallback"]["behavior"] == "currentReplicas"
    peers = rendered(Addition.KEDA, replicas=1, most_replicas=8).get("NetworkPolicy")["spec"]["ingress"][1]["from"]
    assert "keda" in str(peers)


def test_zero_replicas_need_somebody_who_holds_the_first_request():
    with pytest.raises(UsageError) as caught:
        rendered(Addition.KEDA, replicas=0, most_replicas=4)
    assert caught.value.code == "render.unsupported"
    assert "keda-http" in caught.value.hint
    seen = rendered(Addition.KEDA_HTTP, replicas=0, most_replicas=4, host="f.example.com")
    assert seen.get("InterceptorRoute")["spec"]["rules"] == [{"hosts": ["f.example.com"]}]
    assert seen.get("ScaledObject")["spec"]["minReplicaCount"] == 0


def test_an_older_add_on_gets_one_object_that_is_route_and_scaler():
    seen = rendered(Addition.KEDA_HTTP_ALPHA, replicas=0, most_replicas=4, host="f.example.com")
    held = seen.get("HTTPScaledObject")["spec"]
    assert held["hosts"] == ["f.example.com"]
    assert held["replicas"] == {"min": 0, "max": 4}
    assert held["scaleTargetRef"]["service"] == "fraud"
    assert not {"ScaledObject", "InterceptorRoute"} & set(seen.kinds)
    assert "replicas" not in seen.get("Deployment")["spec"]
    assert "keda" in str(seen.get("NetworkPolicy")["spec"]["ingress"])


def test_the_prometheus_operator_gets_objects_and_others_annotations():
    seen = rendered(Addition.PROMETHEUS)
    assert {"ServiceMonitor", "PrometheusRule"} <= set(seen.kinds)
    assert "prometheus.io/scrape" not in seen.get("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert rendered().get("Deployment")["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "8080"


@pytest.mark.parametrize(
    "asked", [{"auth": "token"}, {"rate_per_s": 5}, {"canary": Canary(mirror=10)}, {"canary": Canary(sticky="x-user")}]
)
def test_what_only_our_own_gateway_does_is_refused_and_not_left_out(asked):
    with pytest.raises(UsageError) as caught:
        rendered(**asked)
    assert caught.value.code == "render.unsupported"


def test_a_route_past_the_one_who_holds_the_first_request_is_refused():
    with pytest.raises(UsageError) as caught:
        rendered(
            Addition.KEDA_HTTP,
            Addition.GATEWAY_API,
            replicas=0,
            most_replicas=4,
            host="f.example.com",
            cluster={"gateway": "infra/public"},
        )
    assert "interceptor" in caught.value.hint


@pytest.mark.parametrize("asked", [{"cluster": {"gateway": "infra/public"}}, {"host": "f.example.com"}])
def test_a_way_in_that_leads_nowhere_is_refused(asked):
    with pytest.raises(UsageError) as caught:
        rendered(**asked)
    assert caught.value.code == "render.unsupported"


def test_files_are_named_after_their_objects_in_the_order_of_creation():
    assert list(Kubernetes().render(workload())) == [
        "serviceaccount-fraud.yaml",
        "networkpolicy-fraud.yaml",
        "service-fraud.yaml",
        "deployment-fraud.yaml",
    ]
