"""What of Envoy's configuration does not depend on routes: the listener with its filters, and the bootstrap."""

from __future__ import annotations

from pathlib import Path

from corten.core.front import Front
from corten.gateway import access, hold, mirror, tls
from corten.gateway.resources import (
    BUFFER_FILTER,
    BUFFER_TYPE,
    CLUSTERS_REFRESH,
    GRPC_STATS_FILTER,
    LISTENERS_REFRESH,
    ROUTES_NAME,
    ROUTES_REFRESH,
)
from corten.gateway.shape import TYPES, Resource, address, config_source

_MANAGER_TYPE = TYPES + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": TYPES + "extensions.filters.http.router.v3.Router"},
}
_LARGEST_HEADERS_KB = 32  # as corten.http.Limits.header_bytes

# Envoy's own answers by status: (code, message, seconds to wait before another try, 0: no point in one).
# They carry no detail (an upstream's address, a library's words): the access log does.
_REPLIES = {
    400: ("gateway.bad_request", "the request is not acceptable HTTP", 0),
    401: ("gateway.unauthenticated", "this deployment asks for a valid token: Authorization: Bearer TOKEN", 0),
    403: ("gateway.forbidden", "this token is not for this deployment", 0),
    404: ("gateway.not_found", "no deployment, or no such revision, at this address", 0),
    408: ("gateway.request_timeout", "the request did not arrive in time", 0),
    413: ("gateway.body_too_large", "the request body is larger than this deployment takes", 0),
    429: ("gateway.overloaded", "too many requests are waiting", 1),
    431: ("gateway.headers_too_large", "the request headers are too large", 0),
    502: ("gateway.bad_answer", "the replica's answer is not acceptable HTTP", 0),
    503: ("gateway.unavailable", "no replica can answer now", 1),
    504: ("gateway.timeout", "the deployment did not answer in time", 0),
}
_BREAKER_FLAG = "UO"  # upstream overflow
_REVOKED = f"rbac_access_denied_matched_policy[{access.REVOKED}]"
_RATE_REPLY = ("gateway.rate_limited", "more requests than this deployment takes in a second", 1)

_ACCESS_LOG = {
    "ts": "%START_TIME%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "host": "%REQ(:AUTHORITY)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "detail": "%RESPONSE_CODE_DETAILS%",
    "ms": "%DURATION%",
    "upstream_ms": "%RESPONSE_DURATION%",
    "in_bytes": "%BYTES_RECEIVED%",
    "out_bytes": "%BYTES_SENT%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream": "%UPSTREAM_HOST%",
    "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "token": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:corten:sub)%",
    "token_id": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:corten:jti)%",
}


def listeners(front: Front, access_log: Path) -> list[Resource]:
    """The front door, and the one that only sends on to it."""
    found = [listener(front, access_log)]
    if front.http_port:
        found.append(_redirect(front))
    return found


def on_the_way(before: list[Resource], after: list[Resource]) -> list[list[Resource]]:
    """The listeners to have one after the other: the new beside the old, but no two on one port; then the new alone."""
    ports_of = {door["address"]["socket_address"]["port_value"]: door["name"] for door in after}
    clear = [
        door for door in before if ports_of.get(door["address"]["socket_address"]["port_value"]) in (None, door["name"])
    ]
    beside = {door["name"]: door for door in (*clear, *after)}
    return [*([clear] if clear != before else []), list(beside.values()), after]


def listener(front: Front, access_log: Path) -> Resource:
    """The front door; its routes come by RDS and its certificate by SDS, so it need not change with them."""
    manager = _connection_manager(access_log)
    chain: Resource = {"filters": [{"name": "http", "typed_config": manager}]}
    if front.tls:
        chain["transport_socket"] = tls.transport_socket()
    return _listener(front.host, front.port, chain)


