"""From what is there to what the gateway is told; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corten.control.records import ALL, Deployment, ReplicaRecord
from corten.core.deployment import ReplicaState
from corten.core.route import DeploymentRoute, Endpoint, RevisionRoute, RouteTable

_PARTS = 1000  # of a percent: so finely the others keep their proportions among themselves


def route_table(deployments: Sequence[Deployment], replicas: Sequence[ReplicaRecord]) -> RouteTable:
    """All routes. A revision's weight is the number of its replicas that were seen to take requests, so a new one gets
    its share only once the gateway can send to it. Draining ones stay listed until they end, for their answers.
    """
    return RouteTable(
        tuple(
            _deployment_route(each, [one for one in replicas if one.replica.deployment == each.name])
            for each in sorted(deployments, key=lambda each: each.name)
        )
    )


def steps(before: RouteTable, after: RouteTable) -> tuple[RouteTable, ...]:
    """The tables to apply one after the other so that no share points at a revision with nobody left in it.

    Usually one; two when a revision that had a share loses its last open endpoint: first the share, then the endpoint.
    """
    had = {(route.deployment, each.revision): each for route in before.deployments for each in route.revisions}
    moved = tuple(_without_early_drains(route, had) for route in after.deployments)
    between = replace(after, deployments=moved)
    return (after,) if between == after else (between, after)


def _without_early_drains(route: DeploymentRoute, had: dict[tuple[str, str], RevisionRoute]) -> DeploymentRoute:
    if not route.hold_s and not any(each.weight for each in route.revisions):
        # Nobody to move the share to: the gateway says 503 with Retry-After by itself.
        return route
    return replace(
        route, revisions=tuple(_keep_open(each, had.get((route.deployment, each.revision))) for each in route.revisions)
    )


def _keep_open(now: RevisionRoute, was: RevisionRoute | None) -> RevisionRoute:
    if was is None or not was.weight or now.weight:
        return now
    open_before = {each.address for each in was.endpoints if not each.draining}
    return replace(
        now,
        endpoints=tuple(
            replace(each, draining=each.draining and each.address not in open_before) for each in now.endpoints
        ),
    )


def _deployment_route(deployment: Deployment, replicas: Sequence[ReplicaRecord]) -> DeploymentRoute:
    # What will be started has its place in the gateway before: that takes longer than an endpoint in it.
    wanted = () if deployment.deleting else (deployment.wanted, deployment.serving)
    coming = {each.number for each in wanted if each}
    # What has ended keeps its place for as long as its log: what it had in hand is sent again to where it was.
    numbers = coming | {one.replica.revision for one in replicas if one.ready_s is not None and _was_listed(one)}
    routes = tuple(
        _revision_route(number, [one for one in replicas if one.replica.revision == number], gone=number not in coming)
        for number in sorted(numbers)
    )
    routes = _with_canary(deployment, routes)
    newest = deployment.serving or deployment.wanted
    if newest is None:
        return DeploymentRoute(deployment.name, routes, access=deployment.access)
    return DeploymentRoute(
        deployment.name,
        routes,
        max_body_bytes=newest.settings.max_body_bytes,
        timeout_s=newest.settings.request_timeout_s,
        grpc=newest.settings.grpc,
        access=deployment.access,
        mirror=deployment.canary.mirror if deployment.canary else 0,
        sticky=deployment.wanted.settings.canary.sticky if deployment.canary and deployment.wanted else "",
        hold_s=deployment.rest.hold_s if deployment.wanted and not deployment.deleting else 0.0,
        resting=deployment.wanted is not None and not deployment.replicas and not deployment.deleting,
        pure=newest.settings.pure,
        on_trial=deployment.canary is not None,
    )


def _with_canary(deployment: Deployment, routes: tuple[RevisionRoute, ...]) -> tuple[RevisionRoute, ...]:
    """A canary's share is as decided, however many replicas it has; while one side has none, the other has all."""
    rollout = deployment.canary
    if rollout is None:
        return routes
    target = f"r{rollout.target}"
    if rollout.mirror:
        # Whatever becomes of the others: no client may get its answers.
        return tuple(replace(each, weight=0) if each.revision == target else each for each in routes)
    rest = sum(each.weight for each in routes if each.revision != target)
    if not rest or not any(each.weight for each in routes if each.revision == target):
        return routes
    # Always the same sum: whom a growing share has by the hash of a header, it keeps.
    left = (ALL - rollout.share) * _PARTS
    parts = {each.revision: left * each.weight // rest for each in routes if each.revision != target}
    first = max(parts, key=lambda revision: (parts[revision], revision))
    parts[first] += left - sum(parts.values())
    return tuple(replace(each, weight=parts.get(each.revision, rollout.share * _PARTS)) for each in routes)


def _revision_route(number: int, replicas: Sequence[ReplicaRecord], *, gone: bool) -> RevisionRoute:
    listed = [one for one in replicas if _listed(one)]
    return RevisionRoute(
        revision=f"r{number}",
        weight=sum(one.routed and one.replica.state is ReplicaState.READY for one in listed),
        endpoints=tuple(
            sorted(
                Endpoint(one.replica.address, draining=one.replica.state is not ReplicaState.READY) for one in listed
            )
        ),
        gone=gone and not listed,
    )


def _listed(one: ReplicaRecord) -> bool:
    """Ready ones, and those that were ready and are on their way out; a starting one is not known to the gateway."""
    match one.replica.state:
        case ReplicaState.READY | ReplicaState.DRAINING:
            return bool(one.replica.address)
        case ReplicaState.STARTING | ReplicaState.FROZEN | ReplicaState.STOPPING | ReplicaState.EXITED:
            return False


def _was_listed(one: ReplicaRecord) -> bool:
    match one.replica.state:
        case ReplicaState.READY | ReplicaState.DRAINING | ReplicaState.STOPPING | ReplicaState.EXITED:
            return bool(one.replica.address)
        case ReplicaState.STARTING | ReplicaState.FROZEN:
            return False
