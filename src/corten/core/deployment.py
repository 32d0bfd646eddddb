"""Deployment, revision, replica: what is wanted and what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from corten.core.access import Access, Auth
from corten.core.canary import Canary
from corten.core.digest import Digest
from corten.core.resources import Resources
from corten.core.rest import Rest, Strategy

ACCESS_KEYS = ("auth", "rate_per_s", "burst", "pinnable")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a revision's image is to be run. Times in seconds.

    `replicas` are always there (0: none while nobody asks); with `most_replicas` above that, as many as the requests
    take up to it, `concurrency` in flight in each at most.

    `env` reaches the model's process; `egress` lets it open connections to the outside; `grpc` is what the image says.
    `secret_ids` are names of secrets, and the ids by which the daemon knows their values.
    What is `pure` changes nothing, and is sent again when the replica that had it ends.
    `canary` is how a revision gets its requests, once, `strategy` how it follows the one before. `resources` is what
    one replica may use. `auth` (`none`, `token`, or empty: as it was), `rate_per_s`, `burst` and `pinnable` are the
    deployment's (`core.access.Access`), whichever revision serves; so is `rest`.
    """

    replicas: int = 1
    most_replicas: int = 0
    concurrency: int = 8
    env: Mapping[str, str] = field(default_factory=dict)
    egress: bool = False
    ready_timeout_s: float = 120.0
    drain_s: float = 30.0
    max_body_bytes: int = 16 << 20
    request_timeout_s: float = 60.0
    grpc: bool = False
    pure: bool = True
    canary: Canary = field(default_factory=Canary)
    resources: Resources = field(default_factory=Resources)
    strategy: Strategy = Strategy.AUTO
    rest: Rest = field(default_factory=Rest)
    auth: str = ""
    rate_per_s: int = 0
    burst: int = 0
    pinnable: bool = False
    secret_ids: Mapping[str, str] = field(default_factory=dict)

    def access(self, before: Access) -> Access:
        """Who may ask and how often; who said nothing of tokens leaves that as it was `before`."""
        auth = Auth(self.auth) if self.auth else before.auth
        return Access(auth, self.rate_per_s, self.burst, self.pinnable)


@dataclass(frozen=True, slots=True)
class Revision:
    """One immutable image digest with the settings it runs under; `number` counts from 1 in its deployment."""

    deployment: str
    number: int
    image: Digest
    settings: Settings
    created_s: float

    @property
    def label(self) -> str:
        """The name people and headers use: `r7`."""
        return f"r{self.number}"


class ReplicaState(Enum):
    """Where a replica is in its life. Only READY ones get new requests."""

    STARTING = "starting"  # its process runs; its model is loading
    READY = "ready"  # answers; routed to
    DRAINING = "draining"  # finishes what it has; gets nothing new
    FROZEN = "frozen"  # keeps its memory and gets no processor; awake again in milliseconds
    STOPPING = "stopping"  # told to end (SIGTERM sent)
    EXITED = "exited"  # gone; what is left is its log


class RolloutState(Enum):
    """Where the change from one revision to the next is."""

    PROGRESSING = "progressing"
    DONE = "done"
    FAILED = "failed"  # given up; the revision before it serves


@dataclass(frozen=True, slots=True)
class Replica:
    """One running container of a revision. `address` is a unix socket's path or `host:port`."""

    id: str
    deployment: str
    revision: int
    state: ReplicaState
    address: str
    pid: int
    started_s: float
    changed_s: float
    reason: str = ""
    restarts: int = 0
