"""Deploy into a cluster: record, apply, wait, ask, and go back when it is not well. Every step may be done twice.

Who is interrupted runs the same command again: what was begun is found by its record and gone on with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from corten.cluster import canary as canaries
from corten.cluster import knative, objects, release
from corten.cluster.kinds import CONFIG_MAP, DEPLOYMENT, POLICY, ROUTE, SERVICE, SERVICE_ACCOUNT, kind_of
from corten.cluster.port import Api, Manifest
from corten.cluster.release import Release, ReleaseState
from corten.cluster.taking_over import TakeOver, changes_hands, give_back, heard
from corten.cluster.watching import Patience
from corten.core.canary import Canary
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.rest import Strategy
from corten.errors import CortenError, NotFoundError, RemoteError, UnhealthyError
from corten.exporters.base import Workload, refuse
from corten.exporters.manifests.names import Track
from corten.exporters.manifests.pod import grace_s, start_s
from corten.exporters.manifests.whole import objects as objects_of

_SLACK_S = 120.0
_LONGEST_CANARY_S = 24 * 3600.0
# What a canary's pods need before they come.
_BENEATH = (SERVICE_ACCOUNT, CONFIG_MAP, POLICY, SERVICE)


@dataclass(frozen=True, slots=True)
class Clock:
    """Time, as an argument: `now_s` since the epoch, `ticks_s` for waits."""

    now_s: Callable[[], float] = time.time
    ticks_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def patience(self, seconds: float) -> Patience:
        """To wait so long from now on."""
        return Patience(self.ticks_s, self.sleep, self.ticks_s() + seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: the release that serves (or has `share` percent), and whether that is new."""

    release: Release
    changed: bool
    share: int = 100


def deploy(
    api: Api,
    workload: Workload,
    *,
    listen: Listener = nobody,
    clock: Clock | None = None,
    timeout_s: float | None = None,
) -> Outcome:
    """Make a workload the one that serves, in `workload.cluster.namespace`.

    Raises UnhealthyError `deploy.unhealthy` or `deploy.rolled_back` when it is not well (what served before serves),
    `deploy.timeout`, and what the cluster refuses.
    """
    clock = clock or Clock()
    namespace = workload.cluster.namespace
    releases = release.history(api, workload.name, namespace)
    serving = release.current(releases)
    made = _numbered(workload, releases, clock.now_s())
    workload = replace(workload, revision=made.label)
    made = replace(made, manifests=tuple(objects_of(workload)))
    listen(Event("render", Phase.DONE, f"{made.label}: {len(made.manifests)} objects"))
    change = _Change(api, workload, made, serving, _beside(releases, made), listen, clock, timeout_s)
    change.try_out()
    if made.number not in [one.number for one in releases]:
        release.record(api, made, namespace)
    if change.new and serving and workload.settings.canary.steps:
        share = change.try_canary()
        if share is not None:
            return Outcome(made, changed=True, share=share)
    change.roll()
    change.settle(releases)
    return Outcome(made, changed=change.new)


def go_back(
    api: Api, name: str, namespace: str, to: str = "", *, listen: Listener = nobody, clock: Clock | None = None
) -> Outcome:
    """Back to an earlier release as it was recorded (empty: the one before), or from one that is being tried.

    Raises NotFoundError `control.no_earlier_revision`, `control.unknown_revision`, UnhealthyError.
    """
    releases = release.history(api, name, namespace)
    target = _target(name, releases, to)
    # What is tried gets no request any more, then it goes.
    shared = knative.service_in(target.manifests) if target.state is ReleaseState.DEPLOYED else None
    shares = [shared] if shared else [one for one in target.manifests if one["kind"] == ROUTE.name]
    objects.apply(api, shares, namespace)
    api.delete(DEPLOYMENT, f"{name}-{Track.CANARY.value}", namespace)
    return _serve(api, releases, target, namespace, listen, clock or Clock())


def promote(api: Api, name: str, namespace: str, *, listen: Listener = nobody, clock: Clock | None = None) -> Outcome:
    """All requests for the release that is being tried, as it was recorded.

    Raises NotFoundError `control.no_canary`, UnhealthyError.
    """
    releases = release.history(api, name, namespace)
    tried = next((one for one in reversed(releases) if one.state is ReleaseState.PROGRESSING), None)
    if tried is None:
        raise NotFoundError(
            "control.no_canary", f"no release of `{name}` is being tried", hint=f"corten k8s history {name}"
        )
    return _serve(api, releases, tried, namespace, listen, clock or Clock())


