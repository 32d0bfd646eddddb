"""In which order a change of routes reaches Envoy, so that at no moment a route leads nowhere. Pure.

Make before break: first what is added (clusters, endpoints), then routes, then what goes (draining, removed endpoints
and clusters). A table that moves the traffic from one revision to another in a single step therefore never leaves a
moment without an upstream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from corten.core.route import Endpoint, RouteTable
from corten.gateway import access, hold, resources
from corten.gateway.resources import GRPC
from corten.gateway.shape import Resource

# What Envoy subscribes to: ("clusters", ""), ("listeners", ""), ("routes", "main"), ("endpoints", "iris/r7").
Key = tuple[str, str]
CLUSTERS: Key = ("clusters", "")
LISTENERS: Key = ("listeners", "")
ROUTES: Key = ("routes", resources.ROUTES_NAME)
TOKENS: Key = ("extension_configs", access.TOKENS_NAME)
RATES: Key = ("extension_configs", access.RATES_NAME)
CERTIFICATE: Key = ("secrets", resources.CERTIFICATE_NAME)

Upstreams = Mapping[str, tuple[Endpoint, ...]]


def endpoints_key(cluster: str) -> Key:
    """The key of a cluster's endpoints."""
    return ("endpoints", cluster)


@dataclass(frozen=True, slots=True)
class Step:
    """Resources to publish together and to see in force before the next step.

    `upstreams` is what is in force then, `drop` the keys nobody asks for any more.
    """

    publish: Mapping[Key, list[Resource]]
    upstreams: Upstreams
    drop: frozenset[Key] = field(default_factory=frozenset)


def steps(have: Upstreams, want: RouteTable, hold_socket: Path) -> tuple[Step, Step, Step]:
    """The three steps (add, route, remove) from clusters and endpoints that are in force to a table.

    Steps repeat what does not change: publishing the same content again is no change to Envoy.
    """
    wanted = resources.endpoints_by_cluster(want)
    grown = {name: _grown(have.get(name, ()), endpoints) for name, endpoints in wanted.items()}
    gone = frozenset(have) - frozenset(wanted)
    both = {**have, **grown}
    # From the first step on, so that they have been checked when they are needed.
    instead = resources.substitutes(want)
    return (
        # Filters go before the routes that ask for them: until then nobody meets them.
        Step({CLUSTERS: resources.clusters(both), **_assignments(grown, instead, hold_socket), **_filters(want)}, both),
        Step({ROUTES: [resources.route_configuration(want)]}, both),
        Step(
            {CLUSTERS: resources.clusters(wanted), **_assignments(wanted, instead, hold_socket)},
            wanted,
            drop=frozenset(map(endpoints_key, gone)),
        ),
    )


def _filters(want: RouteTable) -> dict[Key, list[Resource]]:
    return {TOKENS: [access.tokens(want.trust)], RATES: [access.rates(want.deployments)]}


def _grown(have: tuple[Endpoint, ...], want: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """What is wanted, and what there is stays as it is: nothing that works is taken away yet."""
    by_address = {endpoint.address: endpoint for endpoint in want}
    by_address |= {endpoint.address: endpoint for endpoint in have if not endpoint.draining}
    return tuple(sorted(by_address.values()))


def _assignments(upstreams: Upstreams, instead: Upstreams, hold_socket: Path) -> dict[Key, list[Resource]]:
    return {
        endpoints_key(name): [_assignment(name, ends, instead.get(name, ()), hold_socket)]
        for name, ends in upstreams.items()
    }


def _assignment(
    name: str, endpoints: tuple[Endpoint, ...], instead: tuple[Endpoint, ...], hold_socket: Path
) -> Resource:
    made = resources.load_assignment(name, endpoints, instead)
    return hold.with_activator(made, hold.grpc_socket(hold_socket) if name.endswith(GRPC) else hold_socket)
