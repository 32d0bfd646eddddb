"""`corten doctor --engine kubernetes`: what a cluster is, has, allows and keeps apart, found out by trying."""

from __future__ import annotations

import json
from collections.abc import Iterator

from corten.cluster.deploying import Clock
from corten.cluster.facts import discover
from corten.cluster.kinds import DEPLOYMENT
from corten.cluster.lightkube_api import connect
from corten.cluster.port import Api, Manifest
from corten.cluster.probing import Isolation, isolation
from corten.errors import CortenError
from corten.exporters.base import Addition, Cluster
from corten.exporters.manifests.names import MANAGED_BY, REVISION_LABEL
from corten.exporters.manifests.rbac import rules
from corten.ops.doctor import Check, Outcome
from corten.ops.kubernetes import Place

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_PROBE_S = 90.0


def doctor(place: Place, *, clock: Clock | None = None) -> tuple[Check, ...]:
    """Run all checks; none of them raises. Two small pods are started and taken away where a deployment of ours is."""
    try:
        with connect(place.context) as api:
            return tuple(_checks(api, place.namespace or api.namespace, clock or Clock()))
    except CortenError as error:
        return (Check("cluster", Outcome.FAILED, str(error), error.hint),)


def _checks(api: Api, namespace: str, clock: Clock) -> Iterator[Check]:
    cluster = discover(api, Cluster(namespace=namespace))
    major, minor = cluster.version
    yield Check("cluster", Outcome.OK, f"Kubernetes {major}.{minor} at {api.server}, namespace {namespace}")
    has = ", ".join(sorted(one.value for one in cluster.additions))
    yield Check("additions", Outcome.INFO, has or "none that Corten uses: replicas by HorizontalPodAutoscaler")
    yield _zero(cluster)
    lacking = [f"{verb} {resource}" for verb, resource in _lacking(api, cluster)]
    if lacking:
        hint = "have the Role of `corten k8s rbac` applied by who may"
        yield Check("rights", Outcome.FAILED, "may not " + ", ".join(lacking), hint)
    else:
        yield Check("rights", Outcome.OK, "all that deploying needs")
    yield _policies(api, namespace, clock)


def _zero(cluster: Cluster) -> Check:
    ways = ["KEDA's HTTP add-on, with --host NAME"] if cluster.holds else []
    ways += ["Knative"] if cluster.has(Addition.KNATIVE) else []
    if not ways:
        hint = "install Knative Serving, or KEDA with its HTTP add-on, for deployments that may have no replica"
        return Check("zero", Outcome.INFO, "nothing holds a request: replicas never go to 0", hint)
    return Check("zero", Outcome.INFO, f"replicas may go to 0 (--replicas 0..N) by {' or '.join(ways)}")


def _lacking(api: Api, cluster: Cluster) -> Iterator[tuple[str, str]]:
    """What of the least Role is not allowed, asked of the API server one by one."""
    for rule in rules(cluster):
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                name, _, below = resource.partition("/")
                attributes = {
                    "namespace": cluster.namespace,
                    "verb": verb,
                    "group": rule["apiGroups"][0],
                    "resource": name,
                    "subresource": below,
                }
                asked = {
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SelfSubjectAccessReview",
                    "spec": {"resourceAttributes": attributes},
                }
                answer = api.ask("POST", _REVIEWS, body=json.dumps(asked).encode())
                if not json.loads(answer.body)["status"]["allowed"]:
                    yield verb, resource


def _policies(api: Api, namespace: str, clock: Clock) -> Check:
    name = "policies"
    try:
        model = _deployed(api, namespace)
        if model is None:
            found = "whether NetworkPolicies are enforced is tried with the image of a deployment: there is none"
            return Check(name, Outcome.INFO, found, "corten deploy first, then again")
        match isolation(api, model, namespace, clock.patience(_PROBE_S)):
            case Isolation.ENFORCED:
                return Check(name, Outcome.OK, "NetworkPolicies are enforced: tried with two pods")
            case Isolation.IGNORED:
                found = "NetworkPolicies are taken and NOT enforced: models reach whatever they want"
                hint = "install a network that enforces them (Calico, Cilium), or switch that on in yours"
                return Check(name, Outcome.WARNING, found, hint)
            case Isolation.UNKNOWN:
                found = "whether NetworkPolicies are enforced is unknown: the pods did not start, or reached nothing"
                return Check(name, Outcome.WARNING, found)
    except CortenError as error:
        return Check(name, Outcome.WARNING, f"not tried: {error}", error.hint)


def _deployed(api: Api, namespace: str) -> Manifest | None:
    found = api.list(DEPLOYMENT, namespace, labels=f"{MANAGED_BY}=corten,{REVISION_LABEL}").items
    return found[0] if found else None
