"""Route table → Envoy v3 resources, as the plain dicts of their proto3 JSON. Pure: same table, same bytes.

Source: Envoy's v3 API. Names: a revision's cluster and endpoints are `DEPLOYMENT/REVISION`; one route configuration,
`main`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from corten.core.access import Access, Auth, Trust
from corten.core.route import DeploymentRoute, Endpoint, RevisionRoute, RouteTable, grpc_address
from corten.gateway import access, hold, mirror
from corten.gateway.shape import TYPES, Resource, address, config_source, seconds

ROUTES_NAME = "main"
CERTIFICATE_NAME = "front"
REVISION_HEADER = "x-corten-revision"
BUFFER_FILTER = "envoy.filters.http.buffer"
GRPC_STATS_FILTER = "envoy.filters.http.grpc_stats"
BUFFER_TYPE = TYPES + "extensions.filters.http.buffer.v3."

# How soon Envoy asks again after an answer: a second change waits this long (up to twice: Envoy adds jitter). While the
# daemon is away every subscription fails as often, at 1 ms of CPU each (Envoy writes 77 kB about itself into every
# poll), so that what changes seldom asks seldom.
ROUTES_REFRESH = ENDPOINTS_REFRESH = "0.025s"
CLUSTERS_REFRESH = "0.050s"
LISTENERS_REFRESH = "1s"


_REPLICA_FIRST_S = 1.0
# Why a request may always be sent again: no replica has begun with it.
_NOT_COMPUTED = "connect-failure,refused-stream,retriable-status-codes,retriable-headers,unavailable"
GRPC = "-grpc"  # at the end of a cluster's name
DEPLOYMENT_HEADER = "x-corten-deployment"
# By full name, not `grpc: {}`: what else comes as application/grpc is not for these sockets.
_GRPC_SERVICES = ("/inference.GRPCInferenceService/", "/grpc.health.v1.Health/")


def cluster_name(deployment: str, revision: str, *, grpc: bool = False) -> str:
    """The name of a revision's cluster, and of its endpoints; the one for gRPC is another, which speaks HTTP/2."""
    return f"{deployment}/{revision}{GRPC if grpc else ''}"


def clusters(names: Iterable[str]) -> list[Resource]:
    """The clusters of that name (`DEPLOYMENT/REVISION`), sorted.

    A cluster depends on nothing but its name: any change would make Envoy build a new one, and lose requests in flight,
    counters and ejections with the old (§4).
    """
    return [_cluster(name) for name in sorted(set(names))]


def endpoints_by_cluster(table: RouteTable) -> dict[str, tuple[Endpoint, ...]]:
    """The endpoints of every revision by cluster name, sorted."""
    found = {
        cluster_name(route.deployment, share.revision): tuple(sorted(set(share.endpoints)))
        for route in table.deployments
        for share in route.revisions
    }
    beside = {
        cluster_name(route.deployment, share.revision, grpc=True): tuple(
            sorted({replace(endpoint, address=grpc_address(endpoint.address)) for endpoint in share.endpoints})
        )
        for route in table.deployments
        if route.grpc
        for share in route.revisions
    }
    return found | beside


def substitutes(table: RouteTable) -> dict[str, tuple[Endpoint, ...]]:
    """By cluster name: who of other revisions is asked what a revision's own replicas cannot answer.

    Of one that only finishes what it has: a request is sent again to the cluster it was routed to, though no new one
    goes there. And of one that serves beside another, as in a redeploy: that may end the well one of two first, and all
    that a broken last one gets would be sent to it once more (18 of 110 requests failed in one trial). The latter not
    where a client chose the revision, nor where one of them is on trial.
    """
    found = [
        replace(
            route,
            revisions=tuple(replace(share, endpoints=_instead(route, share)) for share in route.revisions),
        )
        for route in table.deployments
    ]
    return {name: ends for name, ends in endpoints_by_cluster(RouteTable(tuple(found))).items() if ends}


def _instead(route: DeploymentRoute, share: RevisionRoute) -> tuple[Endpoint, ...]:
    if _over(share):
        return _open(route)
    if route.pure and not route.on_trial and not route.access.pinnable:
        # Whatever their weight is now, or this one's: who is there all the time has been checked when it is needed.
        others = (one for one in route.revisions if one.revision != share.revision)
        return tuple(each for one in others for each in one.endpoints if not each.draining)
    return ()


def _open(route: DeploymentRoute) -> tuple[Endpoint, ...]:
    return tuple(each for share in route.revisions if share.weight for each in share.endpoints if not each.draining)


def _over(share: RevisionRoute) -> bool:
    return not share.weight and not _takes_requests(share)


