"""Make objects so, hand over what a scaler is to own, and take away what is not wanted any more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from corten.cluster.kinds import DEPLOYMENT, KNATIVE_SERVICE, OWNED, POD, SERVICE, Kind, kind_of
from corten.cluster.port import MANAGER, Api, Manifest
from corten.exporters.base import Cluster
from corten.exporters.manifests.names import DEPLOYMENT_LABEL, MANAGED_BY

_HANDOVER = "corten-scale"
_MERGE = "application/merge-patch+json"
SCALERS = ("HorizontalPodAutoscaler", "ScaledObject", "HTTPScaledObject")
# What is named by others is made before them and goes after them.
Identity = tuple[Kind, str]


def identity(manifest: Manifest) -> Identity:
    """Which object that is."""
    return kind_of(manifest), str(manifest["metadata"]["name"])


def try_out(api: Api, before: Sequence[Manifest], wanted: Sequence[Manifest], namespace: str) -> None:
    """Have the cluster check everything and change nothing. It does not find all: a port is given out only for real."""
    to_take = _number_to_take(api, before, wanted, namespace) is not None
    for manifest in wanted:
        # Somebody owns the number until it is taken back.
        api.apply(_without_replicas(manifest) if to_take else manifest, namespace, dry_run=True)


def apply(api: Api, manifests: Sequence[Manifest], namespace: str) -> None:
    """Make them so, in their order."""
    for manifest in manifests:
        if manifest["kind"] == DEPLOYMENT.name and "replicas" not in manifest["spec"]:
            _hand_over(api, manifest, namespace)
        api.apply(manifest, namespace)


def take_back(api: Api, before: Sequence[Manifest], wanted: Sequence[Manifest], namespace: str) -> None:
    """End scalers that are not wanted any more, before others come or the number is fixed again; then it is ours."""
    to_take = _number_to_take(api, before, wanted, namespace)
    for kind, name in _leaving(before, wanted):
        api.delete(kind, name, namespace)
    if to_take is not None:
        set_replicas(api, to_take["metadata"]["name"], to_take["spec"]["replicas"], namespace)


def set_replicas(api: Api, name: str, replicas: int, namespace: str) -> None:
    """By the scale subresource: whoever writes there owns the number, whoever did before."""
    api.ask(
        "PATCH",
        DEPLOYMENT.path(namespace, name, "scale"),
        query={"fieldManager": _HANDOVER},
        body=json.dumps({"spec": {"replicas": replicas}}).encode(),
        media_type=_MERGE,
    )


def prune(api: Api, before: Iterable[Manifest], wanted: Sequence[Manifest], namespace: str) -> list[Identity]:
    """End what was wanted before and is not now, last things first.

    Where Knative runs what is wanted, the Service of its name is Knative's by now.
    """
    kept = {identity(manifest) for manifest in wanted}
    kept |= {(SERVICE, name) for kind, name in kept if kind == KNATIVE_SERVICE}
    gone = dict.fromkeys(each for each in map(identity, before) if each not in kept)
    return [(kind, name) for kind, name in reversed(gone) if api.delete(kind, name, namespace)]


def inventory(api: Api, name: str, cluster: Cluster) -> list[Identity]:
    """All objects of a deployment that are there, whoever remembers them, found by their labels.

    What a controller made of one of them has the labels too, and goes with it.
    """
    kinds = [kind for kind in OWNED if kind.addition is None or cluster.has(kind.addition)]
    labels = f"{DEPLOYMENT_LABEL}={name},{MANAGED_BY}=corten"
    return [
        (kind, str(one["metadata"]["name"]))
        for kind in kinds
        for one in api.list(kind, cluster.namespace, labels).items
        if not is_made_by_another(one)
    ]


def is_made_by_another(live: Manifest) -> bool:
    """Whether it is a controller's, which made it of something else."""
    return any(owner.get("controller") for owner in live["metadata"].get("ownerReferences", []))


def may_rest(manifest: Manifest) -> bool:
    """Whether it is a scaler that may end the last replica."""
    return _least(manifest) == 0


def awake(manifest: Manifest) -> Manifest:
    """A scaler that keeps a replica meanwhile, where it may end the last one; anything else as it is.

    What is asked by its scaler stays there; who only set the number would have it taken back at the next look.
    """
    if not may_rest(manifest):
        return manifest
    spec = manifest["spec"]
    if "replicas" in spec:
        return {**manifest, "spec": {**spec, "replicas": {**spec["replicas"], "min": 1}}}
    return {**manifest, "spec": {**spec, "minReplicaCount": 1}}


def _least(manifest: Manifest) -> int | None:
    """How many replicas a scaler of KEDA's leaves; None for any other object."""
    match manifest["kind"]:
        case "ScaledObject":
            return int(manifest["spec"].get("minReplicaCount", 0))
        case "HTTPScaledObject":
            return int(manifest["spec"]["replicas"].get("min", 0))
        case _:
            return None


def pods_of(api: Api, name: str, namespace: str, *, track: str = "") -> tuple[Manifest, ...]:
    """A deployment's pods."""
    wanted = f",corten.dev/track={track}" if track else ""
    return api.list(POD, namespace, labels=f"{DEPLOYMENT_LABEL}={name}{wanted}").items


def _leaving(before: Sequence[Manifest], wanted: Sequence[Manifest]) -> list[Identity]:
    kept = {identity(one) for one in wanted}
    return [identity(one) for one in before if one["kind"] in SCALERS and identity(one) not in kept]


def _without_replicas(manifest: Manifest) -> Manifest:
    spec = manifest.get("spec", {})
    if manifest["kind"] != DEPLOYMENT.name or "replicas" not in spec:
        return manifest
    return {**manifest, "spec": {key: value for key, value in spec.items() if key != "replicas"}}


def _hand_over(api: Api, manifest: Manifest, namespace: str) -> None:
    """Applying without a number that was ours would take it away, and the default is one pod (kserve#3768).

    So somebody else owns it in between: until the scaler writes its own.
    """
    name = manifest["metadata"]["name"]
    live = api.get(DEPLOYMENT, name, namespace)
    if live is None or not _owns_replicas(live):
        return
    bare = {key: manifest[key] for key in ("apiVersion", "kind")}
    kept = {"metadata": {"name": name}, "spec": {"replicas": live["spec"]["replicas"]}}
    api.apply({**bare, **kept}, namespace, manager=_HANDOVER)


def _owns_replicas(live: Manifest) -> bool:
    return MANAGER in _owners_of_number(live)


def _owners_of_number(live: Manifest) -> set[str]:
    return {
        str(entry.get("manager", ""))
        for entry in live["metadata"].get("managedFields", [])
        if "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
    }


def _number_to_take(
    api: Api, before: Sequence[Manifest], wanted: Sequence[Manifest], namespace: str
) -> Manifest | None:
    """The Deployment whose number of replicas a scaler of ours, or `corten k8s scale`, owns and is to own no more."""
    fixed = next((one for one in wanted if one["kind"] == DEPLOYMENT.name and "replicas" in one["spec"]), None)
    live = api.get(DEPLOYMENT, fixed["metadata"]["name"], namespace) if fixed else None
    if fixed is None or live is None or live["spec"].get("replicas") == fixed["spec"]["replicas"]:
        return None
    others = _owners_of_number(live) - {MANAGER}
    ours = bool(others) and others <= {_HANDOVER}
    return fixed if ours or _leaving(before, wanted) else None
