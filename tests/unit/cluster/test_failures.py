"""What API servers say when they refuse, word for word, and what becomes of it."""

import pytest

from corten.cluster.failures import failure, is_for_ever

SERVER = "https://cluster.example.com:6443"
FORBIDDEN = (
    'deployments.apps "fraud" is forbidden: User "system:serviceaccount:ci:deployer" cannot patch resource "deployments" '
    'in API group "apps" in the namespace "models"'
)
QUOTA = (
    'pods "fraud-7c9d" is forbidden: exceeded quota: team, requested: requests.memory=4Gi, used: requests.memory=14Gi, '
    "limited: requests.memory=16Gi"
)
POD_SECURITY = (
    'pods "x" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container "side" '
    "must set securityContext.allowPrivilegeEscalation=false)"
)
WEBHOOK = (
    'admission webhook "validate.kyverno.svc-fail" denied the request: resource Deployment/models/fraud was blocked'
)
POLICY = (
    "deployments.apps \"fraud\" is forbidden: ValidatingAdmissionPolicy 'signed' with binding 'signed-all' denied request: "
    "images must be signed"
)
TYPED = (
    "failed to create typed patch object (models/fraud; apps/v1, Kind=Deployment): "
    '.spec.template.spec.containers[name="model"].imagee: field not declared in schema'
)
TYPED_TWICE = (
    "failed to create typed patch object (models/fraud; apps/v1, Kind=Deployment): errors:\n"
    '  .spec.template.spec.containers[name="model"].env: duplicate entries for key [name="A"]\n'
    "  .spec.replicas: expected numeric (int or float), got string"
)
STRICT = (
    'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.replica"'
)
SELECTOR = (
    'Deployment.apps "fraud" is invalid: spec.selector: Invalid value: {"matchLabels":{"app":"x"}}: field is immutable'
)
CONFLICT = (
    'Operation cannot be fulfilled on deployments.apps "fraud": the object has been modified; please apply your changes to '
    "the latest version and try again"
)


@pytest.mark.parametrize(
    ("status", "message", "code", "parts"),
    [
        (401, "Unauthorized", "kubernetes.unauthorized", ["--context"]),
        (403, FORBIDDEN, "kubernetes.forbidden", ["system:serviceaccount:ci:deployer", 'resources: ["deployments"]']),
        (403, QUOTA, "kubernetes.quota", ["asked for requests.memory=4Gi", "--memory"]),
        (403, POD_SECURITY, "kubernetes.denied", ["Pod Security", "restricted"]),
        (400, WEBHOOK, "kubernetes.denied", ["validate.kyverno.svc-fail", "was blocked"]),
        (403, WEBHOOK, "kubernetes.denied", ["validate.kyverno.svc-fail"]),
        (422, POLICY, "kubernetes.denied", ["signed", "images must be signed"]),
        (404, 'namespaces "models" not found', "kubernetes.no_namespace", ["kubectl create namespace models"]),
        (404, 'deployments.apps "fraud" not found', "kubernetes.unknown", ["Deployment fraud"]),
        (409, CONFLICT, "kubernetes.conflict", ["again"]),
        (422, SELECTOR, "kubernetes.immutable", ["spec.selector", "--name"]),
        (400, STRICT, "kubernetes.refused", ["spec.replica"]),
        (500, TYPED, "kubernetes.refused", ['containers[name="model"].imagee', "not declared"]),
        (500, TYPED_TWICE, "kubernetes.refused", ["spec.replicas", "expected numeric"]),
        (500, "etcdserver: request timed out", "kubernetes.failed", ["etcdserver"]),
        (429, "too many requests", "kubernetes.busy", ["again"]),
    ],
)
def test_each_refusal_becomes_a_cause_and_a_hint(status, message, code, parts):
    causes = [{"field": "spec.selector"}] if "spec.selector" in message else []
    document = {"kind": "Status", "message": message, "details": {"causes": causes}}
    error = failure(status, document, what="Deployment fraud", server=SERVER)
    assert error.code == code
    told = " ".join(error.as_dict().values())
    assert [part for part in parts if part not in told] == []


def test_the_owner_of_a_field_is_named():
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "argocd-controller" using apps/v1'}
    document = {
        "details": {"causes": [{**cause, "field": ".spec.replicas"}]},
        "message": "Apply failed with 1 conflict",
    }
    error = failure(409, document, what="Deployment fraud", server=SERVER)
    assert (error.code, error.where) == ("kubernetes.owned", ".spec.replicas")
    assert "`argocd-controller`" in error.what


def test_only_what_cannot_get_better_is_not_asked_for_again():
    assert is_for_ever({"message": TYPED})
    assert not is_for_ever({"message": "etcdserver: request timed out"})
    assert not is_for_ever({})
