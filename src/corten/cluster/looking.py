"""What runs in a cluster: deployments, their releases and pods, and what keeps them from serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corten.cluster import knative, release
from corten.cluster.kinds import DEPLOYMENT, KNATIVE_SERVICE, POD
from corten.cluster.objects import is_made_by_another
from corten.cluster.port import Api, Manifest
from corten.cluster.release import Release, ReleaseState
from corten.cluster.rollout import Progress, Step, condition_of, diagnose, is_ready, progress
from corten.exporters.manifests.names import DEPLOYMENT_LABEL, MANAGED_BY, REVISION_LABEL, TRACK_LABEL, Track


@dataclass(frozen=True, slots=True)
class PodView:
    """One pod. `state`: ready, starting, ending; `reason` what keeps it from serving."""

    name: str
    revision: str
    track: str
    state: str
    restarts: int
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class ClusterDeployment:
    """One deployment. `state`: serving, progressing, degraded, stopped; `canary` is the release that is being tried."""

    name: str
    revision: str
    canary: str
    ready: int
    wanted: int
    state: str
    reason: str
    image: str
    pods: tuple[PodView, ...]

    def as_dict(self) -> dict[str, Any]:
        """As it stands in `--json` output."""
        return {
            "name": self.name,
            "revision": self.revision,
            "canary": self.canary,
            "ready": self.ready,
            "wanted": self.wanted,
            "state": self.state,
            "reason": self.reason,
            "image": self.image,
            "replicas": [
                {
                    "id": pod.name,
                    "revision": pod.revision,
                    "track": pod.track,
                    "state": pod.state,
                    "restarts": pod.restarts,
                    "node": pod.node,
                    "reason": pod.reason,
                }
                for pod in self.pods
            ],
        }


def look(api: Api, namespace: str) -> list[ClusterDeployment]:
    """Everything of ours in a namespace, in three requests, or four where Knative runs some of it."""
    mine = f"{MANAGED_BY}=corten"
    deployments = api.list(DEPLOYMENT, namespace, mine).items
    pods = api.list(POD, namespace, mine).items
    releases = release.everybodys(api, namespace)
    stable = [
        one for one in deployments if _label(one, TRACK_LABEL) == Track.STABLE.value and not is_made_by_another(one)
    ]
    found = [_view(one, pods, releases.get(_label(one, DEPLOYMENT_LABEL), [])) for one in stable]
    if any(knative.service_in(one.manifests) for kept in releases.values() for one in kept):
        named = {one.name for one in found}
        services = api.list(KNATIVE_SERVICE, namespace, mine).items
        # While one takes over from the other both are there: who has the name yet is shown.
        found += [
            _view_of_knative(one, pods, releases.get(_label(one, DEPLOYMENT_LABEL), []))
            for one in services
            if _label(one, DEPLOYMENT_LABEL) not in named
        ]
    return sorted(found, key=lambda one: one.name)


def _view_of_knative(service: Manifest, pods: Sequence[Manifest], releases: Sequence[Release]) -> ClusterDeployment:
    """The revision with most of the requests; of its replicas those that are there now are wanted."""
    name = _label(service, DEPLOYMENT_LABEL)
    traffic: Sequence[Manifest] = service.get("status", {}).get("traffic", [])
    main = max(traffic, key=lambda target: int(target.get("percent", 0)), default={}).get("revisionName", "")
    serving = next((one for one in releases if knative.revision_in(one.manifests) == main), None)
    label = serving.label if serving else ""
    own = [pod for pod in pods if _label(pod, DEPLOYMENT_LABEL) == name]
    living = [pod for pod in own if _label(pod, REVISION_LABEL) == label and "deletionTimestamp" not in pod["metadata"]]
    ready = condition_of(service, "Ready")
    begun = next((one for one in reversed(releases) if one.state is ReleaseState.PROGRESSING), None)
    states = {"True": "serving", "False": "degraded"}
    return ClusterDeployment(
        name=name,
        revision=label,
        canary=begun.label if begun and begun.label != label else "",
        ready=sum(is_ready(pod) for pod in living),
        wanted=len(living),
        # With no pod it serves too: the next request has one started.
        state=states.get(ready.get("status", ""), "progressing"),
        reason=str(ready.get("message", "")) if ready.get("status") == "False" else "",
        image=serving.image if serving else "",
        pods=tuple(_pod(pod) for pod in own),
    )


def _view(deployment: Manifest, pods: Sequence[Manifest], releases: Sequence[Release]) -> ClusterDeployment:
    name = _label(deployment, DEPLOYMENT_LABEL)
    revision = _label(deployment, REVISION_LABEL)
    own = [pod for pod in pods if _label(pod, DEPLOYMENT_LABEL) == name]
    seen = progress(deployment, [pod for pod in own if _label(pod, TRACK_LABEL) == Track.STABLE.value], revision)
    begun = next((one for one in reversed(releases) if one.state is ReleaseState.PROGRESSING), None)
    trouble = f"{seen.trouble.what}: {seen.trouble.why}".rstrip(": ") if seen.trouble else ""
    return ClusterDeployment(
        name=name,
        revision=revision,
        canary=begun.label if begun and begun.label != revision else "",
        ready=seen.ready,
        wanted=seen.wanted,
        state=_state(seen),
        reason=trouble,
        image=deployment["metadata"].get("annotations", {}).get("corten.dev/image", ""),
        pods=tuple(_pod(pod) for pod in own),
    )


def _state(seen: Progress) -> str:
    match seen.step:
        case Step.DONE:
            return "serving" if seen.wanted else "stopped"
        case Step.PROGRESSING:
            return "progressing"
        case Step.FAILED:
            return "degraded"


def _pod(pod: Manifest) -> PodView:
    trouble = diagnose(pod)
    ending = "deletionTimestamp" in pod["metadata"]
    statuses: Sequence[Mapping[str, Any]] = pod.get("status", {}).get("containerStatuses", [])
    return PodView(
        name=pod["metadata"]["name"],
        revision=_label(pod, REVISION_LABEL),
        track=_label(pod, TRACK_LABEL),
        state="ending" if ending else "ready" if is_ready(pod) else "starting",
        restarts=sum(each.get("restartCount", 0) for each in statuses),
        node=pod.get("spec", {}).get("nodeName", ""),
        reason=f"{trouble.what}: {trouble.why}".rstrip(": ") if trouble else "",
    )


def _label(one: Manifest, name: str) -> str:
    return str(one["metadata"].get("labels", {}).get(name, ""))