def _serve(  # noqa: PLR0917
    api: Api, releases: Sequence[Release], target: Release, namespace: str, listen: Listener, clock: Clock
) -> Outcome:
    """Have a release that is recorded serve, and take away what others left."""
    name, serving = target.deployment, release.current(releases)
    if target.state is not ReleaseState.DEPLOYED:
        # Who is cut off here leaves objects of its; by that they are found.
        release.mark(api, target, ReleaseState.PROGRESSING, namespace)
    left = [
        one for one in releases if one.state in (ReleaseState.DEPLOYED, ReleaseState.PROGRESSING) and one is not target
    ]
    routes = [one for one in target.manifests if one["kind"] == ROUTE.name]
    others = [each for one in left for each in one.manifests]
    objects.take_back(api, others, target.manifests, namespace)
    patience = clock.patience(_SLACK_S + _deadline_s(target))
    TakeOver(api, target, others, namespace, patience, listen, later=routes).run()
    objects.apply(api, routes, namespace)
    api.delete(DEPLOYMENT, f"{name}-{Track.CANARY.value}", namespace)
    # Before they are marked: of those nobody asks any more what they left behind. The target is marked last: until then
    # the same command goes on with it, and never are there two that are said to serve, of which the older one does.
    objects.prune(api, others, target.manifests, namespace)
    for one in left:
        _end(api, one, serving, namespace)
    release.mark(api, target, ReleaseState.DEPLOYED, namespace)
    return Outcome(target, changed=bool(left))


@dataclass(frozen=True, slots=True)
class _Change:
    """One change from what serves to what was made."""

    api: Api
    workload: Workload
    made: Release
    serving: Release | None
    others: Sequence[Manifest]
    listen: Listener
    clock: Clock
    timeout_s: float | None

    @property
    def new(self) -> bool:
        """Whether something else serves now, or nothing."""
        return self.serving is None or self.serving.number != self.made.number

    @property
    def namespace(self) -> str:
        return self.workload.cluster.namespace

    def patience(self) -> Patience:
        return self.clock.patience(self.timeout_s or patience_s(self.workload))

    @property
    def before(self) -> Sequence[Manifest]:
        """What served until now."""
        return self.serving.manifests if self.serving else ()

    def try_out(self) -> None:
        """Have the cluster check everything. Raises what it refuses, UsageError for a canary that cannot be."""
        wanted = self.made.manifests
        hands = changes_hands(wanted, self.others)
        if hands and self.new and self.workload.settings.canary.steps:
            raise refuse(
                "kubernetes",
                "a canary between a Deployment and Knative",
                why="each of them answers by the deployment's name, and only one can have it",
                hint="change that without --canary first, then try the next image with it",
            )
        # The name of our Service is taken until Knative has given it back.
        taken = hands and not knative.service_in(wanted)
        tried = [one for one in wanted if not (taken and kind_of(one) == SERVICE)]
        objects.try_out(self.api, self.before, tried, self.namespace)

    def try_canary(self) -> int | None:
        """Its share where it is to stay at one; None when it may have all. Raises UnhealthyError."""
        canary = self.workload.settings.canary
        objects.apply(self.api, [one for one in self.made.manifests if kind_of(one) in _BENEATH], self.namespace)
        patience = self.clock.patience(self.timeout_s or _LONGEST_CANARY_S)
        serving = self.serving.label if self.serving else ""
        tried = canaries.try_out(self._take_over(patience), self.workload, serving)
        if not tried.reason:
            return None if canary.judged else tried.share
        lines = heard(self.api, tried.stuck.trouble if tried.stuck else None, self.namespace, self.listen)
        canaries.take_away(self.api, self.workload)
        self._give_up()
        raise UnhealthyError(
            "deploy.rolled_back",
            f"`{self.workload.name}` {self.made.label} did worse and was taken away",
            why="; ".join([tried.reason, *lines]),
            hint=f"{self.serving.label if self.serving else 'what was there'} serves as before; see `corten logs`",
        )

    def roll(self) -> None:
        """All pods, asked through the Service. Raises UnhealthyError once what served before serves again."""
        patience = self.patience()
        try:
            objects.take_back(self.api, self.before, self.made.manifests, self.namespace)
            self._take_over(patience).run()
        except CortenError as error:
            # What cannot be reached cannot be mended either: the same command goes on later.
            if isinstance(error, RemoteError) or error.code == "deploy.timeout" or not self.new:
                raise
            self._give_up()
            raise

    def _take_over(self, patience: Patience) -> TakeOver:
        # A canary keeps its share until all pods are new.
        tried = self.new and self.serving is not None and self.workload.settings.canary.steps
        later = [one for one in self.made.manifests if tried and one["kind"] == ROUTE.name]
        return TakeOver(
            self.api,
            self.made,
            self.others,
            self.namespace,
            patience,
            self.listen,
            later=later,
            # What serves as it is wanted is not woken to be asked again.
            wake=self.new,
        )

    def settle(self, releases: Sequence[Release]) -> None:
        """Write down what serves now, and take away what only others wanted."""
        # Also what an interrupted run left behind: two that are said to serve, one that was begun.
        others = [one for one in releases if one.number != self.made.number]
        served = [one for one in others if one.state is ReleaseState.DEPLOYED]
        begun = [one for one in others if one.state is ReleaseState.PROGRESSING]
        if self.made.state is not ReleaseState.DEPLOYED:
            release.mark(self.api, self.made, ReleaseState.DEPLOYED, self.namespace)
        if begun or self.made.state is ReleaseState.PROGRESSING:
            canaries.take_away(self.api, self.workload)
        before = [each for one in (*served, *begun) for each in one.manifests]
        objects.prune(self.api, before, self.made.manifests, self.namespace)
        for one in (*served, *begun):
            _end(self.api, one, self.serving, self.namespace)
        release.forget_old(self.api, [*releases, self.made] if self.new else releases, self.namespace)

    def _give_up(self) -> None:
        """What served before serves again; without one, nothing is left but the record."""
        self.listen(
            Event("rollback", Phase.STARTED, f"back to {self.serving.label}" if self.serving else "nothing serves")
        )
        give_back(self.api, self.made.manifests, self.before, self.namespace, self.clock.patience(_SLACK_S))
        release.mark(self.api, self.made, ReleaseState.FAILED, self.namespace)


