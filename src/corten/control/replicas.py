"""Replicas: what was asked of the engine, and in which state each was seen last."""

from __future__ import annotations

import sqlite3

from corten.control.journal import Journal
from corten.control.records import ReplicaRecord
from corten.core.deployment import Replica, ReplicaState
from corten.core.events import Phase

_LEAVING = (ReplicaState.DRAINING, ReplicaState.FROZEN, ReplicaState.STOPPING)


class Replicas(Journal):
    """The part of the state that says what is there."""

    def replicas(self, name: str | None = None) -> tuple[ReplicaRecord, ...]:
        """The replicas of a deployment, or all, oldest first."""
        if name is None:
            rows = self._all("SELECT * FROM replicas ORDER BY started_s, id")
        else:
            rows = self._all("SELECT * FROM replicas WHERE deployment = ? ORDER BY started_s, id", name)
        return tuple(map(_replica, rows))

    def add_replica(self, replica: Replica, *, replaces: str | None, now_s: float) -> None:
        """Intend to start a replica: written before the engine is asked. `replaces`: the dead one it makes good."""
        with self._transaction():
            self._run(
                "INSERT INTO replicas (id, deployment, revision, state, started_s, changed_s, restarts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                *(replica.id, replica.deployment, replica.revision, replica.state.value),
                *(now_s, now_s, replica.restarts),
            )
            if replaces is not None:
                self._run("UPDATE replicas SET settled = 1 WHERE id = ?", replaces)
            data = {"replica": replica.id, "revision": f"r{replica.revision}", "restarts": replica.restarts}
            self._say(replica.deployment, "start", f"starting {replica.id}", now_s, phase=Phase.STARTED, data=data)

    def locate(self, replica_id: str, address: str, pid: int) -> None:
        """Where the engine put it."""
        self._run("UPDATE replicas SET address = ?, pid = ? WHERE id = ?", address, pid, replica_id)

    def move(self, replica_id: str, to: ReplicaState, *, now_s: float, reason: str = "") -> None:
        """A replica enters another state, told to the journal. Ending while draining or stopping settles it.

        Not synced: processes do not outlive the machine's power either, and requests wait for some of this.
        """
        with self._transaction(synced=False):
            self._move(replica_id, to, now_s=now_s, reason=reason)

    def abandon(self, replica_id: str, reason: str, *, now_s: float) -> None:
        """Its start came to nothing without a fault of its own: another is started, and it counts as no death."""
        with self._transaction():
            # Not in a change of its own: a daemon that died in between left a death that ended the rollout.
            self._run("UPDATE replicas SET settled = 1 WHERE id = ?", replica_id)
            self._move(replica_id, ReplicaState.EXITED, now_s=now_s, reason=reason)

    def _move(self, replica_id: str, to: ReplicaState, *, now_s: float, reason: str) -> None:
        row = self._one("SELECT * FROM replicas WHERE id = ?", replica_id)
        if row is None or row["state"] == to.value:
            return
        was = ReplicaState(row["state"])
        if to is ReplicaState.READY:
            self._run("UPDATE replicas SET ready_s = coalesce(ready_s, ?) WHERE id = ?", now_s, replica_id)
        if to is ReplicaState.EXITED and was in _LEAVING:
            self._run("UPDATE replicas SET settled = 1 WHERE id = ?", replica_id)
        if to in (ReplicaState.FROZEN, ReplicaState.READY):
            self._run("UPDATE replicas SET routed = 0 WHERE id = ?", replica_id)
        # Whoever is awake again does not rest for the old reason, and will not have ended for it.
        why = reason or ("" if to is ReplicaState.READY else row["reason"])
        self._run(
            "UPDATE replicas SET state = ?, changed_s = ?, reason = ?, pid = ? WHERE id = ?",
            *(to.value, now_s, why),
            *(0 if to is ReplicaState.EXITED else row["pid"], replica_id),
        )
        unwanted = to is ReplicaState.EXITED and was in (ReplicaState.STARTING, ReplicaState.READY)
        message = f"{replica_id} {to.value}" + (f": {reason}" if reason else "")
        data = {"replica": replica_id, "was": was.value, "seconds": now_s - row["changed_s"]}
        phase = Phase.WARNING if unwanted else Phase.DONE
        self._say(row["deployment"], to.value, message, now_s, phase=phase, data=data)

    def routed(self, replica_id: str, *, now_s: float) -> None:
        """The gateway sends it requests now."""
        with self._transaction(synced=False):
            row = self._one("SELECT deployment, changed_s FROM replicas WHERE id = ?", replica_id)
            if row is not None:
                self._run("UPDATE replicas SET routed = 1 WHERE id = ?", replica_id)
                data = {"replica": replica_id, "seconds": now_s - row["changed_s"]}
                self._say(
                    row["deployment"], "routed", f"{replica_id} takes requests", now_s, phase=Phase.DONE, data=data
                )

    def settle(self, replica_id: str) -> None:
        """Nothing more follows from its end."""
        self._run("UPDATE replicas SET settled = 1 WHERE id = ?", replica_id)

    def blame(self, replica_id: str, reason: str) -> None:
        """Why a replica is about to be ended."""
        self._run("UPDATE replicas SET reason = ? WHERE id = ?", reason, replica_id)

    def remove_replica(self, replica_id: str) -> None:
        """Forget a replica the engine has forgotten."""
        self._run("DELETE FROM replicas WHERE id = ?", replica_id)

    def restart_clocks(self, *, now_s: float) -> None:
        """Begin the waits of replicas on their way afresh: a daemon that was away cannot tell how long it was.

        Nor whether the clock was set meanwhile: what began later than now would never be over.
        """
        with self._transaction():
            self._run(
                "UPDATE replicas SET changed_s = ?"
                " WHERE state IN ('starting', 'draining', 'stopping') OR changed_s > ?",
                *(now_s, now_s),
            )
            self._run("UPDATE rollouts SET started_s = ? WHERE started_s > ? AND state = 'progressing'", now_s, now_s)
            self._run("UPDATE deployments SET fallback_s = ? WHERE fallback IS NOT NULL", now_s)


def _replica(row: sqlite3.Row) -> ReplicaRecord:
    replica = Replica(
        id=row["id"],
        deployment=row["deployment"],
        revision=row["revision"],
        state=ReplicaState(row["state"]),
        address=row["address"],
        pid=row["pid"],
        started_s=row["started_s"],
        changed_s=row["changed_s"],
        reason=row["reason"],
        restarts=row["restarts"],
    )
    return ReplicaRecord(replica, row["ready_s"], bool(row["routed"]), bool(row["settled"]))