def load_assignment(name: str, endpoints: Iterable[Endpoint], instead: Iterable[Endpoint] = ()) -> Resource:
    """The endpoints of a cluster. Draining ones keep what they have and get nothing new.

    Those of priority 1 are asked `instead` when none of the others can be.
    """
    levels: list[Resource] = [{"lb_endpoints": [_lb_endpoint(endpoint) for endpoint in sorted(endpoints)]}]
    if others := sorted(instead):
        levels.append({"priority": 1, "lb_endpoints": [_lb_endpoint(endpoint) for endpoint in others]})
    return {
        "@type": TYPES + "config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": name,
        "endpoints": levels,
    }


def route_configuration(table: RouteTable) -> Resource:
    """Host `NAME.localhost` (any port) and path `/NAME/` on any other host; all else is 404."""
    deployments = sorted(table.deployments, key=lambda route: route.deployment)
    return {
        "@type": TYPES + "config.route.v3.RouteConfiguration",
        "name": ROUTES_NAME,
        "ignore_port_in_host_matching": True,
        # Read before the route is chosen, never passed on: only replicas and the gateway say what a revision is.
        # (Envoy sets the last one after this, when it rewrites a path: the access log has it from there.)
        "request_headers_to_remove": [
            REVISION_HEADER,
            DEPLOYMENT_HEADER,
            "x-corten-target",
            "x-envoy-original-path",
        ],
        "response_headers_to_remove": ["x-envoy-upstream-service-time"],
        "virtual_hosts": [
            *(_by_host(route, table.trust) for route in deployments),
            _by_path(deployments, table.trust),
        ],
    }


def _lb_endpoint(endpoint: Endpoint) -> Resource:
    status = "DRAINING" if endpoint.draining else "UNKNOWN"  # UNKNOWN: the health check decides
    return {"endpoint": {"address": address(endpoint.address)}, "health_status": status}


def _cluster(name: str) -> Resource:
    deployment = name.partition("/")[0]
    grpc = name.endswith(GRPC)
    protocol = "http2_protocol_options" if grpc else "http_protocol_options"
    return {
        "@type": TYPES + "config.cluster.v3.Cluster",
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"service_name": name, "eds_config": config_source(ENDPOINTS_REFRESH)},
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "least_request_lb_config": _slow_start(),
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0},  # never send to a replica known to be bad
            # Trap: by default changes of health are gathered for 1 s, in which a replica that the admin page calls
            # healthy gets nothing: 595 requests failed of it in one trial (§6).
            "update_merge_window": "0s",
        },
        "ignore_health_on_host_removal": True,  # what was removed is gone, whatever its health check says
        "health_checks": [_grpc_health_check() if grpc else _health_check(f"{deployment}.localhost")],
        "outlier_detection": _outlier_detection(),
        "circuit_breakers": _circuit_breakers(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": TYPES + "extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {protocol: {}},
                # Less than the replica's own idle time (http.Limits.idle_s), so that ours closes first.
                "common_http_protocol_options": {"idle_timeout": "55s"},
            }
        },
    }


def _slow_start() -> Resource:
    """A replica new in a cluster gets a tenth of its share at first: its first calls may be slow, warmed up or not."""
    return {
        "slow_start_config": {
            "slow_start_window": "5s",
            "aggression": {"default_value": 1.0, "runtime_key": "corten.slow_start.aggression"},
            "min_weight_percent": {"value": 10},
        }
    }


def _health_check(host: str) -> Resource:
    return {"http_health_check": {"path": "/readyz", "host": host}, **_check_times()}


def _grpc_health_check() -> Resource:
    return {"grpc_health_check": {}, **_check_times()}


def _check_times() -> Resource:
    return {
        "timeout": "1s",
        "interval": "1s",
        "no_traffic_interval": "1s",  # default 60 s: a revision of weight 0 would learn of nothing
        "unhealthy_interval": "0.25s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
    }


def _outlier_detection() -> Resource:
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 2,  # connection refused, reset, time-out
        "consecutive_gateway_failure": 5,
        "enforcing_consecutive_gateway_failure": 100,  # trap: the default is 0, so it never ejects
        # A model that raises for some inputs is not broken: its 500s must not take a replica away.
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        # One that answers nothing else for a second is, or nobody misses it: the daemon replaces it (control.answers)
        # where others do well.
        "enforcing_failure_percentage": 100,
        "failure_percentage_threshold": 100,
        "failure_percentage_minimum_hosts": 2,
        "failure_percentage_request_volume": 10,
        "enforcing_local_origin_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "30s",
        "max_ejection_percent": 67,
    }


