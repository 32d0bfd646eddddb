"""Routes: what the gateway is told. A pure value; the same table gives the same gateway configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from corten.core.access import Access, Trust

GRPC_PORT = 8081


def grpc_address(address: str) -> str:
    """Where a replica that listens for HTTP at `address` answers gRPC: a socket `g` beside it, or port 8081."""
    if address.startswith("/"):
        return str(PurePosixPath(address).with_name("g"))
    return f"{address.rpartition(':')[0]}:{GRPC_PORT}"


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One upstream: a replica's address (unix socket path or `host:port`). A draining one gets no new request."""

    address: str
    draining: bool = False


@dataclass(frozen=True, slots=True)
class RevisionRoute:
    """A revision's share of the traffic (weights are relative, 0 keeps it reachable by nobody) and its upstreams.

    One that is `gone` takes nothing any more; what its last replica had in hand when that ended is answered by others.
    """

    revision: str
    weight: int
    endpoints: tuple[Endpoint, ...]
    gone: bool = False


@dataclass(frozen=True, slots=True)
class DeploymentRoute:
    """Host `NAME.localhost` and path prefix `/NAME/` lead to a deployment's revisions.

    With `grpc`, gRPC leads there too, by host or by the header `x-corten-deployment`.
    With `access.pinnable` clients choose a revision by the header `x-corten-revision: rN`, also one of weight 0.
    With `hold_s`, requests wait up to so long for the controller to say which revision takes them, while none has a
    weight; while it is `resting`, who asks whether it is well is told so and wakes nobody. With `sticky`, requests with
    the same value of that header get the same revision. `mirror` percent of them are copied, to compare two revisions
    by. What is not `pure` is never sent again once a replica had it. While one revision is `on_trial`, each answers for
    itself.
    """

    deployment: str
    revisions: tuple[RevisionRoute, ...]
    max_body_bytes: int = 16 << 20
    timeout_s: float = 60.0
    grpc: bool = False
    access: Access = field(default_factory=Access)
    hold_s: float = 0.0
    sticky: str = ""
    mirror: int = 0
    resting: bool = False
    pure: bool = True
    on_trial: bool = False


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All that one gateway serves, sorted by deployment, and whose tokens it takes where one is asked for."""

    deployments: tuple[DeploymentRoute, ...] = ()
    trust: Trust = field(default_factory=Trust)
