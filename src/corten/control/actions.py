"""What the planner is told and what it answers: a replica as it is seen, and the actions that change one."""

from __future__ import annotations

from dataclasses import dataclass

from corten.core.deployment import ReplicaState


@dataclass(frozen=True, slots=True)
class Seen:
    """One replica: what the state says of it, and what engine, probe and gateway say now.

    `running`: the engine has a process for it. `probed`: its `/readyz` answered 200. `routable`: the gateway sends it
    requests. `idle`: the gateway sends it nothing more and what it had is answered. `since_s`: when it entered its
    state. `hung`: why it is as good as dead though it runs (`control.liveness`). `frozen`: its process gets no
    processor. `working`: it is at something no request waits for.
    """

    id: str
    revision: int
    state: ReplicaState
    running: bool
    since_s: float
    ready_s: float | None = None
    probed: bool = False
    routable: bool = False
    unrouted: bool = False
    idle: bool = False
    hung: str = ""
    frozen: bool = False
    working: bool = False
    restarts: int = 0
    settled: bool = False
    exit_code: int | None = None
    reason: str = ""

    @property
    def live(self) -> bool:
        """Whether it serves or is about to."""
        return self.state in (ReplicaState.STARTING, ReplicaState.READY)

    @property
    def takes_requests(self) -> bool:
        """Whether it counts as capacity."""
        return self.state is ReplicaState.READY and self.running and self.routable


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Start one of this revision; `replaces` is the dead one it makes good, `restarts` how often in a row that was."""

    revision: int
    restarts: int = 0
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class RecordExit:
    """Its process is gone: write that down, with the reason."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class MarkReady:
    """Its probe succeeded: give it to the gateway."""

    id: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Send it nothing new; let it finish what it has."""

    id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LayToRest:
    """It has nothing more to do, and its memory is worth keeping: from now on it is one of the frozen."""

    id: str


@dataclass(frozen=True, slots=True)
class Resume:
    """It is wanted again, before it ended."""

    id: str


@dataclass(frozen=True, slots=True)
class Freeze:
    """Take the processor from it, as is written."""

    id: str


@dataclass(frozen=True, slots=True)
class Thaw:
    """Give it the processor again, as is written."""

    id: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask it to end."""

    id: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Kill:
    """End it by force. It stays in its state until it is gone, so that its end still counts as what it was."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Its end needs no replacement."""

    id: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget it and its log."""

    id: str


@dataclass(frozen=True, slots=True)
class FinishRollout:
    """The new revision serves alone."""


@dataclass(frozen=True, slots=True)
class FailRollout:
    """Give the new revision up; `id` is the replica whose log tells why."""

    reason: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing is left of a deleted deployment."""


Action = (
    StartReplica
    | RecordExit
    | MarkReady
    | Drain
    | LayToRest
    | Resume
    | Freeze
    | Thaw
    | Terminate
    | Kill
    | Settle
    | Remove
    | FinishRollout
    | FailRollout
    | Forget
)
