"""The kinds of objects that are spoken of with a cluster, and where its API has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corten.exporters.base import Addition


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind: `api` is its group and version (`apps/v1`, `v1`), `addition` what a cluster must have for it."""

    api: str
    name: str
    plural: str
    namespaced: bool = True
    addition: Addition | None = None

    @property
    def group(self) -> str:
        """Empty for the core's."""
        return self.api.rpartition("/")[0]

    def path(self, namespace: str, name: str = "", sub: str = "") -> str:
        """The path of a collection, an object or one of its subresources."""
        root = f"/apis/{self.api}" if "/" in self.api else f"/api/{self.api}"
        within = f"/namespaces/{namespace}" if self.namespaced else ""
        return "/".join(part for part in (f"{root}{within}/{self.plural}", name, sub) if part)


NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
SECRET = Kind("v1", "Secret", "secrets")
SERVICE = Kind("v1", "Service", "services")
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events")
DAEMON_SET = Kind("apps/v1", "DaemonSet", "daemonsets")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
AUTOSCALER = Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
ROUTE = Kind("gateway.networking.k8s.io/v1", "HTTPRoute", "httproutes", addition=Addition.GATEWAY_API)
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects", addition=Addition.KEDA)
INTERCEPTOR = Kind("http.keda.sh/v1beta1", "InterceptorRoute", "interceptorroutes", addition=Addition.KEDA_HTTP)
HELD_OBJECT = Kind("http.keda.sh/v1alpha1", "HTTPScaledObject", "httpscaledobjects", addition=Addition.KEDA_HTTP_ALPHA)
KNATIVE_SERVICE = Kind("serving.knative.dev/v1", "Service", "services", addition=Addition.KNATIVE)
KNATIVE_ROUTE = Kind("serving.knative.dev/v1", "Route", "routes", addition=Addition.KNATIVE)
REVISION = Kind("serving.knative.dev/v1", "Revision", "revisions", addition=Addition.KNATIVE)
MONITOR = Kind("monitoring.coreos.com/v1", "ServiceMonitor", "servicemonitors", addition=Addition.PROMETHEUS)
RULE = Kind("monitoring.coreos.com/v1", "PrometheusRule", "prometheusrules", addition=Addition.PROMETHEUS)

# What a deployment may consist of, in the order of creation.
OWNED = (
    SERVICE_ACCOUNT,
    CONFIG_MAP,
    POLICY,
    SERVICE,
    DEPLOYMENT,
    KNATIVE_SERVICE,
    BUDGET,
    AUTOSCALER,
    INTERCEPTOR,
    HELD_OBJECT,
    SCALED_OBJECT,
    ROUTE,
    MONITOR,
    RULE,
)
_BY_NAME: Mapping[tuple[str, str], Kind] = {
    (kind.api, kind.name): kind for kind in (*OWNED, NAMESPACE, SECRET, POD, EVENT)
}


def kind_of(manifest: Mapping[str, Any]) -> Kind:
    """The kind of an object that was rendered here."""
    return _BY_NAME[manifest["apiVersion"], manifest["kind"]]
