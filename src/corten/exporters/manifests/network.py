"""How requests find the pods, and what the pods may reach."""

from __future__ import annotations

from corten.core.route import GRPC_PORT
from corten.exporters.base import HTTP_PORT, Addition, Workload
from corten.exporters.manifests import knative
from corten.exporters.manifests.names import (
    GRPC,
    HTTP,
    Manifest,
    Track,
    manifest,
    object_name,
    selector,
)

SERVICE_PORT = 80
# Of the proxy that Knative puts into each pod: requests, the same with TLS, what its autoscaler counts by.
_PROXY_PORTS = (8012, 8112, 9090)
_REVISION_HEADER = "x-corten-revision"
_NAMESPACE_NAME = "kubernetes.io/metadata.name"
# Where clouds keep the credentials of their machines, and its IPv6 twin.
_METADATA = "169.254.0.0/16"
_METADATA_6 = "fe80::/10"


def by_weight(workload: Workload) -> bool:
    """Whether a gateway shares the requests out; else pods get them by their number."""
    return workload.cluster.has(Addition.GATEWAY_API) and bool(workload.cluster.gateway)


def services(workload: Workload) -> list[Manifest]:
    """One for who serves; with a gateway, one more for who is tried, since weights need two."""
    if not by_weight(workload):
        return [_service(workload, Track.STABLE, selector(workload, None))]
    return [_service(workload, track, selector(workload, track)) for track in Track]


def http_route(workload: Workload, canary_weight: int = 0) -> Manifest:
    """By host where one is named, else by the path `/NAME/`, which the pods do not see."""
    namespace, _, gateway = workload.cluster.gateway.rpartition("/")
    parent: Manifest = {"name": gateway}
    if namespace:
        parent["namespace"] = namespace
    path = {"type": "PathPrefix", "value": "/" if workload.host else f"/{workload.name}"}
    rule: Manifest = {
        "matches": [{"path": path}],
        "backendRefs": [
            _backend(workload, Track.STABLE, 100 - canary_weight),
            _backend(workload, Track.CANARY, canary_weight),
        ],
        "timeouts": {"request": _duration(workload.settings.request_timeout_s)},
    }
    if not workload.host:
        rewrite = {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}
        rule["filters"] = [{"type": "URLRewrite", "urlRewrite": rewrite}]
    spec: Manifest = {"parentRefs": [parent]}
    if workload.host:
        spec["hostnames"] = [workload.host]
    forced = [_forced(rule, workload)] if workload.settings.pinnable else []
    spec["rules"] = [*forced, rule]
    return manifest("gateway.networking.k8s.io/v1", "HTTPRoute", object_name(workload), workload, spec=spec)


def network_policy(workload: Workload) -> Manifest:
    """Nothing in but from the gateway, this namespace and who measures; nothing out unless the deployment says so."""
    cluster = workload.cluster
    asked = _ports(HTTP_PORT, *([GRPC_PORT] if workload.settings.grpc else []))
    # kube-system: from there API servers that are elsewhere reach pods, and `corten deploy` asks through them.
    peers: list[Manifest] = [{"podSelector": {}}, _namespace("kube-system")]
    if by_weight(workload) and "/" in cluster.gateway:
        peers.append(_namespace(cluster.gateway.partition("/")[0]))
    ingress: list[Manifest] = [{"from": peers, "ports": asked}]
    readers = [cluster.monitoring] if cluster.monitoring else []
    if workload.scales and cluster.scalers and (cluster.has(Addition.KEDA) or cluster.holds):
        readers.append(cluster.scalers)
    if readers:
        ingress.append({"from": [_namespace(reader) for reader in readers], "ports": _ports(HTTP_PORT)})
    return _policy(workload, ingress)


def policy_for_knative(workload: Workload) -> Manifest:
    """The same where Knative runs it: asked by its activator alone, which holds requests while there is no pod.

    The model's own port is for who measures, and for canaries, which are judged through the API server.
    """
    readers = ["kube-system", *([workload.cluster.monitoring] if workload.cluster.monitoring else [])]
    ingress: list[Manifest] = [
        {"from": [_namespace(knative.NAMESPACE)], "ports": _ports(*_PROXY_PORTS)},
        {"from": [_namespace(reader) for reader in readers], "ports": _ports(HTTP_PORT)},
    ]
    return _policy(workload, ingress)


def _policy(workload: Workload, ingress: list[Manifest]) -> Manifest:
    spec = {
        "podSelector": {"matchLabels": selector(workload, None)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": _egress() if workload.settings.egress else [],
    }
    return manifest("networking.k8s.io/v1", "NetworkPolicy", object_name(workload), workload, spec=spec)


def _service(workload: Workload, track: Track, chosen: dict[str, str]) -> Manifest:
    ports: list[Manifest] = [
        {"name": HTTP, "port": SERVICE_PORT, "targetPort": HTTP, "protocol": "TCP", "appProtocol": "http"}
    ]
    if workload.settings.grpc:
        h2c = "kubernetes.io/h2c"
        ports.append({"name": GRPC, "port": GRPC_PORT, "targetPort": GRPC, "protocol": "TCP", "appProtocol": h2c})
    spec = {"type": "ClusterIP", "selector": chosen, "ports": ports}
    return manifest("v1", "Service", object_name(workload, track), workload, spec=spec)


def _backend(workload: Workload, track: Track, weight: int) -> Manifest:
    return {"name": object_name(workload, track), "port": SERVICE_PORT, "weight": weight}


def _forced(rule: Manifest, workload: Workload) -> Manifest:
    match = {**rule["matches"][0], "headers": [{"name": _REVISION_HEADER, "value": Track.CANARY.value}]}
    return {**rule, "matches": [match], "backendRefs": [_backend(workload, Track.CANARY, 1)]}


def _egress() -> list[Manifest]:
    dns = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    anywhere = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": [_METADATA]}},
        {"ipBlock": {"cidr": "::/0", "except": [_METADATA_6]}},
    ]
    return [{"to": [_namespace("kube-system")], "ports": dns}, {"to": anywhere}]


def _ports(*numbers: int) -> list[Manifest]:
    return [{"port": number, "protocol": "TCP"} for number in numbers]


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {_NAMESPACE_NAME: name}}}


def _duration(seconds: float) -> str:
    # GEP-2257: whole numbers only. 0s is no limit.
    return f"{max(1, round(seconds * 1000))}ms" if seconds % 1 else f"{seconds:.0f}s"
