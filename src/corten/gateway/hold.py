"""What of Envoy's configuration lets requests wait for a replica.

Where nobody is ready, the route asks the controller first (filter ext_authz): its answer comes when somebody is, and
says which cluster takes the request. Envoy then forwards the original request itself; no byte of it passes Python.

What was in the hands of the only replica when that died has been routed already. It gets to the activator, the only
endpoint of the last priority, used while the others have no healthy one. That waits in the same way, then answers with
`x-corten-again`, on which Envoy's retry policy sends the request, which it has kept, to the replica there is by now.

Both are the controller's one socket: `/hold/DEPLOYMENT/...`, `/hold-grpc/DEPLOYMENT/...`, and everything else.
It speaks HTTP/1.1; clusters of gRPC reach it by a listener of Envoy's own (`envoy-again.sock`), which has no other use.
"""

from __future__ import annotations

from pathlib import Path

from corten.core.headers import AGAIN_HEADER
from corten.gateway.shape import TYPES, Resource

CLUSTER = "hold"
FILTER = "envoy.filters.http.ext_authz"
CLUSTER_HEADER = "x-corten-cluster"  # of a request: `DEPLOYMENT/REVISION[-grpc]`; nobody but us can set it
REQUEST_HEADER = "x-request-id"  # of a request: the same each time it is sent
REVISION_HEADER = "x-corten-revision"
PATH, GRPC_PATH = "/hold/", "/hold-grpc/"  # of a check; the deployment's name follows, then the request's own path

_MANAGER_TYPE = TYPES + "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "extensions.filters.http.router.v3.Router"
_STREAM = "/ModelStreamInfer"
_EXT_AUTHZ = TYPES + "extensions.filters.http.ext_authz.v3."
_LONGER_S = 5.0  # the controller says itself when a wait was too long
# What the controller says for no; made 503 on the way out. A 5xx of its own would be taken for a failed check.
REFUSED = 403
_AGAIN_TIMES = 40
_FLAG = "UAEX"  # unauthorized by the external service
_LIMITS = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
_MANY = 100_000
# A share of 1.4 by default: of two endpoints of which one is ill, priority 1 would get 30 % of the requests.
_OVERPROVISIONING = 100 * 100


def http_filter() -> Resource:
    """The filter, off unless a route switches it on."""
    return {
        "name": FILTER,
        "disabled": True,
        "typed_config": {
            "@type": _EXT_AUTHZ + "ExtAuthz",
            "transport_api_version": "V3",
            "status_on_error": {"code": "ServiceUnavailable"},
            # The answer says which cluster it is; without this the route would keep the one it had: none.
            "clear_route_cache": True,
            "http_service": _service(PATH, 1.0),
        },
    }


def per_route(deployment: str, hold_s: float, *, grpc: bool) -> Resource:
    """A route's entry in `typed_per_filter_config`: its requests wait up to `hold_s`."""
    path = f"{GRPC_PATH if grpc else PATH}{deployment}"
    settings = {"http_service": _service(path, hold_s + _LONGER_S)}
    return {FILTER: {"@type": _EXT_AUTHZ + "ExtAuthzPerRoute", "check_settings": settings}}


def cluster(socket: Path) -> Resource:
    """Where the controller is asked. Without health checks: one that is back is asked at once."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(socket)}}}}
    return {
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        # Every request that waits is a connection, and all of them ask again when the controller dies.
        "circuit_breakers": {"thresholds": [dict.fromkeys(_LIMITS, _MANY)]},
    }


def grpc_socket(socket: Path) -> Path:
    """Where clusters of gRPC find the activator."""
    return socket.with_name("envoy-again.sock")


def listener(socket: Path) -> Resource:
    """HTTP/2 for those clusters, HTTP/1.1 to the controller.

    Whoever answers the controller's way reads a call whole first, so that one whose client goes on sending is refused.
    """
    to = {"cluster": CLUSTER, "timeout": "0s", "idle_timeout": "0s"}
    streams = {"match": {"safe_regex": {"regex": f".*{_STREAM}"}}, "direct_response": {"status": 503}}
    manager = {
        "@type": _MANAGER_TYPE,
        "stat_prefix": "again",
        "codec_type": "HTTP2",
        "route_config": {
            "name": "again",
            "virtual_hosts": [
                {"name": "again", "domains": ["*"], "routes": [streams, {"match": {"prefix": "/"}, "route": to}]}
            ],
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": TYPES + _ROUTER}},
        ],
        "preserve_external_request_id": True,
        "stream_idle_timeout": "0s",
    }
    return {
        "name": "again",
        "address": {"pipe": {"path": str(grpc_socket(socket)), "mode": 0o600}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def with_activator(assignment: Resource, socket: Path) -> Resource:
    """The endpoints of a cluster, and behind them the activator."""
    activator = {
        "endpoint": {
            "address": {"pipe": {"path": str(socket)}},
            "health_check_config": {"disable_active_health_check": True},
        }
    }
    levels = assignment["endpoints"]
    return {
        **assignment,
        "endpoints": [*levels, {"priority": len(levels), "lb_endpoints": [activator]}],
        "policy": {"overprovisioning_factor": _OVERPROVISIONING},
    }


def retriable_headers() -> list[Resource]:
    """What the activator says when it is time to send the request again."""
    return [{"name": AGAIN_HEADER, "string_match": {"exact": "1"}}]


def retry_priority() -> Resource:
    """Each attempt is the next priority's: a revision's own replicas, those that answer in their place, the activator.

    Only who passes there is sent to the revision's own again (control.probation).
    """
    kind = TYPES + "extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
    return {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {"@type": kind, "update_frequency": 1},
    }


def replies() -> list[Resource]:
    """Mappers of Envoy's own answers: the controller's refusal as it is, and one for when it could not be asked."""
    flagged = {"response_flag_filter": {"flags": [_FLAG]}}
    value = {"default_value": REFUSED, "runtime_key": "corten.reply.hold"}
    refused = {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}
    away = {
        "code": "gateway.no_controller",
        "message": "no replica is ready, and the controller that would start one is away",
        "path": "",
    }
    later = {"header": {"key": "retry-after", "value": "2"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return [
        {
            "filter": {"and_filter": {"filters": [flagged, refused]}},
            "status_code": 503,
            "body_format_override": {
                "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
                "content_type": "application/json",
            },
        },
        {
            "filter": flagged,
            "headers_to_add": [later],
            "body_format_override": {"json_format": {"error": away}},
        },
    ]


def _service(path: str, timeout_s: float) -> Resource:
    exact = {name: {"patterns": [{"exact": name}]} for name in (CLUSTER_HEADER, REVISION_HEADER, "retry-after")}
    return {
        "server_uri": {"uri": "http://controller", "cluster": CLUSTER, "timeout": f"{timeout_s:.3f}s"},
        "path_prefix": path,
        "authorization_response": {
            "allowed_upstream_headers": exact[CLUSTER_HEADER],
            "allowed_client_headers_on_success": exact[REVISION_HEADER],
            "allowed_client_headers": exact["retry-after"],
        },
        # A controller that died is back in half a second where somebody starts it: who asks waits for nine, about.
        "retry_policy": {
            "retry_on": "connect-failure,reset",
            "num_retries": _AGAIN_TIMES,
            "retry_back_off": {"base_interval": "0.050s", "max_interval": "0.500s"},
        },
    }