def _redirect(front: Front) -> Resource:
    """To the same place by TLS. 308 keeps method and body, as a client that is told to move on needs them again."""
    to = {"https_redirect": True, "port_redirect": front.port, "response_code": "PERMANENT_REDIRECT"}
    everything = {"match": {"prefix": "/"}, "redirect": to}
    manager = {
        "@type": _MANAGER_TYPE,
        "stat_prefix": "redirect",
        "codec_type": "AUTO",
        "server_name": "corten",
        "route_config": {
            "name": "redirect",
            "virtual_hosts": [{"name": "redirect", "domains": ["*"], "routes": [everything]}],
        },
        "http_filters": [_ROUTER],
        "use_remote_address": True,
        "request_headers_timeout": "10s",
        "max_request_headers_kb": _LARGEST_HEADERS_KB,
        "common_http_protocol_options": {"idle_timeout": "60s"},
    }
    return _listener(front.host, front.http_port, {"filters": [{"name": "http", "typed_config": manager}]})


def _listener(host: str, port: int, chain: Resource) -> Resource:
    return {
        "@type": TYPES + "config.listener.v3.Listener",
        "name": f"{host}:{port}",
        "address": address(f"{host}:{port}"),
        # Trap: with SO_REUSEPORT, Envoy's default, a second gateway binds the same port and takes half of the traffic.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [chain],
    }


def bootstrap(
    *,
    node: str,
    admin_socket: Path,
    xds_socket: Path,
    hold_socket: Path,
    mirror_socket: Path,
    downstream_connections: int,
) -> Resource:
    """What Envoy starts from. `node` names this start of Envoy, so that xDS can tell a new process from an old one."""
    return {
        "node": {"id": node, "cluster": "corten"},
        # Never TCP: whoever reaches the admin page may read all and shut Envoy down.
        "admin": {"address": {"pipe": {"path": str(admin_socket), "mode": 0o600}}},
        "dynamic_resources": {
            "cds_config": config_source(CLUSTERS_REFRESH),
            "lds_config": config_source(LISTENERS_REFRESH),
        },
        "static_resources": {
            "listeners": [hold.listener(hold_socket)],
            "clusters": [_xds_cluster(xds_socket), hold.cluster(hold_socket), mirror.cluster(mirror_socket)],
        },
        "stats_config": _stats_config(),
        "overload_manager": _overload_manager(downstream_connections),
    }


def _connection_manager(access_log: Path) -> Resource:
    return {
        "@type": _MANAGER_TYPE,
        "stat_prefix": "front",
        "codec_type": "AUTO",
        "server_name": "corten",
        "rds": {"route_config_name": ROUTES_NAME, "config_source": config_source(ROUTES_REFRESH)},
        "http_filters": _filters(),
        "access_log": [
            {
                "name": "file",
                "typed_config": {
                    "@type": TYPES + "extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(access_log),
                    "log_format": {"json_format": _ACCESS_LOG},
                },
            }
        ],
        "local_reply_config": _local_replies(),
        # Nobody is internal (by default loopback and RFC 1918 are): headers by which a client could steer Envoy
        # (`x-envoy-max-retries` ...) are taken off all requests.
        "use_remote_address": True,
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "request_headers_timeout": "10s",
        "request_timeout": "0s",  # a large body over a slow line may take longer than its prediction
        "stream_idle_timeout": "300s",
        "max_request_headers_kb": _LARGEST_HEADERS_KB,
        "common_http_protocol_options": {
            "idle_timeout": "3600s",
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
        },
    }


def _filters() -> list[Resource]:
    return [
        # Who asks and how often comes before a body is waited for.
        *access.filters(),
        hold.http_filter(),  # before the body is read too: what waits should cost little
        {
            "name": BUFFER_FILTER,
            "disabled": True,  # a route that wants it brings its own limit
            "typed_config": {"@type": BUFFER_TYPE + "Buffer", "max_request_bytes": 1},
        },
        {
            # By cluster and status: the status of gRPC travels behind an answer of 200.
            "name": GRPC_STATS_FILTER,
            "disabled": True,
            "typed_config": {"@type": TYPES + "extensions.filters.http.grpc_stats.v3.FilterConfig"},
        },
        _ROUTER,
    ]