def patience_s(workload: Workload) -> float:
    """How long a rollout may take: pods come a quarter at a time, each may use its own time."""
    rounds = min(4, workload.most) + 1
    return rounds * (start_s(workload) + grace_s(workload)) + _SLACK_S


def wanted_of(workload: Workload) -> dict[str, Any]:
    """What was asked for, as records keep it: all but how it is to take over, and what the cluster says of itself."""
    cluster = workload.cluster
    asked = {
        "image": str(workload.image),
        "weights": str(workload.weights or ""),
        "settings": replace(workload.settings, canary=Canary(), strategy=Strategy.AUTO),
        "secrets": workload.secrets,
        "host": workload.host,
        "gpus": workload.gpus,
        "gateway": cluster.gateway,
        "pull_secrets": cluster.pull_secrets,
        "priority_class": cluster.priority_class,
        "user_namespaces": cluster.user_namespaces,
    }
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(asked))
    return found


def _numbered(workload: Workload, releases: Sequence[Release], now_s: float) -> Release:
    """The release of what is wanted: the one that serves or was begun, where that is the same; else the next."""
    wanted = wanted_of(workload)
    for one in reversed(releases):
        if one.wanted == wanted and one.state in (ReleaseState.DEPLOYED, ReleaseState.PROGRESSING):
            return one
    number = max((one.number for one in releases), default=0) + 1
    return Release(workload.name, number, ReleaseState.PROGRESSING, now_s, wanted, ())


def _beside(releases: Sequence[Release], made: Release) -> list[Manifest]:
    """What may be there of other releases."""
    there = [one for one in releases if one.state in (ReleaseState.DEPLOYED, ReleaseState.PROGRESSING)]
    return [each for one in there if one.number != made.number for each in one.manifests]


def _end(api: Api, one: Release, serving: Release | None, namespace: str) -> None:
    """Say what became of a release that is left; before that, have nothing left of one that never served."""
    state = _ended(one, serving)
    if state is ReleaseState.FAILED:
        knative.forget(api, one.manifests, namespace)
    release.mark(api, one, state, namespace)


def _ended(one: Release, serving: Release | None) -> ReleaseState:
    """What a release is that is left: one that served once may be gone back to."""
    served = one.state is ReleaseState.DEPLOYED or (serving is not None and one.number < serving.number)
    return ReleaseState.SUPERSEDED if served else ReleaseState.FAILED


def _target(name: str, releases: Sequence[Release], to: str) -> Release:
    serving = release.current(releases)
    if to:
        found = next((one for one in releases if one.label == to), None)
        if found is None:
            raise NotFoundError(
                "control.unknown_revision",
                f"`{name}` has no release {to}",
                why="kept: " + ", ".join(one.label for one in releases) if releases else "none is kept",
                hint=f"corten k8s history {name}",
            )
        return found
    begun = [one for one in releases if one.state is ReleaseState.PROGRESSING]
    if serving and any(one.number > serving.number for one in begun):
        return serving  # from what is being tried
    if begun and (serving or any(one.state is ReleaseState.SUPERSEDED for one in releases)):
        return begun[-1]  # a way back that was cut off
    earlier = [
        one for one in releases if one.state is ReleaseState.SUPERSEDED and (not serving or one.number < serving.number)
    ]
    if not earlier:
        raise NotFoundError(
            "control.no_earlier_revision", f"`{name}` has no release before this one", hint=f"corten k8s history {name}"
        )
    return earlier[-1]


def _deadline_s(target: Release) -> float:
    service = knative.service_in(target.manifests)
    if service:
        return knative.deadline_s(service)
    return max(
        (one["spec"].get("progressDeadlineSeconds", 0) for one in target.manifests if one["kind"] == DEPLOYMENT.name),
        default=0,
    )
