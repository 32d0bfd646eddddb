"""What runs in a cluster: deployments, their releases and pods, and what keeps them from serving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corten.cluster import release
from corten.cluster.kinds import DEPLOYMENT, POD
from corten.cluster.port import Api, Manifest
from corten.cluster.release import Release, ReleaseState
from corten.cluster.rollout import Progress, Step, diagnose, is_ready, progress
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
    """Everything of ours in a namespace, in three requests, however much it is."""
    mine = f"{MANAGED_BY}=corten"
    deployments = api.list(DEPLOYMENT, namespace, mine).items
    pods = api.list(POD, namespace, mine).items
    releases = release.everybodys(api, namespace)
    stable = [one for one in deployments if _label(one, TRACK_LABEL) == Track.STABLE.value]
    return [_view(one, pods, releases.get(_label(one, DEPLOYMENT_LABEL), [])) for one in stable]


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
