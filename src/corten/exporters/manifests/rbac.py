"""The least that whoever deploys must be allowed, as a Role: rules for what Corten asks of a cluster, and no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corten.exporters.base import Addition, Cluster
from corten.exporters.manifests.names import Manifest

_ALL = ("delete", "get", "list", "patch", "watch")
# Server-side apply of what is not there yet is a creation too.
_WRITE = ("create", *_ALL)
_ADDED: Mapping[Addition, tuple[str, tuple[str, ...]]] = {
    Addition.GATEWAY_API: ("gateway.networking.k8s.io", ("httproutes",)),
    Addition.KEDA: ("keda.sh", ("scaledobjects",)),
    Addition.KEDA_HTTP: ("http.keda.sh", ("interceptorroutes",)),
    Addition.KEDA_HTTP_ALPHA: ("http.keda.sh", ("httpscaledobjects",)),
    Addition.PROMETHEUS: ("monitoring.coreos.com", ("prometheusrules", "servicemonitors")),
}


def rules(cluster: Cluster) -> list[Manifest]:
    """What is asked of one namespace. Releases are Secrets, so these are among it: take a namespace of its own."""
    found = [
        _rule("", ("configmaps", "secrets", "serviceaccounts", "services"), _WRITE),
        _rule("", ("events",), ("get", "list", "watch")),
        _rule("", ("pods",), ("delete", "get", "list", "watch")),
        _rule("", ("pods/eviction",), ("create",)),
        _rule("", ("pods/log",), ("get",)),
        _rule("", ("pods/proxy", "services/proxy"), ("create", "get")),
        _rule("apps", ("deployments",), _WRITE),
        _rule("apps", ("deployments/scale",), ("patch",)),
        _rule("autoscaling", ("horizontalpodautoscalers",), _WRITE),
        _rule("networking.k8s.io", ("networkpolicies",), _WRITE),
        _rule("policy", ("poddisruptionbudgets",), _WRITE),
    ]
    found += [_rule(group, kinds, _WRITE) for addition, (group, kinds) in _ADDED.items() if cluster.has(addition)]
    if cluster.has(Addition.KNATIVE):
        group = "serving.knative.dev"
        found += [
            _rule(group, ("services",), tuple(verb for verb in _WRITE if verb != "watch")),
            # What the Service is made into; a revision that never served is taken away by hand.
            _rule(group, ("routes",), ("get",)),
            _rule(group, ("revisions",), ("delete", "get", "watch")),
        ]
    return found


def role(cluster: Cluster, account: str = "corten") -> list[Manifest]:
    """A Role, and a ServiceAccount bound to it, for a job that deploys."""
    namespace = {"namespace": cluster.namespace} if cluster.namespace else {}
    metadata = {"name": account, **namespace}
    subject = {"kind": "ServiceAccount", "name": account, **namespace}
    group = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": False},
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules(cluster)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
            "subjects": [subject],
        },
    ]


def guarded_namespace(name: str) -> Manifest:
    """A Namespace that lets in only what Pod Security's strictest level does: proof that deployments pass it."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _rule(group: str, resources: Sequence[str], verbs: Sequence[str]) -> Manifest:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
