"""Faults of meaning that schemas do not find: each is planted into good objects, and found."""

import copy
from decimal import Decimal

import pytest

from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.reference import Reference
from corten.errors import UsageError
from corten.exporters.base import Addition, Cluster, SecretVariable, Workload
from corten.exporters.manifests.whole import objects
from corten.exporters.quantity import parse_quantity
from corten.exporters.rules import check
from corten.exporters.rules_names import is_label_value, is_name, is_port_name, is_service_name

IMAGE = Reference("ghcr.io", "team/fraud", digest=Digest.of(b"image"))
CLUSTER = Cluster(additions=frozenset({Addition.GATEWAY_API}), gateway="infra/public")
FIXED = objects(Workload("fraud", IMAGE, Settings(replicas=2, env={"A": "1"}), cluster=CLUSTER))
ADDED = objects(
    Workload(
        "fraud",
        IMAGE,
        Settings(replicas=0, most_replicas=4),
        host="f.example.com",
        cluster=Cluster(additions=frozenset({Addition.KEDA_HTTP, Addition.PROMETHEUS})),
    )
)
HELD = objects(
    Workload(
        "fraud",
        IMAGE,
        Settings(replicas=0, most_replicas=4),
        host="f.example.com",
        cluster=Cluster(additions=frozenset({Addition.KEDA_HTTP_ALPHA})),
    )
)
KNATIVE = objects(
    Workload(
        "fraud",
        IMAGE,
        Settings(replicas=0, most_replicas=4),
        revision="r2",
        cluster=Cluster(additions=frozenset({Addition.KNATIVE})),
    )
)
SCALED = objects(Workload("fraud", IMAGE, Settings(replicas=2, most_replicas=4), cluster=CLUSTER))


def broken(path, value, *, kind="Deployment", base=FIXED):
    """The good objects with one field of the first of a kind changed (None: removed)."""
    made = copy.deepcopy(base)
    place = next(one for one in made if one["kind"] == kind)
    steps = [step.replace("~", "/") for step in path.split("/")]
    *way, last = [int(step) if step.isdigit() else step for step in steps]
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return made


def found(manifests):
    return [finding.path for finding in check(manifests)]


POD = "spec/template/spec"
MODEL = f"{POD}/containers/0"
ROUTE = {"kind": "InterceptorRoute", "base": ADDED}
OLD_ROUTE = {"kind": "HTTPScaledObject", "base": HELD}
MONITOR = {"kind": "ServiceMonitor", "base": ADDED}
ALERTS = {"kind": "PrometheusRule", "base": ADDED}
FIRST_ALERT = "spec/groups/0/rules/0"
HPA = {"kind": "HorizontalPodAutoscaler", "base": SCALED}


def test_what_we_render_is_well():
    assert check(FIXED) == check(SCALED) == check(ADDED) == check(HELD) == ()


