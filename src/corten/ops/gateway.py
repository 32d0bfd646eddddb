"""Where the gateway takes requests, and how that is changed without losing one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corten.control.client import connect, connect_if_deployed
from corten.core.home import Home


def gateway(*, home: Home | None = None) -> Mapping[str, Any]:
    """The gateway's front as `control.views.FrontView` has it. Starts the daemon, which keeps it."""
    home = home or Home.from_env(os.environ, uid=os.getuid())
    found: Mapping[str, Any] = (connect_if_deployed(home) or connect(home)).get("/v1/gateway")
    return found


def set_gateway(
    *,
    host: str | None = None,
    port: int | None = None,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    http_port: int | None = None,
    home: Home | None = None,
) -> Mapping[str, Any]:
    """Change where the gateway takes requests; None leaves as it is, an empty certificate and key end TLS.

    Requests under way are answered where they came in. Raises UsageError `gateway.bad_certificate`,
    `control.bad_request` and EngineError `gateway.port_taken` with all as it was.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    change = {
        "host": host,
        "port": port,
        "certificate": _absolute(certificate),
        "key": _absolute(key),
        "http_port": http_port,
    }
    given = {name: value for name, value in change.items() if value is not None}
    found: Mapping[str, Any] = connect(home).put("/v1/gateway", given)
    return found


def restart_gateway(*, cold: bool = False, home: Home | None = None) -> Mapping[str, Any]:
    """Put a new gateway process in the place of the one that runs: `was` and `pid` are the two.

    No request is lost, unless `cold`: then connections are refused for a moment. Raises EngineError
    (`gateway.restarting`, `gateway.no_hot_restart`, `gateway.broken`, `gateway.silent`).
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    found: Mapping[str, Any] = connect(home).post("/v1/gateway/restart", {"cold": cold})
    return found


def _absolute(path: str | Path | None) -> str | None:
    return str(Path(path).absolute()) if path else None if path is None else ""
