"""Who decides how many pods there are."""

from __future__ import annotations

from corten.exporters.base import HTTP_PORT, Addition, Workload, refuse
from corten.exporters.manifests.names import CONTAINER, Manifest, Track, manifest, object_name
from corten.exporters.manifests.network import SERVICE_PORT

_UP_TOLERANCE = (1, 35)
_BUSY_PERCENT = 70
# How much of the wanted concurrency replicas are to have: the rest is for what comes before there is another one.
_LOAD = 0.7
_POLL_S = 5
_IDLE_S = 300


def scalers(workload: Workload) -> list[Manifest]:
    """The objects that own the number of replicas; none where that is fixed. Raises UsageError `render.unsupported`."""
    if not workload.scales:
        return []
    cluster = workload.cluster
    if cluster.holds and workload.host and workload.settings.replicas == 0:
        if not cluster.has(Addition.KEDA_HTTP):
            return [_held_object(workload)]
        return [_interceptor_route(workload), _scaled_object(workload, _held(workload))]
    if workload.settings.replicas == 0:
        raise refuse(
            "kubernetes",
            f"`replicas = 0..{workload.most}`",
            why="a HorizontalPodAutoscaler has nothing to measure then, and nothing holds the first request; "
            "the HTTP add-on of KEDA does, by host name, and Knative",
            hint=f"replicas = 1..{workload.most}; with the add-on: --host NAME (corten render: --with keda-http); "
            "or where Knative is (corten render: --with knative)",
        )
    if cluster.has(Addition.KEDA):
        return [_scaled_object(workload, _counted(workload))]
    return [_autoscaler(workload)]


def _autoscaler(workload: Workload) -> Manifest:
    # Of the container alone: a sidecar's idleness would hide its load.
    busy = {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu",
            "container": CONTAINER,
            "target": {"type": "Utilization", "averageUtilization": _BUSY_PERCENT},
        },
    }
    spec = {
        "scaleTargetRef": _target(workload),
        "minReplicas": workload.settings.replicas,
        "maxReplicas": workload.most,
        "metrics": [busy],
        "behavior": _behavior(tolerant=workload.cluster.version >= _UP_TOLERANCE),
    }
    return manifest("autoscaling/v2", "HorizontalPodAutoscaler", object_name(workload), workload, spec=spec)


def _behavior(*, tolerant: bool) -> Manifest:
    """Up at once, doubling or by four; down slowly, since what went is missed when it is needed again."""
    up: Manifest = {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Pods", "value": 4, "periodSeconds": 15},
            {"type": "Percent", "value": 100, "periodSeconds": 15},
        ],
    }
    if tolerant:
        up["tolerance"] = "50m"
    down = {"type": "Percent", "value": 25, "periodSeconds": 60}
    return {"scaleUp": up, "scaleDown": {"stabilizationWindowSeconds": _IDLE_S, "policies": [down]}}


def _scaled_object(workload: Workload, trigger: Manifest) -> Manifest:
    spec: Manifest = {
        "scaleTargetRef": _target(workload),
        "minReplicaCount": workload.settings.replicas,
        "maxReplicaCount": workload.most,
        "pollingInterval": _POLL_S,
        "cooldownPeriod": _idle_s(workload),
        # Without `tolerance`: what KEDA knows of it depends on KEDA's version, not the cluster's.
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(tolerant=False)}},
        "triggers": [trigger],
    }
    if trigger["type"] == "metrics-api":
        # Who cannot count keeps what is there.
        spec["fallback"] = {
            "failureThreshold": 3,
            "replicas": workload.settings.replicas,
            "behavior": "currentReplicas",
        }
    return manifest("keda.sh/v1alpha1", "ScaledObject", object_name(workload), workload, spec=spec)


def _counted(workload: Workload) -> Manifest:
    """Requests in flight, asked of each pod and added up: neither Prometheus nor an adapter is needed for it."""
    namespace = f".{workload.cluster.namespace}" if workload.cluster.namespace else ""
    return {
        "type": "metrics-api",
        "metadata": {
            "url": f"http://{object_name(workload)}{namespace}:{HTTP_PORT}/metrics",
            "format": "prometheus",
            "valueLocation": "corten_in_flight",
            "aggregateFromKubeServiceEndpoints": "true",
            "aggregationType": "sum",
            "targetValue": target_in_flight(workload),
        },
    }


def target_in_flight(workload: Workload) -> str:
    """How many requests in flight a replica is to have, as text."""
    return f"{max(1.0, _LOAD * workload.settings.concurrency):g}"


def _held(workload: Workload) -> Manifest:
    scaler = "keda-add-ons-http-external-scaler"
    return {
        "type": "external-push",
        "metadata": {
            "scalerAddress": f"{scaler}.{workload.cluster.scalers}:9090",
            "interceptorRoute": object_name(workload),
        },
    }


def _interceptor_route(workload: Workload) -> Manifest:
    spec = {
        "target": {"service": object_name(workload), "port": SERVICE_PORT},
        "rules": [{"hosts": [workload.host]}],
        "scalingMetric": {"concurrency": {"targetValue": max(1, round(float(target_in_flight(workload))))}},
        "timeouts": {"readiness": f"{workload.settings.rest.hold_s:.0f}s"},
    }
    return manifest("http.keda.sh/v1beta1", "InterceptorRoute", object_name(workload), workload, spec=spec)


def _held_object(workload: Workload) -> Manifest:
    """In the older API one object is route and scaler: the add-on makes a ScaledObject of it."""
    spec = {
        "hosts": [workload.host],
        "scaleTargetRef": {**_target(workload), "service": object_name(workload), "port": SERVICE_PORT},
        "replicas": {"min": 0, "max": workload.most},
        "scalingMetric": {"concurrency": {"targetValue": max(1, round(float(target_in_flight(workload))))}},
        "scaledownPeriod": _idle_s(workload),
    }
    return manifest("http.keda.sh/v1alpha1", "HTTPScaledObject", object_name(workload), workload, spec=spec)


def _idle_s(workload: Workload) -> int:
    return round(workload.settings.rest.stop_after_s) or _IDLE_S


def _target(workload: Workload) -> Manifest:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": object_name(workload, Track.STABLE)}
