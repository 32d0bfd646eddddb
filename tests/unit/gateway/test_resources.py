import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.access import Access, Auth, Issuer, Trust
from corten.core.front import Front
from corten.core.route import DeploymentRoute, Endpoint, RevisionRoute, RouteTable
from corten.gateway import access, hold, listener, resources, shape

GOLDEN = Path(__file__).with_name("resources.golden.json")

names = st.from_regex(r"[a-z0-9](?:[-a-z0-9]{0,8}[a-z0-9])?", fullmatch=True)
endpoints = st.builds(
    Endpoint,
    address=st.one_of(
        st.integers(0, 20).map(lambda n: f"/run/{n}.sock"), st.integers(1, 65535).map(lambda n: f"127.0.0.1:{n}")
    ),
    draining=st.booleans(),
)
revisions = st.builds(
    RevisionRoute,
    revision=st.integers(1, 9).map(lambda n: f"r{n}"),
    weight=st.integers(0, 100),
    endpoints=st.lists(endpoints, max_size=4, unique_by=lambda endpoint: endpoint.address).map(tuple),
)
accesses = st.builds(
    Access,
    auth=st.sampled_from(Auth),
    rate_per_s=st.integers(0, 10_000),
    burst=st.integers(0, 10_000),
    pinnable=st.booleans(),
)
deployments = st.builds(
    DeploymentRoute,
    deployment=names,
    revisions=st.lists(revisions, max_size=3, unique_by=lambda share: share.revision).map(tuple),
    max_body_bytes=st.integers(1, 1 << 30),
    timeout_s=st.floats(0.001, 1e6),
    access=accesses,
)
tables = st.builds(RouteTable, st.lists(deployments, max_size=4, unique_by=lambda route: route.deployment).map(tuple))


def everything(table):
    ends = resources.endpoints_by_cluster(table)
    return {
        "clusters": resources.clusters(ends),
        "endpoints": [resources.load_assignment(name, ends[name]) for name in sorted(ends)],
        "routes": resources.route_configuration(table),
    }


def routes_of(table):
    found = resources.route_configuration(table)["virtual_hosts"]
    return [route for host in found for route in host["routes"]]


def targets(route):
    if "route" not in route:
        return []
    action = route["route"]
    if "cluster_header" in action:
        return []
    if "cluster" in action:
        return [(action["cluster"], None)]
    return [(target["name"], target["weight"]) for target in action["weighted_clusters"]["clusters"]]


def test_the_configuration_of_a_small_site_is_the_golden_one():
    """After a change that is meant: `python tests/unit/gateway/test_resources.py` writes the file anew; read its diff."""
    assert golden() == json.loads(GOLDEN.read_text())


def golden():
    table = RouteTable(
        (
            DeploymentRoute(
                "iris",
                (
                    RevisionRoute("r1", 95, (Endpoint("/run/a.sock"), Endpoint("/run/b.sock", draining=True))),
                    RevisionRoute("r2", 5, (Endpoint("127.0.0.1:9000"),)),
                ),
                max_body_bytes=1000,
                timeout_s=2.5,
                access=Access(pinnable=True),
            ),
            DeploymentRoute("asleep", (RevisionRoute("r1", 0, ()),), hold_s=60.0, grpc=True),
            DeploymentRoute("gone", (RevisionRoute("r1", 100, ()),)),
        )
    )
    bootstrap = listener.bootstrap(
        node="corten-1",
        admin_socket=Path("/run/envoy.sock"),
        xds_socket=Path("/run/xds.sock"),
        mirror_socket=Path("/run/mirror.sock"),
        hold_socket=Path("/run/hold.sock"),
        downstream_connections=1000,
    )
    waiting = hold.with_activator(resources.load_assignment("iris/r1", ()), Path("/run/hold.sock"))
    front = listener.listener(Front(), Path("/state/access.log"))
    return {**everything(table), "listener": front, "bootstrap": bootstrap, "activator": waiting}


@given(tables, st.randoms(use_true_random=False))
def test_the_same_table_gives_the_same_bytes_in_whatever_order_it_is_told(table, chance):
    def shuffled(items):
        return tuple(chance.sample(items, len(items)))

    other = RouteTable(
        shuffled(
            [
                DeploymentRoute(
                    route.deployment,
                    route.revisions,
                    max_body_bytes=route.max_body_bytes,
                    timeout_s=route.timeout_s,
                    access=route.access,
                )
                for route in table.deployments
            ]
        )
    )
    assert json.dumps(everything(other)) == json.dumps(everything(table))


@given(tables)
def test_every_route_leads_to_a_cluster_that_exists_and_weights_add_up(table):
    known = {cluster["name"] for cluster in resources.clusters(resources.endpoints_by_cluster(table))}
    for route in routes_of(table):
        chosen = targets(route)
        assert {name for name, _ in chosen} <= known
        weights = [weight for _, weight in chosen if weight is not None]
        assert not weights or sum(weights) > 0


@given(tables)
def test_traffic_goes_only_to_revisions_with_an_upstream_that_takes_requests(table):
    active = {
        name
        for name, ends in resources.endpoints_by_cluster(table).items()
        if any(not endpoint.draining for endpoint in ends)
    }
    weighted = {name for route in routes_of(table) for name, weight in targets(route) if weight is not None}
    assert weighted <= active


@given(tables)
def test_names_are_sorted_and_hosts_are_unique(table):
    found = everything(table)
    cluster_names = [cluster["name"] for cluster in found["clusters"]]
    assert cluster_names == sorted(set(cluster_names))
    hosts = [domain for host in found["routes"]["virtual_hosts"] for domain in host["domains"]]
    assert len(hosts) == len(set(hosts))


