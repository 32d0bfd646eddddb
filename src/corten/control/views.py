"""What the daemon tells about itself: values the command line prints and `--json` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from corten.control.actions import Seen as SeenReplica
from corten.control.comparison import Compared
from corten.control.judge import Judgement, explain
from corten.control.reconcile import back_off_s, crash_looping, deaths_in_a_row
from corten.control.records import Deployment, ReplicaRecord
from corten.core.access import Access
from corten.core.deployment import ReplicaState, RolloutState, Settings
from corten.core.front import Front, near_host
from corten.gateway.certificate import Certificate

_NO_SETTINGS: Mapping[int, Settings] = MappingProxyType({})
_SHOWN = tuple(state for state in ReplicaState if state is not ReplicaState.EXITED)


class RolloutView(msgspec.Struct, frozen=True):
    """The newest rollout. `origin` is empty for the first; times in seconds since the epoch.

    While it is a canary, `share` is what `target` has of the requests in percent and `judgement` the newest comparison
    (None: nothing was counted yet); else `share` is 100. With `swap` one revision ends before the next starts.
    """

    id: int
    origin: str
    target: str
    state: str
    reason: str
    started_s: float
    ended_s: float | None
    share: int
    judged: bool
    swap: bool
    judgement: Mapping[str, Any] | None
    mirror: int = 0
    compared: Compared | None = None


class ReplicaView(msgspec.Struct, frozen=True):
    """One replica; `restarts` counts the deaths in a row before it. `egress`: it may open connections.

    `secrets` are the names of what it finds in /run/secrets.
    """

    id: str
    revision: int
    state: str
    address: str
    pid: int
    started_s: float
    changed_s: float
    restarts: int
    reason: str
    egress: bool = False
    secrets: tuple[str, ...] = ()


class DeploymentView(msgspec.Struct, frozen=True):
    """One deployment. `state`: serving, progressing, canary, degraded, crash-looping, failed or stopping; while nobody
    asks, frozen or stopped, and resting on the way there.

    `waiting` requests are held until a replica is ready. `fallback` is the revision of which one is kept frozen (empty:
    none). `scale` says between how many replicas the requests decide (`1..4`; empty: a fixed number).
    `revision` and `image` are of what serves, or of what was tried last if nothing does; a canary's are in `rollout`.
    """

    name: str
    generation: int
    state: str
    reason: str
    revision: str
    image: str
    ready: int
    wanted: int
    rollout: RolloutView | None
    scale: str = ""
    access: Access = msgspec.field(default_factory=Access)
    waiting: int = 0
    fallback: str = ""
    replicas: tuple[ReplicaView, ...] = ()


class FrontView(msgspec.Struct, frozen=True):
    """Where requests go: `url` ends without `/`.

    With TLS, `names` are the certificate's, `expires_s` its end in seconds since the epoch and `chain` its PEM, for
    clients on this machine that need not trust anybody else.
    """

    url: str
    host: str
    port: int
    http_port: int = 0
    certificate: str = ""
    names: tuple[str, ...] = ()
    expires_s: float = 0.0
    chain: str = ""


def front_view(front: Front, found: Certificate | None) -> FrontView:
    """A front, with the certificate it has if that is known."""
    if not front.tls:
        return FrontView(f"http://{_in_url(near_host(front.host))}:{front.port}", front.host, front.port)
    names = found.names if found else ()
    return FrontView(
        f"https://{_best_name(front, names)}:{front.port}",
        front.host,
        front.port,
        front.http_port,
        front.certificate,
        names,
        found.expires_s if found else 0.0,
        found.chain if found else "",
    )


def _best_name(front: Front, names: tuple[str, ...]) -> str:
    """The host clients can ask for in peace: one of this machine's if the certificate has it, else its first."""
    near = [name for name in (near_host(front.host), "localhost") if name in names]
    host = next(iter((*near, *(name for name in names if "*" not in name))), near_host(front.host))
    return _in_url(host)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class StatusView(msgspec.Struct, frozen=True):
    """All of it. `engine` is what isolation replicas get, `trouble` what keeps the daemon from its work."""

    pid: int
    version: str
    engine: str
    isolation: Mapping[str, str]
    front: FrontView
    gateway: str
    gateway_pid: int
    trouble: str
    deployments: tuple[DeploymentView, ...] = ()


