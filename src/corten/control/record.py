"""Writing an action down: the half of it that must be on disk before the other half is done.

Shared by the daemon and by the simulator the planner is tested in, so that both restart from the same notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corten.control.actions import (
    Action,
    Drain,
    FailRollout,
    FinishRollout,
    Forget,
    Freeze,
    Kill,
    LayToRest,
    MarkReady,
    RecordExit,
    Remove,
    Resume,
    Settle,
    StartReplica,
    Terminate,
    Thaw,
)
from corten.control.state import State
from corten.core.deployment import Replica, ReplicaState


def record(
    state: State,
    deployment: str,
    action: Action,
    *,
    now_s: float,
    new_id: str = "",
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write what is about to be done. `new_id` names the replica of a StartReplica, `details` explain a FailRollout."""
    match action:
        case StartReplica(revision, restarts, replaces):
            replica = Replica(new_id, deployment, revision, ReplicaState.STARTING, "", 0, now_s, now_s, "", restarts)
            state.add_replica(replica, replaces=replaces, now_s=now_s)
        case RecordExit(id=replica, reason=reason):
            state.move(replica, ReplicaState.EXITED, now_s=now_s, reason=reason)
        case MarkReady(id=replica):
            state.move(replica, ReplicaState.READY, now_s=now_s)
        case Drain(id=replica, reason=reason):
            state.move(replica, ReplicaState.DRAINING, now_s=now_s, reason=reason)
        case LayToRest(id=replica):
            state.move(replica, ReplicaState.FROZEN, now_s=now_s)
        case Resume(id=replica):
            state.move(replica, ReplicaState.READY, now_s=now_s)
        case Terminate(id=replica, reason=reason):
            state.move(replica, ReplicaState.STOPPING, now_s=now_s, reason=reason)
        case Freeze() | Thaw():
            pass  # what it should be is written already
        case Kill(id=replica, reason=reason):
            state.blame(replica, reason)
        case Settle(id=replica):
            state.settle(replica)
        case Remove(id=replica):
            state.remove_replica(replica)
        case FinishRollout():
            state.finish_rollout(deployment, now_s=now_s)
        case FailRollout(reason=reason):
            state.fail_rollout(deployment, reason, now_s=now_s, details=details)
        case Forget():
            state.forget(deployment, now_s=now_s)