# The first eight were planted into a real cluster: its dry run found seven of them, strict schemas none.
FAULTS = [
    (broken("spec/selector/matchLabels", {"app": "other"}), "spec.selector"),
    (broken("spec/maxReplicas", 0, **HPA), "spec.maxReplicas"),
    (broken(f"{MODEL}/readinessProbe/periodSeconds", -1), "spec.template.spec.containers[0].readinessProbe.periodSeconds"),
    (broken("spec/ports/0/port", 80800, kind="Service"), "spec.ports[0].port"),
    (broken("spec/strategy/rollingUpdate", {"maxSurge": 0, "maxUnavailable": "0%"}), "spec.strategy.rollingUpdate"),
    (broken(f"{MODEL}/resources/limits/memory", "1Mi"), "spec.template.spec.containers[0].resources.requests.memory"),
    (broken(f"{MODEL}/ports/0/name", "Http_Port"), "spec.template.spec.containers[0].ports[0].name"),
    (broken("spec/ports/0/nodePort", 80, kind="Service"), "spec.ports[0].nodePort"),
    (broken("spec/replicas", 3, base=SCALED), "spec.replicas"),
    (broken("spec/replicas", 1), "spec"),
    (broken("spec", {"minAvailable": "100%", "selector": {"matchLabels": {"corten.dev/deployment": "fraud"}}}, kind="PodDisruptionBudget"), "spec"),
    (broken("spec/maxUnavailable", 0, kind="PodDisruptionBudget"), "spec.maxUnavailable"),
    (broken("spec/ports/0/targetPort", "web", kind="Service"), "spec.ports[0].targetPort"),
    (broken("spec/selector", {"app": "x"}, kind="Service"), "spec.selector"),
    (broken("spec/podSelector", {"matchLabels": {"app": "x"}}, kind="NetworkPolicy"), "spec.podSelector"),
    (broken("spec/minReplicas", 0, **HPA), "spec.minReplicas"),
    (broken("spec/minReplicas", 9, **HPA), "spec.minReplicas"),
    (broken("spec/metrics/0/containerResource/container", "other", **HPA), "spec.metrics[0]"),
    (broken("spec/scaleTargetRef/name", "other", **HPA), "spec.scaleTargetRef"),
    (broken(f"{MODEL}/resources/requests/cpu", None, base=SCALED), "spec.metrics[0]"),
    (broken(f"{MODEL}/resources/requests/cpu", "lots"), "spec.template.spec.containers[0].resources.requests.cpu"),
    (broken(f"{MODEL}/livenessProbe/httpGet/port", "web"), "spec.template.spec.containers[0].livenessProbe.httpGet.port"),
    (broken(f"{POD}/volumes", []), "spec.template.spec.containers[0].volumeMounts[0]"),
    (broken(f"{POD}/terminationGracePeriodSeconds", 5), "spec.template.spec.containers[0].lifecycle.preStop"),
    (broken("spec/progressDeadlineSeconds", 5), "spec.progressDeadlineSeconds"),
    (broken("spec/rules/0/backendRefs/0/name", "other", kind="HTTPRoute"), "spec.rules[0].backendRefs[0]"),
    (broken("spec/rules/0/backendRefs/0/weight", 0, kind="HTTPRoute"), "spec.rules[0]"),
    (broken("metadata/name", "3fraud", kind="Service"), "metadata.name"),
    (broken("metadata/labels/x", "a b"), "metadata.labels.x"),
    ([*FIXED, FIXED[0]], "metadata.name"),
    (broken("spec/target/service", "other", **ROUTE), "spec.target.service"),
    (broken("spec/target/port", 8080, **ROUTE), "spec.target.port"),
    (broken("spec/rules", [], **ROUTE), "spec.rules"),
    (broken("spec/rules/0/hosts/0", "http://f", **ROUTE), "spec.rules"),
    (broken("spec/triggers/0/metadata/interceptorRoute", "other", kind="ScaledObject", base=ADDED), "metadata.name"),
    (broken("spec/replicas", 1, base=HELD), "spec.replicas"),
    (broken("spec/replicas/max", 0, **OLD_ROUTE), "spec.replicas"),
    (broken("spec/scaleTargetRef/name", "other", **OLD_ROUTE), "spec.scaleTargetRef"),
    (broken("spec/scaleTargetRef/port", 81, **OLD_ROUTE), "spec.scaleTargetRef.port"),
    (broken("spec/selector/matchLabels", {"app": "x"}, **MONITOR), "spec.selector"),
    (broken("spec/endpoints/0/port", "metrics", **MONITOR), "spec.endpoints[0].port"),
    (broken("spec/endpoints/0/interval", "15", **MONITOR), "spec.endpoints[0].interval"),
    (broken(f"{FIRST_ALERT}/expr", "sum(rate(x[5m])", **ALERTS), "spec.groups[0].rules[0].expr"),
    (broken(f"{FIRST_ALERT}/expr", " ", **ALERTS), "spec.groups[0].rules[0].expr"),
    (broken(f"{FIRST_ALERT}/for", "2 minutes", **ALERTS), "spec.groups[0].rules[0].for"),
    (broken(f"{FIRST_ALERT}/labels/corten.dev", "x", **ALERTS), "spec.groups[0].rules[0].labels"),
    (broken(f"{FIRST_ALERT}/alert", "it burns", **ALERTS), "spec.groups[0].rules[0].alert"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("planted", "path"), FAULTS, ids=[f"{number}-{path}" for number, (_, path) in enumerate(FAULTS)]
)
def test_a_planted_fault_is_found_where_it_is(planted, path):
    assert path in found(planted)


def test_what_would_not_work_is_refused_before_anything_is_rendered():
    with pytest.raises(UsageError) as caught:
        objects(Workload("3d", IMAGE))
    assert caught.value.code == "render.invalid"
    assert "--name" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        objects(Workload("fraud", IMAGE, secrets=(SecretVariable("CORTEN_REVISION", "s", "k"),)))
    assert "set twice" in caught.value.why


@pytest.mark.parametrize(
    ("text", "amount"),
    [("250m", "0.25"), ("1.5", "1.5"), ("1Ki", "1024"), ("2G", "2e9"), ("1e3", "1000"), ("5E", "5e18"), (2, "2"), ("", None), ("1 Gi", None), ("Mi", None)],
)  # fmt: skip
def test_amounts_are_read_as_kubernetes_reads_them(text, amount):
    assert parse_quantity(text) == (None if amount is None else Decimal(amount))


def in_knatives(path, value):
    return found(broken(path, value, kind="Service", base=KNATIVE))


def test_a_service_of_knatives_has_rules_of_its_own():
    assert found(KNATIVE) == []
    assert in_knatives("spec/template/metadata/name", "other-r2") == ["spec.template.metadata.name"]
    assert in_knatives("spec/traffic/0/percent", 90) == ["spec.traffic"]
    annotations = "spec/template/metadata/annotations"
    assert in_knatives(f"{annotations}/autoscaling.knative.dev~min-scale", "9") == [annotations.replace("/", ".")]
    assert in_knatives(f"{MODEL}/ports/0/name", "http") == ["spec.template.spec.containers"]
    two = [{"containerPort": 8080}, {"containerPort": 9090}]
    assert in_knatives(f"{MODEL}/ports", two) == ["spec.template.spec.containers"]
    assert in_knatives(f"{MODEL}/env/0/name", "K_SERVICE") == ["spec.template.spec.containers"]
    assert in_knatives(f"{MODEL}/resources/requests/memory", "much") == [
        "spec.template.spec.containers[0].resources.requests.memory"
    ]


@pytest.mark.parametrize(
    ("taken", "longest"), [(is_name, 253), (is_service_name, 63), (is_label_value, 63), (is_port_name, 15)]
)
def test_names_may_be_as_long_as_the_api_server_takes_them(taken, longest):
    assert taken("a" * longest)
    assert not taken("a" * (longest + 1))
    assert not taken("a-")
