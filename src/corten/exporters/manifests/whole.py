"""All objects of one deployment, in the order they are to be created."""

from __future__ import annotations

from collections.abc import Sequence

from corten.errors import UsageError
from corten.exporters.base import (
    Addition,
    Workload,
    refuse,
    refuse_devices,
    refuse_what_only_our_gateway_does,
)
from corten.exporters.manifests import deployment, knative, monitoring, network, scaling
from corten.exporters.manifests.names import Manifest
from corten.exporters.rules import check


def objects(workload: Workload) -> list[Manifest]:
    """What a deployment is in a cluster. Raises UsageError `render.unsupported`, `render.invalid`."""
    found = _objects(workload)
    refuse_what_is_wrong(found)
    return found


def refuse_what_is_wrong(manifests: Sequence[Manifest]) -> None:
    """Raises UsageError `render.invalid` for objects that a cluster would refuse, or take and never run."""
    if wrong := check(manifests):
        raise UsageError(
            "render.invalid",
            f"{wrong[0].kind} `{wrong[0].name}` would not work",
            where=wrong[0].path,
            why="; ".join([wrong[0].why, *map(str, wrong[1:4])]),
            hint="give the deployment another name: --name" if wrong[0].path == "metadata.name" else "",
        )


def _objects(workload: Workload) -> list[Manifest]:
    refuse_what_only_our_gateway_does("kubernetes", workload.settings)
    refuse_devices("kubernetes", workload.settings)
    if workload.settings.canary.sticky:
        raise refuse(
            "kubernetes",
            "`sticky`",
            why="routes of the Gateway API share requests out by weight alone",
            hint="leave it out",
        )
    if knative.runs(workload):
        knative.refuse_what_it_has_not("kubernetes", workload)
        _refuse_ways_past_knative(workload)
        return of_knative(workload)
    _refuse_what_leads_nowhere(workload)
    found = [*_beneath(workload), network.network_policy(workload)]
    found += [*network.services(workload), deployment.deployment(workload)]
    if workload.settings.replicas > 1:
        found.append(deployment.disruption_budget(workload))
    found += scaling.scalers(workload)
    if network.by_weight(workload):
        found.append(network.http_route(workload))
    if workload.cluster.has(Addition.PROMETHEUS):
        found += monitoring.watchers(workload)
    return found


def of_knative(workload: Workload) -> list[Manifest]:
    """What a deployment is where Knative runs it."""
    return [*_beneath(workload), network.policy_for_knative(workload), knative.service(workload)]


def _beneath(workload: Workload) -> list[Manifest]:
    """What is there before the policy and the pods: a policy that comes later leaves a moment without one."""
    account = deployment.service_account(workload)
    return [account, deployment.config_map(workload)] if workload.settings.env else [account]


def _refuse_ways_past_knative(workload: Workload) -> None:
    for flag, asked in (("--host", workload.host), ("--gateway", workload.cluster.gateway)):
        if asked:
            raise refuse(
                "kubernetes",
                f"`{flag} {asked}` of a deployment that Knative runs, since it may have no replica",
                why="Knative has gateways and host names of its own: NAME.NAMESPACE and the domain of config-domain",
                hint="leave it out; another host name is a DomainMapping of Knative's",
            )


def _refuse_what_leads_nowhere(workload: Workload) -> None:
    cluster = workload.cluster
    if cluster.gateway and not cluster.has(Addition.GATEWAY_API):
        raise refuse(
            "kubernetes",
            f"a route through `{cluster.gateway}`",
            why="the cluster has no Gateway API",
            hint="install it, or leave out --gateway; corten render: --with gateway-api",
        )
    if cluster.gateway and workload.scales and workload.settings.replicas == 0:
        raise refuse(
            "kubernetes",
            f"a route through `{cluster.gateway}` to a deployment that may have no replica",
            why="a route of ours leads to the pods, past the add-on that holds the first request",
            hint="leave out --gateway, and lead the host to the Service keda-add-ons-http-interceptor-proxy of KEDA",
        )
    if workload.host and not network.by_weight(workload) and not cluster.holds:
        raise refuse(
            "kubernetes",
            f"the host name `{workload.host}`",
            why="without a gateway nothing knows hosts",
            hint="name the Gateway it is for: --gateway NAMESPACE/NAME",
        )