@given(tables)
def test_a_deployment_can_be_pinned_only_where_that_is_enabled(table):
    for route in table.deployments:
        found = routes_of(RouteTable((route,)))
        pins = [each for each in found if "headers" in each["match"] and "route" in each]
        open_to_all = route.access.auth is Auth.NONE
        takers = [share for share in route.revisions if any(not each.draining for each in share.endpoints)]
        asleep = not any(share.weight for share in takers)
        asked_for = [share for share in route.revisions if share in takers or (asleep and not share.gone)]
        assert len(pins) == (2 * len(asked_for) if route.access.pinnable and open_to_all else 0)


def test_what_is_not_pure_is_sent_again_only_if_no_replica_began_with_it():
    for pure in (True, False):
        share = RevisionRoute("r1", 1, (Endpoint("/run/a.sock"),))
        found = routes_of(RouteTable((DeploymentRoute("iris", (share,), pure=pure),)))
        policies = [route["route"]["retry_policy"] for route in found if "route" in route]
        assert policies
        for reasons in (set(each["retry_on"].split(",")) for each in policies):
            assert ("reset" in reasons) is pure
            assert {"connect-failure", "retriable-headers", "reset" if pure else "reset-before-request"} <= reasons


def test_who_asks_how_one_at_rest_is_hears_that_it_is_well_and_wakes_nobody():
    asleep = DeploymentRoute("iris", (RevisionRoute("r1", 0, ()),), hold_s=60.0, resting=True)
    for route in (asleep, replace(asleep, resting=False)):
        health = [
            each for each in routes_of(RouteTable((route,))) if each["match"].get("path", "")[-5:] in ("livez", "eadyz")
        ]
        assert len(health) == 4
        assert {each["direct_response"]["status"] for each in health} == {200 if route.resting else 503}
    awake = replace(asleep, revisions=(RevisionRoute("r1", 1, (Endpoint("/run/a.sock"),)),), resting=False)
    health = [
        each for each in routes_of(RouteTable((awake,))) if each["match"].get("path", "")[-5:] in ("livez", "eadyz")
    ]
    assert all("weighted_clusters" in each["route"] for each in health)


@given(tables, st.sampled_from([Trust(), Trust(("{}",)), Trust(issuers=(Issuer("i", "a", "{}"),))]))
def test_whoever_has_no_token_reaches_only_health_of_what_asks_for_one(table, trust):
    guarded = {route.deployment for route in table.deployments if route.access.auth is Auth.TOKEN}
    found = resources.route_configuration(RouteTable(table.deployments, trust))
    for route in (route for host in found["virtual_hosts"] for route in host["routes"]):
        reached = {name.partition("/")[0] for name, _ in targets(route)}
        held = "cluster_header" in route.get("route", {})
        if not reached & guarded and not (held and guarded == {each.deployment for each in table.deployments}):
            continue
        asked = set(route["typed_per_filter_config"])
        health = route["match"].get("path", "").endswith(("/livez", "/readyz"))
        assert health or {access.TOKENS_NAME, access.RBAC_NAME} <= asked
        assert health or trust.anybody


@given(st.integers(1, 1_000_000), st.integers(0, 1_000_000))
def test_a_bucket_gives_its_rate_and_is_filled_as_often_as_envoy_can(rate_per_s, burst):
    route = DeploymentRoute("m", (), access=Access(rate_per_s=rate_per_s, burst=burst))
    (bucket,) = (each["token_bucket"] for each in access.rates([route])["typed_config"]["descriptors"])
    every_s = float(bucket["fill_interval"].removesuffix("s"))
    assert every_s >= 0.05 - 1e-9
    assert bucket["tokens_per_fill"] / every_s == pytest.approx(rate_per_s, rel=1e-6)
    assert bucket["max_tokens"] == (burst or rate_per_s)


@given(tables)
def test_all_else_is_not_found_and_says_nothing(table):
    assert routes_of(table)[-1] == {"match": {"prefix": "/"}, "direct_response": {"status": 404}}


@given(st.text(max_size=40))
def test_any_address_gives_a_resource_envoy_can_judge(text):
    assert set(shape.address(text)) in ({"pipe"}, {"socket_address"})


def test_an_ipv6_address_loses_its_brackets():
    assert shape.address("[::1]:80") == {"socket_address": {"address": "::1", "port_value": 80}}


def test_grpc_has_clusters_of_its_own_that_speak_http_2_and_routes_by_host_or_header():
    endpoints = (Endpoint("/run/a/s"), Endpoint("/run/b/s", draining=True))
    table = RouteTable((DeploymentRoute("iris", (RevisionRoute("r1", 1, endpoints),), grpc=True),))
    upstreams = resources.endpoints_by_cluster(table)
    assert upstreams["iris/r1-grpc"] == (Endpoint("/run/a/g"), Endpoint("/run/b/g", draining=True))
    plain, other = resources.clusters(upstreams)
    assert "grpc_health_check" in other["health_checks"][0]
    assert "http2_protocol_options" in json.dumps(other)
    assert "http2_protocol_options" not in json.dumps(plain)
    by_host, by_path = resources.route_configuration(table)["virtual_hosts"]
    for routes, headers in ((by_host["routes"], 0), (by_path["routes"], 1)):
        first = routes[0]
        assert first["match"]["prefix"] == "/inference.GRPCInferenceService/"
        assert len(first["match"].get("headers", ())) == headers
        assert first["route"]["weighted_clusters"]["clusters"][0]["name"] == "iris/r1-grpc"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n")
