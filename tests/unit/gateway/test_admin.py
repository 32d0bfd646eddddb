import json

from corten.core.route import Endpoint
from corten.core.traffic import Traffic
from corten.gateway.admin import Upstream, decode_traffic, decode_upstreams


def host(address, *, active="0", **health):
    return {
        "address": address,
        "stats": [{"name": "cx_total"}, {"value": active, "name": "rq_active", "type": "GAUGE"}],
        "health_status": health,
        "weight": 1,
    }


def page(*hosts, name="iris/r1"):
    return json.dumps({"cluster_statuses": [{"name": name, "host_statuses": list(hosts)}, {"name": "xds"}]}).encode()


PIPE = {"pipe": {"path": "/run/a.sock"}}


def test_a_healthy_host_is_routable_with_what_it_has_in_flight():
    found = decode_upstreams(page(host(PIPE, active="3", eds_health_status="HEALTHY")))
    assert found == [Upstream("iris/r1", Endpoint("/run/a.sock"), routable=True, in_flight=3)]


def test_a_host_that_drains_was_not_checked_or_failed_a_check_is_not_routable():
    for health in (
        {"eds_health_status": "DRAINING"},
        {"eds_health_status": "HEALTHY", "failed_active_health_check": True},
        {"eds_health_status": "HEALTHY", "pending_active_hc": True},
        {"eds_health_status": "HEALTHY", "failed_outlier_check": True},
        {},
    ):
        (upstream,) = decode_upstreams(page(host(PIPE, **health)))
        assert not upstream.routable, health
        assert upstream.endpoint.draining == (health.get("eds_health_status") == "DRAINING")


def test_what_it_does_in_the_place_of_another_revision_is_its_own():
    mine = host(PIPE, active="3", eds_health_status="HEALTHY")
    instead = {**host(PIPE, active="2", eds_health_status="HEALTHY"), "priority": 1}
    (found,) = decode_upstreams(page(mine, instead))
    assert found.in_flight == 5


def test_addresses_read_as_they_were_written_in_the_table():
    addresses = (
        {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        {"socket_address": {"address": "::1", "port_value": 80}},
    )
    found = decode_upstreams(page(*(host(address) for address in addresses)))
    assert [upstream.endpoint.address for upstream in found] == ["127.0.0.1:80", "[::1]:80"]


def test_clusters_of_envoys_own_are_not_upstreams():
    assert decode_upstreams(page(host(PIPE), name="xds")) == []
    assert decode_upstreams(b"{}") == []


def sample(name, value, *, deployment="m", revision="r1", **labels):
    told = {
        "envoy_cluster_name": f"{deployment}/{revision}",
        "corten_deployment": deployment,
        "corten_revision": revision,
    }
    text = ",".join(f'{key}="{text}"' for key, text in {**labels, **told}.items())
    return f"envoy_cluster_upstream_rq_{name}{{{text}}} {value}"


def status(number, value, *, revision="r1-grpc"):
    labels = f'envoy_cluster_name="m/{revision}",corten_deployment="m",corten_revision="{revision}"'
    return f"envoy_cluster_grpc_{number}{{{labels}}} {value}"


def test_the_status_of_grpc_says_what_failed_and_what_was_refused():
    page = [
        sample("completed", 100, revision="r1-grpc"),
        sample("xx", 4, revision="r1-grpc", envoy_response_code_class="5"),
        sample("completed", 10),
        sample("xx", 1, envoy_response_code_class="5"),
        *(status(number, 1) for number in (0, 1, 2, 3, 5, 13, 16)),
        status(14, 4),  # the four of 5xx: told twice
    ]
    assert decode_traffic("\n".join(page)) == {("m", "r1"): Traffic(110, failed=7, refused=3)}


def test_traffic_is_counted_by_deployment_and_revision():
    page = [
        "# TYPE envoy_cluster_upstream_rq_completed counter",
        sample("completed", 9),
        sample("xx", 3, envoy_response_code_class="4"),
        sample("xx", 2, envoy_response_code_class="5"),
        sample("time_bucket", 7, le="2.5"),
        sample("time_bucket", 8, le="60000"),
        sample("time_bucket", 9, le="+Inf"),
        sample("time_sum", 11.5),
        sample("active", 3),
        sample("completed", 1, revision="r2"),
        sample("completed", 3, revision="r2-grpc"),
        'envoy_cluster_upstream_rq_completed{envoy_cluster_name="xds"} 7',
        sample("completed", 5).replace("cluster_upstream", "cluster_external_upstream"),
        "",
    ]
    assert decode_traffic("\n".join(page)) == {
        ("m", "r1"): Traffic(
            9, failed=2, refused=3, timed=9, within=((0.0025, 7), (60.0, 8)), busy_s=0.0115, in_flight=3
        ),
        ("m", "r2"): Traffic(4),
    }