def _local_replies() -> Resource:
    """Envoy's own answers in the shape of the model server's (`http.request.error_body`)."""
    overflow = {"response_flag_filter": {"flags": [_BREAKER_FLAG]}}
    return {
        "mappers": [
            *hold.replies(),
            {**_reply(_REPLIES[429], overflow), "status_code": 429},
            _reply(_RATE_REPLY, _because("local_rate_limited")),
            # A token that was good once: its bearer needs another, as one whose token has expired.
            {
                **_reply(_REPLIES[401], _because(_REVOKED)),
                "status_code": 401,
            },
            *(_reply(_REPLIES[status], _status_is(status)) for status in sorted(_REPLIES)),
            {"filter": _status_is(200), "body_format_override": _as_it_is()},
        ],
        "body_format": _error_format("gateway.failed", "%LOCAL_REPLY_BODY%"),
    }


def _as_it_is() -> Resource:
    said = {"inline_string": "%LOCAL_REPLY_BODY%"}
    return {"text_format_source": said, "content_type": "application/json"}


def _because(detail: str) -> Resource:
    expression = f"response.code_details == '{detail}'"
    kind = TYPES + "extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": {"name": "cel", "typed_config": {"@type": kind, "expression": expression}}}


def _reply(told: tuple[str, str, int], condition: Resource) -> Resource:
    code, message, retry_after_s = told
    header = {"key": "retry-after", "value": str(retry_after_s)}
    return {
        "filter": condition,
        "headers_to_add": [{"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}] if retry_after_s else [],
        "body_format_override": _error_format(code, message),
    }


def _status_is(status: int) -> Resource:
    value = {"default_value": status, "runtime_key": f"corten.reply.{status}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _error_format(code: str, message: str) -> Resource:
    return {"json_format": {"error": {"code": code, "message": message, "path": ""}}}


def _xds_cluster(socket: Path) -> Resource:
    many = 100_000
    endpoint = {"endpoint": {"address": address(str(socket))}}
    return {
        "name": "xds",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [endpoint]}]},
        # Each subscription holds a request open for as long as nothing changes.
        "circuit_breakers": {
            "thresholds": [{"max_connections": many, "max_pending_requests": many, "max_requests": many}]
        },
        # While the daemon is away polls fail without trying to connect, at two thirds of the cost.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "health_checks": [
            {
                "tcp_health_check": {},
                "reuse_connection": False,
                "timeout": "1s",
                "interval": "5s",
                "no_traffic_interval": "5s",
                "unhealthy_interval": "0.25s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
            }
        ],
    }


def _stats_config() -> Resource:
    milliseconds = [1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000]
    return {
        "use_all_default_tags": True,
        "stats_tags": [
            {"tag_name": "corten_deployment", "regex": r"^cluster\.(([^/.]+)/)[^/.]+\."},
            {"tag_name": "corten_revision", "regex": r"^cluster\.[^/.]+/(([^/.]+)\.)"},
        ],
        "histogram_bucket_settings": [{"match": {"suffix": "upstream_rq_time"}, "buckets": milliseconds}],
    }


def _overload_manager(downstream_connections: int) -> Resource:
    monitors = TYPES + "extensions.resource_monitors."
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": monitors + "downstream_connections.v3.DownstreamConnectionsConfig",
                    "max_active_downstream_connections": downstream_connections,
                },
            },
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": {
                    "@type": monitors + "fixed_heap.v3.FixedHeapConfig",
                    "max_heap_size_bytes": 1 << 30,
                },
            },
        ],
        "actions": [_heap_action("shrink_heap", 0.8), _heap_action("stop_accepting_requests", 0.95)],
    }


def _heap_action(action: str, share: float) -> Resource:
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": share}}
    return {"name": f"envoy.overload_actions.{action}", "triggers": [trigger]}