def _circuit_breakers() -> Resource:
    return {
        "thresholds": [
            {
                "max_connections": 4096,
                "max_pending_requests": 4096,
                "max_requests": 4096,
                "track_remaining": True,
                # The floor lets all that a killed replica had in flight move to another at once (a quarter would not
                # do where two replicas share the load); beyond it retries stay a quarter of the traffic.
                "retry_budget": {"budget_percent": {"value": 25}, "min_retry_concurrency": 512},
            }
        ]
    }


def _by_host(route: DeploymentRoute, trust: Trust) -> Resource:
    return {
        "name": route.deployment,
        "domains": [f"{route.deployment}.localhost"],
        "include_request_attempt_count": True,  # for the activator
        "routes": [*_grpc_routes(route, trust, []), *_routes(route, trust, "/", {})],
    }


def _by_path(deployments: Sequence[DeploymentRoute], trust: Trust) -> Resource:
    routes: list[Resource] = []
    for route in deployments:
        # The path of gRPC is the method's name and has no place for a deployment's.
        by_header = {"name": DEPLOYMENT_HEADER, "string_match": {"exact": route.deployment}}
        routes += _grpc_routes(route, trust, [by_header])
        rewrite = {"prefix_rewrite": "/"}
        routes += _routes(route, trust, f"/{route.deployment}/", rewrite)
        # Not served itself: relative links of the page at `/NAME/` would lead elsewhere. 307 keeps method and body.
        to = {"path_redirect": f"/{route.deployment}/", "response_code": "TEMPORARY_REDIRECT"}
        routes.append({"match": {"path": f"/{route.deployment}"}, "redirect": to})
    # The listener's local reply gives it the body; it lists nothing of what is here.
    routes.append({"match": {"prefix": "/"}, "direct_response": {"status": 404}})
    return {"name": "*", "domains": ["*"], "include_request_attempt_count": True, "routes": routes}


def _grpc_routes(route: DeploymentRoute, trust: Trust, headers: list[Resource]) -> list[Resource]:
    if not route.grpc:
        return []
    matches = [{"prefix": prefix, **({"headers": headers} if headers else {})} for prefix in _GRPC_SERVICES]
    return [one for match in matches for one in _guarded(route, trust, match, {}, grpc=True)]


def _routes(route: DeploymentRoute, trust: Trust, prefix: str, rewrite: Resource) -> list[Resource]:
    """The routes of HTTP. Whether it is well is told to whoever asks: balancers in front of us have no token."""
    health: list[Resource] = []
    open_to_all = replace(route, access=Access(), hold_s=0.0)  # and wakes nobody
    for path in ("livez", "readyz"):
        match = {"path": f"{prefix}{path}"}
        to = {"prefix_rewrite": f"/{path}"} if rewrite else {}
        found = _weighted(open_to_all, match, to, grpc=False)
        health.append(_well(match) if route.resting and "direct_response" in found else found)
    return [*health, *_guarded(route, trust, {"prefix": prefix}, rewrite, grpc=False)]


def _guarded(route: DeploymentRoute, trust: Trust, match: Resource, rewrite: Resource, *, grpc: bool) -> list[Resource]:
    """The routes of requests that pass the deployment's limits and, where it asks for one, have a valid token."""
    if route.access.auth is Auth.TOKEN and not trust.anybody:
        return [{"match": match, "direct_response": {"status": 401}}]
    found = [_weighted(route, match, rewrite, grpc=grpc)]
    if route.access.pinnable:
        # One that does not run is told so: whoever asks for a revision does not want another's answer.
        unknown = {"name": REVISION_HEADER, "present_match": True}
        gone = {"match": _with_header(match, unknown), "direct_response": {"status": 404}}
        pins = [_pin(route, share, match, rewrite, grpc=grpc) for share in route.revisions if _pinnable(route, share)]
        found = [*pins, gone, *found]
    per_filter, others = access.of_route(route, trust)
    if grpc:
        per_filter = {**per_filter, GRPC_STATS_FILTER: access.enabled()}
    return [_with_filters(each, per_filter, others) for each in found]


def _with_filters(found: Resource, per_filter: Resource, others: Resource) -> Resource:
    if "route" not in found:
        return found
    return {**found, **others, "typed_per_filter_config": {**found["typed_per_filter_config"], **per_filter}}


def _with_header(match: Resource, header: Resource) -> Resource:
    return {**match, "headers": [*match.get("headers", []), header]}


