"""A canary in a cluster: a second Deployment gets a share, and is judged by what its pods answer.

With a gateway the share is a weight of the route, set only once the canary is ready (kserve#5983). Without one it is
the canary's share of the pods behind one Service, as near as whole pods come.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from corten.cluster.counting import Counter
from corten.cluster.kinds import DEPLOYMENT, ROUTE
from corten.cluster.objects import apply
from corten.cluster.port import Api
from corten.cluster.rollout import Progress, Step
from corten.cluster.watching import Patience, wait
from corten.control.judge import Verdict, judge
from corten.core.events import Event, Listener, Phase
from corten.exporters.base import Workload
from corten.exporters.manifests.deployment import deployment
from corten.exporters.manifests.names import DEPLOYMENT_LABEL, TRACK_LABEL, Track, object_name
from corten.exporters.manifests.network import by_weight, http_route

_LOOK_EACH_S = 1.0


@dataclass(frozen=True, slots=True)
class Tried:
    """How a canary ended: `share` is what it has now; where it was bad, `reason` says why."""

    share: int
    reason: str = ""
    stuck: Progress | None = None


def ratio(stable: int, share: int) -> int:
    """How many pods beside `stable` ones get about `share` percent of the requests; one at least."""
    return max(1, math.floor(stable * share / (100 - share) + 0.5))


def try_out(api: Api, workload: Workload, patience: Patience, listen: Listener) -> Tried:
    """Take a canary through its shares. It is left with the last one; the caller promotes it or takes it away."""
    namespace, canary = workload.cluster.namespace, workload.settings.canary
    name = object_name(workload, Track.CANARY)
    counters = {
        track: Counter(api, namespace, f"{DEPLOYMENT_LABEL}={workload.name},{TRACK_LABEL}={track.value}")
        for track in Track
    }
    for share in canary.steps:
        stable = _stable_pods(api, workload)
        wanted = min(stable, workload.most) if by_weight(workload) else ratio(stable, share)
        apply(api, [deployment(workload, Track.CANARY, replicas=max(1, wanted))], namespace)
        seen = wait(api, name, workload.revision, namespace, patience, listen)
        if seen.step is Step.FAILED:
            return Tried(0, seen.trouble.what if seen.trouble else "it did not get ready", seen)
        if by_weight(workload):
            api.apply(http_route(workload, share), namespace)
        shown = share if by_weight(workload) else round(100 * wanted / (stable + wanted))
        listen(Event("canary", Phase.STARTED, f"{workload.revision} gets {shown} % of the requests"))
        if not canary.judged:
            return Tried(share)
        reason = _judged(counters, patience, listen)
        if reason:
            return Tried(share, reason)
    return Tried(canary.steps[-1])


def take_away(api: Api, workload: Workload) -> None:
    """No request for it any more, then no pod."""
    namespace = workload.cluster.namespace
    if by_weight(workload) and api.get(ROUTE, object_name(workload), namespace):
        api.apply(http_route(workload, 0), namespace)
    api.delete(DEPLOYMENT, object_name(workload, Track.CANARY), namespace)


def _judged(counters: Mapping[Track, Counter], patience: Patience, listen: Listener) -> str:
    """Why it is to be rolled back; empty when it may have more. Without requests there is no verdict: it waits."""
    begun = {track: counter.look() for track, counter in counters.items()}
    told = ""
    while True:
        stable, canary = (counters[track].look().since(begun[track]) for track in (Track.STABLE, Track.CANARY))
        found = judge(stable, canary)
        match found.verdict:
            case Verdict.ROLL_BACK:
                return found.reason
            case Verdict.GROW:
                listen(Event("canary", Phase.PROGRESS, found.reason))
                return ""
            case Verdict.WAIT:
                if found.reason != told:
                    told = found.reason
                    listen(Event("canary", Phase.PROGRESS, found.reason))
        if patience.left_s <= 0:
            return "nobody asked it enough to tell"
        patience.sleep(_LOOK_EACH_S)


def _stable_pods(api: Api, workload: Workload) -> int:
    live = api.get(DEPLOYMENT, object_name(workload), workload.cluster.namespace)
    return int(live["spec"].get("replicas", 1)) if live else max(1, workload.settings.replicas)
