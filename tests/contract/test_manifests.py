"""What is rendered fits the schemas of every version of Kubernetes that is meant, without a field too many."""

import pytest
from hypothesis import given, settings
from workloads import VERSIONS, WORKLOADS

from corten.exporters.kubernetes import Kubernetes
from corten.exporters.manifests.whole import objects

pytestmark = pytest.mark.kubernetes

# Of definitions that are not Kubernetes' own, there are no schemas here.
FOREIGN = ("gateway.networking.k8s.io", "keda.sh", "http.keda.sh", "monitoring.coreos.com")


def validate(manifest, version):
    from kubernetes_validate import validate as strictly

    if not manifest["apiVersion"].startswith(FOREIGN):
        strictly(manifest, ".".join(map(str, version)), strict=True)


# Each example costs a schema of some megabytes.
@settings(max_examples=25)
@given(workload=WORKLOADS)
def test_whatever_is_asked_for_is_made_by_the_rules_and_in_the_words_of_that_version(workload):
    for manifest in objects(workload):
        validate(manifest, workload.cluster.version)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: f"{version[0]}.{version[1]}")
def test_what_is_for_an_old_version_is_right_for_the_newer_ones(version):
    from corten.core.deployment import Settings
    from corten.core.digest import Digest
    from corten.core.reference import Reference
    from corten.exporters.base import Cluster, Workload

    image = Reference("ghcr.io", "team/fraud", digest=Digest.of(b"x"))
    for minimum in (known for known in VERSIONS if known <= version):
        cluster = Cluster(version=minimum, namespace="models")
        scaled = Workload(
            "fraud", image, Settings(replicas=2, most_replicas=8, grpc=True), weights=image, cluster=cluster
        )
        for manifest in objects(scaled):
            validate(manifest, version)


def test_a_strict_schema_would_find_a_field_too_many_and_one_that_comes_later():
    from kubernetes_validate import ValidationError

    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "x", "imagee": "y"}]},
    }
    with pytest.raises(ValidationError):
        validate(pod, (1, 37))


@given(workload=WORKLOADS)
def test_the_text_is_read_as_the_objects_and_is_the_same_each_time(workload):
    import yaml

    files = Kubernetes().render(workload)
    assert files == Kubernetes().render(workload)
    assert [yaml.safe_load(text) for text in files.values()] == objects(workload)