def deployment_view(
    one: Deployment,
    records: Sequence[ReplicaRecord],
    seen: Sequence[SeenReplica],
    *,
    image: str,
    judgement: Judgement | None = None,
    waiting: int = 0,
    settings: Mapping[int, Settings] = _NO_SETTINGS,
) -> DeploymentView:
    """A deployment with its replicas; ended ones are shown only while something follows from them.

    `settings` are those of its revisions, by number.
    """
    shown = [record for record in records if record.replica.state in _SHOWN or not record.settled]
    current = one.serving or one.wanted
    tried = f"r{one.rollout.target}" if one.rollout else ""
    ready = sum(each.takes_requests for each in seen)
    state, reason = _state(one, records, seen, ready, judgement)
    return DeploymentView(
        name=one.name,
        generation=one.generation,
        state=state,
        reason=reason,
        revision=current.label if current else tried,
        image=str(current.image) if current else image,
        ready=ready,
        wanted=one.replicas if one.wanted else 0,
        rollout=_rollout_view(one, judgement),
        access=one.access,
        scale=f"{one.scale.least}..{one.scale.most}" if one.scale else "",
        waiting=waiting,
        fallback=f"r{one.fallback}" if one.fallback is not None else "",
        replicas=tuple(_replica_view(record, settings.get(record.replica.revision, Settings())) for record in shown),
    )


def _state(
    one: Deployment,
    records: Sequence[ReplicaRecord],
    seen: Sequence[SeenReplica],
    ready: int,
    judgement: Judgement | None,
) -> tuple[str, str]:
    looping = crash_looping(seen)
    failed = one.rollout is not None and one.rollout.state is RolloutState.FAILED
    if one.deleting:
        return "stopping", ""
    if looping is not None:
        wait_s = back_off_s(deaths_in_a_row(looping))
        why = looping.reason or _last_end(records, looping)
        words = f"`corten logs {one.name}` has its last words"
        return "crash-looping", f"{why}; waits up to {wait_s:g} s between restarts, {words}"
    canary = one.canary
    if canary is not None and any(each.takes_requests and each.revision == canary.target for each in seen):
        if canary.mirror:
            return (
                "canary",
                f"r{canary.target} gets copies of {canary.mirror} % of the requests; {canary.compared.words()}",
            )
        found = f"; {judgement.reason}" if judgement else ""
        return "canary", f"r{canary.target} has {canary.share} % of the requests{found}"
    if one.rollout is not None and one.rollout.state is RolloutState.PROGRESSING:
        return "progressing", "requests wait while one revision ends and the next starts" if one.rollout.swap else ""
    reason = f"r{one.rollout.target} was given up: {one.rollout.reason}" if one.rollout and failed else ""
    if one.wanted is None:
        return "failed", reason
    if not one.replicas:
        # A frozen one of the revision before is for a rollback, and wakes for nobody's request.
        own = [each for each in seen if each.revision == one.wanted.number]
        return _rest(own), "nobody asks; the next request wakes it"
    return ("serving" if ready >= one.replicas else "degraded"), reason


def _last_end(records: Sequence[ReplicaRecord], started: SeenReplica) -> str:
    """Why the one ended whose place this replica takes."""
    ends = [
        one.replica
        for one in records
        if one.replica.revision == started.revision
        and one.replica.state is ReplicaState.EXITED
        and one.replica.restarts == started.restarts - 1
    ]
    return max(ends, key=lambda one: one.changed_s).reason if ends else "restarted"


def _rest(seen: Sequence[SeenReplica]) -> str:
    if any(each.live or each.state in (ReplicaState.DRAINING, ReplicaState.STOPPING) for each in seen):
        return "resting"
    asleep = [each for each in seen if each.state is ReplicaState.FROZEN]
    if not asleep:
        return "stopped"
    return "frozen" if any(each.frozen for each in asleep) else "resting"


def _rollout_view(one: Deployment, judgement: Judgement | None) -> RolloutView | None:
    rollout = one.rollout
    if rollout is None:
        return None
    return RolloutView(
        id=rollout.id,
        origin=f"r{rollout.origin}" if rollout.origin else "",
        target=f"r{rollout.target}",
        state=rollout.state.value,
        reason=rollout.reason,
        started_s=rollout.started_s,
        ended_s=rollout.ended_s,
        share=rollout.share,
        judged=rollout.judged,
        swap=rollout.swap,
        judgement=explain(judgement) if judgement and one.canary else None,
        mirror=rollout.mirror,
        compared=rollout.compared if rollout.compared.answered or rollout.compared.skipped else None,
    )


def _replica_view(record: ReplicaRecord, settings: Settings) -> ReplicaView:
    replica = record.replica
    return ReplicaView(
        id=replica.id,
        revision=replica.revision,
        state=replica.state.value,
        address=replica.address,
        pid=replica.pid,
        started_s=replica.started_s,
        changed_s=replica.changed_s,
        restarts=replica.restarts,
        reason=replica.reason,
        egress=settings.egress,
        secrets=tuple(sorted(settings.secret_ids)),
    )
