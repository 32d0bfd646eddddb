"""A canary in a cluster: a second Deployment gets a share, and is judged by what its pods answer.

With a gateway the share is a weight of the route, set only once the canary is ready (kserve#5983). Without one it is
the canary's share of the pods behind one Service, as near as whole pods come. Knative has the next revision beside the
one that serves as it is, and shares by percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from corten.cluster import knative
from corten.cluster.counting import Counter
from corten.cluster.kinds import DEPLOYMENT, ROUTE
from corten.cluster.objects import apply
from corten.cluster.port import Api, Manifest
from corten.cluster.rollout import Progress, Step
from corten.cluster.taking_over import TakeOver
from corten.cluster.watching import Patience, wait
from corten.control.judge import Verdict, judge
from corten.core.events import Event, Listener, Phase
from corten.errors import UnhealthyError
from corten.exporters.base import Workload
from corten.exporters.manifests.deployment import deployment
from corten.exporters.manifests.names import DEPLOYMENT_LABEL, REVISION_LABEL, TRACK_LABEL, Track, object_name
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


def try_out(change: TakeOver, workload: Workload, serving: str) -> Tried:
    """Take a canary through its shares, beside the revision `serving`. It is left with the last one.

    The caller promotes it or takes it away.
    """
    service = knative.service_in(change.made.manifests)
    canary, patience, listen = workload.settings.canary, change.patience, change.listen
    told_apart = {
        track: f"{REVISION_LABEL}={label}" if service else f"{TRACK_LABEL}={track.value}"
        for track, label in ((Track.STABLE, serving), (Track.CANARY, workload.revision))
    }
    counters = {
        track: Counter(change.api, change.namespace, f"{DEPLOYMENT_LABEL}={workload.name},{chosen}")
        for track, chosen in told_apart.items()
    }
    for share in canary.steps:
        given = _by_revision(change, service, share) if service else _by_pods(change, workload, share)
        if given.reason:
            return given
        listen(Event("canary", Phase.STARTED, f"{workload.revision} gets {given.share} % of the requests"))
        if not canary.judged:
            return Tried(share)
        reason = _judged(counters, patience, listen)
        if reason:
            return Tried(share, reason)
    return Tried(canary.steps[-1])


def _by_revision(change: TakeOver, service: Manifest, share: int) -> Tried:
    try:
        stuck = change.share(service, share)
    except UnhealthyError as error:
        if error.code == "deploy.timeout":
            raise
        return Tried(0, f"{error.what}: {error.why}")
    return _stuck(stuck) if stuck else Tried(share)


def _by_pods(change: TakeOver, workload: Workload, share: int) -> Tried:
    api, namespace = change.api, change.namespace
    stable = _stable_pods(api, workload)
    wanted = min(stable, workload.most) if by_weight(workload) else ratio(stable, share)
    apply(api, [deployment(workload, Track.CANARY, replicas=max(1, wanted))], namespace)
    name = object_name(workload, Track.CANARY)
    seen = wait(api, name, workload.revision, namespace, change.patience, change.listen)
    if seen.step is Step.FAILED:
        return _stuck(seen)
    if by_weight(workload):
        api.apply(http_route(workload, share), namespace)
    return Tried(share if by_weight(workload) else round(100 * wanted / (stable + wanted)))


def _stuck(seen: Progress) -> Tried:
    return Tried(0, seen.trouble.what if seen.trouble else "it did not get ready", seen)


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