def _pin(route: DeploymentRoute, share: RevisionRoute, match: Resource, rewrite: Resource, *, grpc: bool) -> Resource:
    by_header = {"name": REVISION_HEADER, "string_match": {"exact": share.revision}}
    target = {"cluster": cluster_name(route.deployment, share.revision, grpc=grpc)}
    return {
        "match": _with_header(match, by_header),
        "route": {**target, **rewrite, **_policy(route)},
        "request_headers_to_add": [_say_cluster(target["cluster"])],
        "response_headers_to_add": [_say_revision(share.revision)],
        **_body_limit(route),
    }


def _weighted(route: DeploymentRoute, match: Resource, rewrite: Resource, *, grpc: bool) -> Resource:
    shares = [share for share in route.revisions if share.weight > 0 and _takes_requests(share)]
    if not shares:
        return _held(route, match, rewrite, grpc=grpc)
    targets = [
        {
            "name": cluster_name(route.deployment, share.revision, grpc=grpc),
            "weight": share.weight,
            "request_headers_to_add": [_say_cluster(cluster_name(route.deployment, share.revision, grpc=grpc))],
            "response_headers_to_add": [_say_revision(share.revision)],
        }
        for share in sorted(shares, key=lambda share: share.revision)
    ]
    weighted: Resource = {"clusters": targets}
    action = {"weighted_clusters": weighted, **rewrite, **_policy(route)}
    if route.mirror and not grpc:
        action["request_mirror_policies"] = mirror.policies(route.deployment, route.mirror)
    if route.sticky:
        weighted["use_hash_policy"] = True
        action["hash_policy"] = [{"header": {"header_name": route.sticky}}]
    return {"match": match, "route": action, **_body_limit(route)}


def _held(route: DeploymentRoute, match: Resource, rewrite: Resource, *, grpc: bool) -> Resource:
    """For requests while nobody is ready: asked about, or refused."""
    if not route.hold_s:
        return {"match": match, "direct_response": {"status": 503}}
    limits = _body_limit(route)
    asked = hold.per_route(route.deployment, route.hold_s, grpc=grpc)
    return {
        "match": match,
        "route": {"cluster_header": hold.CLUSTER_HEADER, **rewrite, **_policy(route)},
        **limits,
        "typed_per_filter_config": {**limits["typed_per_filter_config"], **asked},
    }


def _pinnable(route: DeploymentRoute, share: RevisionRoute) -> bool:
    """Whether who asks for it gets it, now or, where all are asleep, soon: another would answer in place of one that
    only finishes what it has.
    """
    return _takes_requests(share) or (not share.gone and not _open(route))


def _well(match: Resource) -> Resource:
    """For who asks how one at rest is: the next request is answered."""
    return {"match": match, "direct_response": {"status": 200, "body": {"inline_string": '{"status":"resting"}'}}}


def _takes_requests(share: RevisionRoute) -> bool:
    return any(not endpoint.draining for endpoint in share.endpoints)


def _say_revision(revision: str) -> Mapping[str, Any]:
    # Overwriting: appending would let a replica, or a client's echo, say it is another.
    header = {"key": REVISION_HEADER, "value": revision}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _say_cluster(name: str) -> Mapping[str, Any]:
    """So that the activator knows for whom a request waits (gateway.hold)."""
    header = {"key": hold.CLUSTER_HEADER, "value": name}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _policy(route: DeploymentRoute) -> Resource:
    return {
        # Not `timeout`, which is for the whole of an answer and cuts streams that are well: it is silence that ends.
        # The replica says so first, in its own words, if it still can.
        "timeout": "0s",
        "idle_timeout": seconds(route.timeout_s + _REPLICA_FIRST_S),
        "retry_policy": {
            # `reset` repeats a POST whose replica died under it: right for predictions, which change nothing.
            "retry_on": f"{'reset' if route.pure else 'reset-before-request'},{_NOT_COMPUTED}",
            "retriable_headers": hold.retriable_headers(),
            "retriable_status_codes": [
                503
            ],  # a replica that drains or is not ready; `unavailable` is gRPC's word for it
            "num_retries": 6,
            "retry_priority": hold.retry_priority(),
            # Who fails at once has the least in hand, and is drawn again ten times for each request that one in slow
            # start has: with 32 draws the only other one was missed.
            "host_selection_retry_max_attempts": 512,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {"@type": TYPES + "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
                }
            ],
            "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.050s"},
        },
    }


def _body_limit(route: DeploymentRoute) -> Resource:
    return {
        # A retry can only send again what is kept; the default keeps 1 MiB (60 of 60 requests of 2 MB failed, §5 B).
        "request_body_buffer_limit": route.max_body_bytes,
        "typed_per_filter_config": {
            BUFFER_FILTER: {
                "@type": BUFFER_TYPE + "BufferPerRoute",
                "buffer": {"max_request_bytes": route.max_body_bytes},
            }
        },
    }
