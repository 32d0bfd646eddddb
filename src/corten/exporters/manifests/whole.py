"""All objects of one deployment, in the order they are to be created."""

from __future__ import annotations

from corten.exporters.base import Addition, Workload, refuse, refuse_what_only_our_gateway_does
from corten.exporters.manifests import deployment, monitoring, network, scaling
from corten.exporters.manifests.names import Manifest


def objects(workload: Workload) -> list[Manifest]:
    """What a deployment is in a cluster. Raises UsageError `render.unsupported`."""
    refuse_what_only_our_gateway_does("kubernetes", workload.settings)
    if workload.settings.canary.sticky:
        raise refuse(
            "kubernetes",
            "`sticky`",
            why="routes of the Gateway API share requests out by weight alone",
            hint="leave it out",
        )
    found = [deployment.service_account(workload)]
    if workload.settings.env:
        found.append(deployment.config_map(workload))
    # Before the pods: a policy that comes later leaves a moment in which everything may be reached.
    found += [network.network_policy(workload), *network.services(workload), deployment.deployment(workload)]
    if workload.settings.replicas > 1:
        found.append(deployment.disruption_budget(workload))
    found += scaling.scalers(workload)
    if network.by_weight(workload):
        found.append(network.http_route(workload))
    if workload.cluster.has(Addition.PROMETHEUS):
        found += monitoring.watchers(workload)
    return found
