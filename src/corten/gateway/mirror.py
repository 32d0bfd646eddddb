"""What of Envoy's configuration sends copies of requests to where two revisions are compared (control.mirror).

Envoy waits for no answer to a copy and passes none on. Copies beyond what the cluster takes at once are left out.
"""

from __future__ import annotations

from pathlib import Path

from corten.gateway.shape import Resource, address

CLUSTER = "mirror"
HEADER = "x-corten-mirror"  # of a copy: whose it is
_AT_ONCE = 32


def cluster(socket: Path) -> Resource:
    """Where copies go."""
    endpoint = {"endpoint": {"address": address(str(socket))}}
    return {
        "name": CLUSTER,
        "type": "STATIC",
        "connect_timeout": "0.250s",
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {
            "thresholds": [{"max_connections": _AT_ONCE, "max_pending_requests": _AT_ONCE, "max_requests": _AT_ONCE}]
        },
    }


def policies(deployment: str, percent: int) -> list[Resource]:
    """A route's copies: of so many percent of its requests."""
    says = {"header": {"key": HEADER, "value": deployment}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return [
        {
            "cluster": CLUSTER,
            "runtime_fraction": {"default_value": {"numerator": percent}},
            "disable_shadow_host_suffix_append": True,
            "request_headers_mutations": [{"append": says}],
        }
    ]
