"""What all parts of Envoy's configuration are made of, as the plain dicts of its proto3 JSON."""

from __future__ import annotations

from typing import Any

Resource = dict[str, Any]

TYPES = "type.googleapis.com/envoy."


def address(text: str) -> Resource:
    """A unix socket's path or `ip:port` as Envoy writes it."""
    if text.startswith("/"):
        return {"pipe": {"path": text}}
    host, _, port = text.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port) if port.isdecimal() else 0}}


def config_source(refresh_delay: str) -> Resource:
    """Where Envoy gets resources from: the cluster `xds`, by long poll (gateway.xds)."""
    return {
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",  # nothing is served before it is known how
        "api_config_source": {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": ["xds"],
            "refresh_delay": refresh_delay,
            "request_timeout": "60s",  # more than xds.HOLD_S
        },
    }


def seconds(value: float) -> str:
    """A proto3 JSON duration."""
    return f"{value:.3f}s"
