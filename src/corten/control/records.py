"""What the state remembers, as frozen values: core's nouns and what the controller has to know besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corten.control.comparison import Compared
from corten.core.access import Access
from corten.core.deployment import Replica, Revision, RolloutState
from corten.core.rest import Rest
from corten.core.traffic import Traffic

ALL = 100  # percent


@dataclass(frozen=True, slots=True)
class Rollout:
    """The change of a deployment from revision `origin` (None: there was none) to `target`.

    While it is a canary, `share` is what the target has of the requests, in percent, below 100; `steps` are the shares
    to come, `judged` says whether the test decides on them. `counted` is what the gateway had counted of each revision
    (by number) when this share came into force; None before it did. While `mirror` percent of the requests are copied
    to be `compared`, the target's share is 0. With `swap` the target starts only when nothing of
    the origin is left, while requests wait.
    """

    id: int
    deployment: str
    origin: int | None
    target: int
    state: RolloutState
    reason: str
    started_s: float
    ended_s: float | None
    share: int = 100
    steps: tuple[int, ...] = ()
    judged: bool = False
    counted: Mapping[int, Traffic] | None = None
    swap: bool = False
    mirror: int = 0
    compared: Compared = field(default_factory=Compared)


@dataclass(frozen=True, slots=True)
class Scale:
    """From `least` to `most` replicas, `concurrency` requests in flight in each at most."""

    least: int
    most: int
    concurrency: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """What the user named and wants.

    `wanted` is the revision all replicas should become (None: none at all), `serving` the last one whose rollout was
    done, to which a failed rollout falls back. `generation` counts the accepted changes: a change made in the
    knowledge of an older one is refused. `rollout` is the newest, ended or not. With a `scale` the number of replicas
    follows the requests; while none is wanted, `resting` stay frozen. Of revision `fallback` (None: of none) one stays
    frozen since `fallback_s`, for a rollback at once. `access` says who may ask and how often.
    """

    name: str
    generation: int
    replicas: int
    wanted: Revision | None
    serving: Revision | None
    rollout: Rollout | None
    deleting: bool = False
    scale: Scale | None = None
    access: Access = field(default_factory=Access)
    rest: Rest = field(default_factory=Rest)
    resting: int = 0
    fallback: int | None = None
    fallback_s: float = 0.0

    @property
    def canary(self) -> Rollout | None:
        """The rollout while it gives the wanted revision a share of the requests beside the serving one."""
        rollout = self.rollout
        if rollout is None or rollout.state is not RolloutState.PROGRESSING or rollout.share >= ALL:
            return None
        if self.serving is None or self.wanted is None or self.serving.number == self.wanted.number:
            return None
        return rollout


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """A replica and the controller's notes on it.

    `ready_s`: when it got ready first (None: never). `routed`: the gateway was seen to send it requests.
    `settled`: its end was wanted or has been made good, so that nothing more follows from it.
    """

    replica: Replica
    ready_s: float | None = None
    routed: bool = False
    settled: bool = False


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A line of the journal: what is about to be done or was seen, written and synced first."""

    seq: int
    at_s: float
    deployment: str
    step: str
    phase: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to a change: which revision is wanted now, under which generation, and what it led to.

    `changed` is False when that was wanted already. Events of the change have a `seq` greater than `after`.
    """

    deployment: str
    revision: int
    generation: int
    changed: bool
    rollout: int | None
    after: int
