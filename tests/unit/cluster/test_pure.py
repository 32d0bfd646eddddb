"""Counting what pods answered, comparing what is there with what was wanted, sharing by numbers of pods."""

from hypothesis import given
from hypothesis import strategies as st

from corten.cluster.canary import ratio
from corten.cluster.counting import read, total
from corten.cluster.differing import differences
from corten.core.traffic import Traffic
from corten.exporters.base import Addition, Cluster
from corten.exporters.manifests.rbac import role
from corten.serve.meters import Meters

TEXT = """\
# HELP corten_requests_total x
corten_requests_total{code="200"} 90
corten_requests_total{code="422"} 5
corten_requests_total{code="499"} 7
corten_requests_total{code="500"} 3
corten_request_seconds_bucket{le="0.1"} 60
corten_request_seconds_bucket{le="1"} 95
corten_request_seconds_bucket{le="+Inf"} 98
corten_request_seconds_sum 12.5
corten_in_flight 2
"""


IMAGE = {'k:{"name":"m"}': {".": {}, "f:image": {}}}


def test_a_pods_metrics_are_traffic_and_who_left_counts_for_nobody():
    assert read(TEXT) == Traffic(98, 3, 5, 98, ((0.1, 60), (1.0, 95)), 12.5, 2)


def test_several_pods_are_one():
    assert total([read(TEXT), read(TEXT)]) == Traffic(196, 6, 10, 196, ((0.1, 120), (1.0, 190)), 25.0, 4)
    assert total([]) == Traffic()


@given(stable=st.integers(1, 64), share=st.integers(1, 99))
def test_a_share_in_pods_is_as_near_as_whole_pods_come(stable, share):
    pods = ratio(stable, share)
    off = abs(pods / (pods + stable) - share / 100)
    assert pods >= 1
    assert all(
        off <= abs(other / (other + stable) - share / 100) + 0.02 for other in (pods - 1, pods + 1) if other >= 1
    )


def test_only_what_was_wanted_is_compared_and_amounts_by_what_they_mean():
    wanted = {
        "kind": "Deployment",
        "metadata": {"name": "x", "labels": {"a.b/c": "1"}},
        "spec": {
            "list": [],
            "containers": [{"name": "m", "image": "i", "resources": {"limits": {"memory": "2048Mi"}}}],
        },
    }
    found = {
        "kind": "Deployment",
        "metadata": {
            "name": "x",
            "labels": {"a.b/c": "1", "other": "2"},
            "managedFields": [
                {"manager": "kubectl-edit", "fieldsV1": {"f:spec": {"f:template": {}, "f:containers": IMAGE}}},
                # As a real cluster has it on every Deployment.
                {
                    "manager": "kube-controller-manager",
                    "fieldsV1": {"f:metadata": {"f:annotations": {}}, "f:status": {}},
                },
            ],
        },
        "spec": {
            "containers": [
                {"name": "side"},
                {"name": "m", "image": "other", "resources": {"limits": {"memory": "2Gi"}}},
            ]
        },
    }
    (only,) = differences(wanted, found)
    assert (only.path, only.wanted, only.found) == ("spec.containers[m].image", "i", "other")
    assert only.owners == ("kubectl-edit",)
    assert differences(wanted, None)[0].wanted == "there"


def test_a_field_that_nobody_owns_is_nobodys():
    wanted = {"kind": "Deployment", "metadata": {"name": "x"}, "spec": {"replicas": 1, "selector": {"a": {"b": "c"}}}}
    managed = [
        {"manager": "kube-controller-manager", "fieldsV1": {"f:status": {"f:replicas": {}}}},
        {"manager": "other", "fieldsV1": {"f:spec": {"f:selector": {}}}},  # an atomic field, with all below it
    ]
    found = {
        **wanted,
        "metadata": {"name": "x", "managedFields": managed},
        "spec": {"replicas": 3, "selector": {"a": 1}},
    }
    assert {one.path: one.owners for one in differences(wanted, found)} == {
        "spec.replicas": (),
        "spec.selector.a": ("other",),
    }


def test_an_item_that_is_gone_is_told_by_its_name():
    wanted = {"kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"name": "http", "port": 80}]}}
    found = {"kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": []}}
    assert [(one.path, one.found) for one in differences(wanted, found)] == [("spec.ports[http]", None)]


def test_the_role_is_of_one_namespace_and_grows_with_the_cluster():
    account, plain, binding = role(Cluster(namespace="models"))
    assert plain["kind"] == "Role"
    assert binding["roleRef"]["name"] == account["metadata"]["name"]
    assert not any("*" in rule["verbs"] + rule["resources"] for rule in plain["rules"])
    more = role(Cluster(additions=frozenset({Addition.GATEWAY_API})))[1]
    assert any("httproutes" in rule["resources"] for rule in more["rules"])


def test_what_a_replica_really_writes_is_read():
    meters = Meters()
    meters.answered([0.004, 0.004, 2.0])
    meters.count(500)
    meters.count(422)
    meters.count(499)
    seen = read(meters.render().decode())
    assert (seen.answered, seen.failed, seen.refused) == (5, 1, 1)
    assert seen.timed == 3
    assert seen.slower_than(1.0) == 1
    assert seen.within[-1][0] == 60.0
