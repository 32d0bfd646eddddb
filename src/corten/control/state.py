"""The control plane's memory: SQLite, one transaction a change, its journal line in the same one, synced first.

Made and used on one thread. Times are given in; `now_s` is seconds since the epoch on the daemon's steady clock.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgspec

from corten.control import database
from corten.control.comparison import Compared
from corten.control.credentials import Credentials
from corten.control.records import ALL, Accepted, Deployment, JournalEntry, ReplicaRecord, Rollout, Scale
from corten.core.access import Access, Auth
from corten.core.canary import Canary
from corten.core.deployment import ACCESS_KEYS, Replica, ReplicaState, Revision, RolloutState, Settings
from corten.core.digest import Digest
from corten.core.events import Event, Phase
from corten.core.front import Front
from corten.core.rest import Rest
from corten.core.traffic import Traffic
from corten.errors import CortenError, NotFoundError

# How many journal lines are kept: some months of deploys, a few megabytes.
_JOURNAL_LINES = 20_000
_NOT_THE_REVISIONS = ("replicas", "most_replicas", "concurrency", "canary", "strategy", "rest", *ACCESS_KEYS)
_LEAVING = (ReplicaState.DRAINING, ReplicaState.FROZEN, ReplicaState.STOPPING)


class State(database.Statements):
    """Deployments, revisions, rollouts, replicas, the journal and settings in one file."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the file; raises CortenError (`state.corrupt`, `state.too_new`, `state.unusable`)."""
        return cls(database.open_database(path), path)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def credentials(self) -> Credentials:
        """Whose tokens are valid, in the same file."""
        return Credentials(self._connection, self._path)

    # What is wanted

    def deployments(self) -> tuple[Deployment, ...]:
        """All deployments, by name."""
        names = self._all("SELECT name FROM deployments ORDER BY name")
        return tuple(self.deployment(row["name"]) for row in names)

    def deployment(self, name: str) -> Deployment:
        """One deployment; raises NotFoundError `control.unknown_deployment`."""
        found = self.find(name)
        if found is None:
            raise NotFoundError(
                "control.unknown_deployment", f"no deployment called `{name}`", hint="see `corten status`"
            )
        return found

    def find(self, name: str) -> Deployment | None:
        """One deployment, or None."""
        row = self._one("SELECT * FROM deployments WHERE name = ?", name)
        if row is None:
            return None
        newest = self._one("SELECT * FROM rollouts WHERE deployment = ? ORDER BY id DESC LIMIT 1", name)
        return Deployment(
            name=name,
            generation=row["generation"],
            replicas=row["replicas"],
            wanted=self._revision_or_none(name, row["wanted"]),
            serving=self._revision_or_none(name, row["serving"]),
            rollout=_rollout(newest) if newest else None,
            deleting=bool(row["deleting"]),
            scale=Scale(row["least"], row["most"], row["concurrency"]) if row["most"] > row["least"] else None,
            access=msgspec.json.decode(row["access"], type=Access),
            rest=msgspec.json.decode(row["rest"], type=Rest),
            resting=row["resting"],
            fallback=row["fallback"],
            fallback_s=row["fallback_s"],
        )

    def revision(self, name: str, number: int) -> Revision:
        """One revision; raises NotFoundError `control.unknown_revision`."""
        row = self._one("SELECT * FROM revisions WHERE deployment = ? AND number = ?", name, number)
        if row is None:
            known = self._all("SELECT number FROM revisions WHERE deployment = ? ORDER BY number", name)
            raise NotFoundError(
                "control.unknown_revision",
                f"`{name}` has no revision r{number}",
                why="known: " + (", ".join(f"r{each['number']}" for each in known[-10:]) or "none"),
            )
        return Revision(
            deployment=name,
            number=row["number"],
            image=Digest.parse(row["image"]),
            settings=self._settings(row["settings"]),
            created_s=row["created_s"],
        )

    def deploy(
        self,
        name: str,
        image: Digest,
        settings: Settings,
        *,
        generation: int | None,
        now_s: float,
        swap: bool = False,
    ) -> Accepted:
        """Want this image under these settings: a new revision and a rollout to it, by `swap` or surge.

        Only a different number of replicas makes no revision, it scales; no difference at all changes nothing.
        Raises CortenError `control.conflict` when `generation` is given and is not the current one (0: none exists).
        """
        with self._transaction():
            known = self._compare(name, generation)
            after = self._last_seq()
            same = known is not None and self._same(known, image, settings)
            replicas = _replicas_for(settings, known)
            if known is not None and known.wanted is not None and same:
                rescaled = known.replicas != replicas or known.scale != _scale_of(settings)
                scaled = rescaled or known.rest != settings.rest
                if scaled:
                    self._set_scale(name, settings, replicas)
                if rescaled:
                    self._say(name, "scale", f"{known.replicas} to {_told(replicas, settings)} replicas", now_s)
                changed = self._set_access(known, settings, now_s) or scaled
                now_at = self._raise_generation(name) if changed else known.generation
                rollout = known.rollout.id if known.rollout else None
                return Accepted(name, known.wanted.number, now_at, changed, rollout, after)
            if known is None:
                self._run(
                    "INSERT INTO deployments (name, generation, replicas, created_s) VALUES (?, 0, ?, ?)",
                    *(name, replicas, now_s),
                )
            self._set_access(self.deployment(name), settings, now_s)
            number = self._add_revision(name, image, settings, now_s)
            # A revision has to show that it gets ready, also where none is needed for now.
            awake = max(replicas, 1)
            keep = settings.rest.keep_previous_s > 0 and not swap
            accepted = self._roll_to(
                name, number, awake, known, settings.canary, after=after, now_s=now_s, swap=swap, keep=keep
            )
            self._set_scale(name, settings, awake)
            return accepted

    def scale(
        self, name: str, replicas: int, reason: str, *, now_s: float, data: Mapping[str, Any], resting: int = 0
    ) -> None:
        """The requests take so many replicas now, and so many frozen ones. No change of the user's."""
        with self._transaction():
            known = self.find(name)
            if known is None or known.scale is None or known.deleting:
                return
            if (known.replicas, known.resting) == (replicas, resting):
                return
            self._run("UPDATE deployments SET replicas = ?, resting = ? WHERE name = ?", replicas, resting, name)
            message = f"{_scaled(known, replicas, resting)}: {reason}"
            self._say(name, "scale", message, now_s, phase=Phase.DONE, data={"was": known.replicas, **data})

    def _set_access(self, known: Deployment, settings: Settings, now_s: float) -> bool:
        """Who may ask from now on; whether that is a change."""
        before = Access() if known.deleting else known.access
        access = settings.access(before)
        if access == known.access:
            return False
        text = msgspec.json.encode(access).decode()
        self._run("UPDATE deployments SET access = ? WHERE name = ?", text, known.name)
        data = {"was": msgspec.to_builtins(known.access), "now": msgspec.to_builtins(access)}
        self._say(known.name, "access", _told_access(access), now_s, phase=Phase.DONE, data=data)
        return True

    def drop_fallback(self, name: str, reason: str, *, now_s: float) -> None:
        """Keep no replica of an earlier revision frozen any more."""
        with self._transaction():
            known = self.find(name)
            if known is None or known.fallback is None:
                return
            self._run("UPDATE deployments SET fallback = NULL WHERE name = ?", name)
            self._say(name, "rest", f"r{known.fallback} is kept frozen no longer: {reason}", now_s, phase=Phase.DONE)

    def _set_scale(self, name: str, settings: Settings, replicas: int) -> None:
        scale = _scale_of(settings) or Scale(0, 0, settings.concurrency)
        rest = msgspec.json.encode(settings.rest).decode()
        self._run(
            "UPDATE deployments SET replicas = ?, least = ?, most = ?, concurrency = ?, rest = ? WHERE name = ?",
            *(replicas, scale.least, scale.most, scale.concurrency, rest, name),
        )

    def promote(self, name: str, share: int, *, generation: int | None, now_s: float) -> Accepted:
        """Give the revision that is a canary this share of the requests, in percent (100: all, and the other ends).

        A share the user chose is not judged: it stays until the user says otherwise. Raises NotFoundError
        (`control.unknown_deployment`, `control.no_canary`) and CortenError `control.conflict`.
        """
        with self._transaction():
            known = self._compare(name, generation) or self.deployment(name)
            rollout = known.canary
            if rollout is None or known.wanted is None:
                raise NotFoundError(
                    "control.no_canary",
                    f"`{name}` has no canary",
                    why="no revision is being tried on a share of the requests",
                    hint=f"deploy one with `--canary auto`; see `corten status {name}`",
                )
            after = self._last_seq()
            told = msgspec.to_builtins(rollout.compared) if rollout.mirror else {}
            data = {"compared": told} if told else None
            self._share(replace(rollout, share=share, steps=(), judged=False), rollout.share, "told so", now_s, data)
            now_at = self._raise_generation(name)
            return Accepted(name, known.wanted.number, now_at, changed=True, rollout=rollout.id, after=after)

    def grow(self, name: str, reason: str, *, now_s: float, data: Mapping[str, Any]) -> None:
        """A canary passed: it gets the next of its shares, after the last one all."""
        with self._transaction():
            rollout = self.deployment(name).canary
            if rollout is not None:
                share, *rest = (*rollout.steps, ALL)
                grown = replace(rollout, share=share, steps=tuple(each for each in rest if each < ALL))
                self._share(grown, rollout.share, reason, now_s, data)

    def count_from(self, name: str, counted: Mapping[int, Traffic]) -> None:
        """What the gateway had counted of both revisions when the canary's share came into force."""
        text = msgspec.json.encode({str(number): traffic for number, traffic in counted.items()}).decode()
        self._run("UPDATE rollouts SET counted = ? WHERE deployment = ? AND state = 'progressing'", text, name)

    def compared(self, rollout: int, found: Compared) -> None:
        """What comparing a mirrored revision's answers gave so far."""
        self._run("UPDATE rollouts SET compared = ? WHERE id = ?", msgspec.json.encode(found).decode(), rollout)

    def _share(
        self, rollout: Rollout, was: int, reason: str, now_s: float, data: Mapping[str, Any] | None = None
    ) -> None:
        """Write down the share a canary has from now on, and tell it; what was counted before says nothing of it."""
        self._run(
            "UPDATE rollouts SET share = ?, steps = ?, judged = ?, mirror = 0, counted = '' WHERE id = ?",
            *(rollout.share, msgspec.json.encode(rollout.steps).decode(), rollout.judged, rollout.id),
        )
        message = f"r{rollout.target} gets {rollout.share} % of the requests: {reason}"
        told = {"revision": f"r{rollout.target}", "share": rollout.share, "was": was, **(data or {})}
        self._say(rollout.deployment, "canary", message, now_s, phase=Phase.DONE, data=told)

    def roll_back(
        self, name: str, to: int | None, *, generation: int | None, now_s: float, swap: bool = False
    ) -> Accepted:
        """Want an earlier revision again (None: the one before, or the serving one while a rollout goes on).

        Raises NotFoundError (`control.unknown_deployment`, `control.unknown_revision`, `control.no_earlier_revision`)
        and CortenError `control.conflict`.
        """
        with self._transaction():
            known = self._compare(name, generation)
            if known is None:
                self.deployment(name)
                raise AssertionError
            number = self._revision_before(known) if to is None else self.revision(name, to).number
            after = self._last_seq()
            if known.wanted is not None and known.wanted.number == number and not known.deleting:
                rollout = known.rollout.id if known.rollout else None
                return Accepted(name, number, known.generation, changed=False, rollout=rollout, after=after)
            keep = known.rest.keep_previous_s > 0 and not swap
            awake = max(known.replicas, 1)
            return self._roll_to(name, number, awake, known, Canary(), after=after, now_s=now_s, swap=swap, keep=keep)

    def restart(self, name: str, *, generation: int | None, now_s: float, swap: bool = False) -> Accepted:
        """Want what is wanted already once more: a new revision of the same image and settings, without a canary.

        Raises NotFoundError `control.unknown_deployment` and CortenError `control.conflict`.
        """
        with self._transaction():
            known = self._compare(name, generation) or self.deployment(name)
            if known.wanted is None:
                raise NotFoundError("control.unknown_deployment", f"`{name}` is being stopped", hint="corten status")
            after = self._last_seq()
            number = self._add_revision(name, known.wanted.image, known.wanted.settings, now_s)
            awake = max(known.replicas, 1)
            # What it was before is what it will be: nothing to go back to.
            return self._roll_to(name, number, awake, known, Canary(), after=after, now_s=now_s, swap=swap, keep=False)

    def delete(self, name: str, *, now_s: float) -> int:
        """Want it gone: every replica drained and removed, then its rows. The last journal `seq` before that."""
        with self._transaction():
            known = self.deployment(name)
            after = self._last_seq()
            if not known.deleting:
                self._end_rollout(name, RolloutState.FAILED, "the deployment is being stopped", now_s)
                self._run("UPDATE deployments SET deleting = 1, wanted = NULL WHERE name = ?", name)
                self._raise_generation(name)
                self._say(name, "stop", "stopping", now_s, phase=Phase.STARTED)
            return after

    def forget(self, name: str, *, now_s: float) -> None:
        """Drop a deployment that is gone; its journal stays."""
        with self._transaction():
            self._run("UPDATE deployments SET wanted = NULL, serving = NULL WHERE name = ?", name)
            self._run("DELETE FROM deployments WHERE name = ?", name)
            self._say(name, "stop", "stopped", now_s, phase=Phase.DONE)

    def finish_rollout(self, name: str, *, now_s: float) -> None:
        """The wanted revision serves alone now."""
        with self._transaction():
            known = self.deployment(name)
            seconds = now_s - known.rollout.started_s if known.rollout else 0.0
            self._end_rollout(name, RolloutState.DONE, "", now_s)
            self._run("UPDATE deployments SET serving = wanted, fallback_s = ? WHERE name = ?", now_s, name)
            label = known.wanted.label if known.wanted else "nothing"
            self._say(
                name,
                "rollout",
                f"{label} serves",
                now_s,
                phase=Phase.DONE,
                data={"revision": label, "seconds": seconds},
            )

    def fail_rollout(self, name: str, reason: str, *, now_s: float, details: Mapping[str, Any] | None = None) -> None:
        """Give the wanted revision up: the one that served before is wanted again, as many replicas as it had."""
        with self._transaction():
            known = self.deployment(name)
            progressing = known.rollout is not None and known.rollout.state is RolloutState.PROGRESSING
            if progressing and known.serving is not None:
                # Not when there was nothing before: the user's number of replicas is then the only one known.
                self._run(
                    "UPDATE deployments SET replicas = (SELECT max(origin_replicas, 1) FROM rollouts"
                    " WHERE deployment = ? ORDER BY id DESC LIMIT 1) WHERE name = ?",
                    *(name, name),
                )
            self._end_rollout(name, RolloutState.FAILED, reason, now_s)
            self._run("UPDATE deployments SET wanted = serving, fallback = NULL WHERE name = ?", name)
            label = known.wanted.label if known.wanted else ""
            data = {"revision": label, "reason": reason, **(details or {})}
            self._say(name, "rollout", f"{label} given up: {reason}", now_s, phase=Phase.WARNING, data=data)

    # What is there

    def replicas(self, name: str | None = None) -> tuple[ReplicaRecord, ...]:
        """The replicas of a deployment, or all, oldest first."""
        if name is None:
            rows = self._all("SELECT * FROM replicas ORDER BY started_s, id")
        else:
            rows = self._all("SELECT * FROM replicas WHERE deployment = ? ORDER BY started_s, id", name)
        return tuple(_replica(row) for row in rows)

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
        """A replica enters another state, told to the journal. Ending while draining or stopping settles it."""
        with self._transaction():
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
            self._run(
                "UPDATE replicas SET state = ?, changed_s = ?, reason = ?, pid = ? WHERE id = ?",
                *(to.value, now_s, reason or row["reason"]),
                *(0 if to is ReplicaState.EXITED else row["pid"], replica_id),
            )
            unwanted = to is ReplicaState.EXITED and was in (ReplicaState.STARTING, ReplicaState.READY)
            message = f"{replica_id} {to.value}" + (f": {reason}" if reason else "")
            data = {"replica": replica_id, "was": was.value, "seconds": now_s - row["changed_s"]}
            phase = Phase.WARNING if unwanted else Phase.DONE
            self._say(row["deployment"], to.value, message, now_s, phase=phase, data=data)

    def routed(self, replica_id: str, *, now_s: float) -> None:
        """The gateway sends it requests now."""
        with self._transaction():
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
        """Begin the waits of replicas on their way afresh: a daemon that was away cannot tell how long it was."""
        self._run(
            "UPDATE replicas SET changed_s = ? WHERE state IN ('starting', 'draining', 'stopping') OR changed_s > ?",
            *(now_s, now_s),
        )

    # Journal and settings

    def journal(self, deployment: str, event: Event, *, now_s: float) -> None:
        """Write and sync a line."""
        with self._transaction():
            self._say(deployment, event.step, event.message, now_s, phase=event.phase, data=event.data)

    def events(self, deployment: str, *, after: int = 0, limit: int = 500) -> tuple[JournalEntry, ...]:
        """A deployment's journal from a `seq` on, oldest first."""
        rows = self._all(
            "SELECT * FROM events WHERE deployment = ? AND seq > ? ORDER BY seq LIMIT ?",
            *(deployment, after, limit),
        )
        return tuple(self._entry(row) for row in rows)

    def last_seq(self) -> int:
        """The newest journal line's number."""
        return self._last_seq()

    def setting(self, key: str) -> str:
        """A setting's value, empty when it was never set."""
        row = self._one("SELECT value FROM settings WHERE key = ?", key)
        return str(row["value"]) if row else ""

    def set_setting(self, key: str, value: str) -> None:
        """Keep a setting."""
        self._run(
            "INSERT INTO settings VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value
        )

    def front(self) -> Front:
        """Where the gateway takes requests."""
        kept = self.setting("front")
        return msgspec.json.decode(kept, type=Front) if kept else Front()

    def set_front(self, front: Front) -> None:
        """Keep where the gateway takes requests."""
        self.set_setting("front", msgspec.json.encode(front).decode())

    # Parts

    def _compare(self, name: str, generation: int | None) -> Deployment | None:
        known = self.find(name)
        current = known.generation if known else 0
        if generation is not None and generation != current:
            raise CortenError(
                "control.conflict",
                f"somebody else changed `{name}` meanwhile",
                why=f"it is at generation {current}, this change was made for {generation}",
                hint=f"look at it with `corten status {name}`, then repeat the command if it is still wanted",
            )
        return known

    @staticmethod
    def _same(known: Deployment, image: Digest, settings: Settings) -> bool:
        if known.wanted is None or known.deleting or known.wanted.image != image:
            return False
        return _shape(known.wanted.settings) == _shape(settings)

    def _add_revision(self, name: str, image: Digest, settings: Settings, now_s: float) -> int:
        row = self._one("SELECT coalesce(max(number), 0) + 1 AS next FROM revisions WHERE deployment = ?", name)
        number = int(row["next"]) if row else 1
        self._run(
            "INSERT INTO revisions VALUES (?, ?, ?, ?, ?)",
            *(name, number, str(image), msgspec.json.encode(settings).decode(), now_s),
        )
        return number

    def _roll_to(
        self,
        name: str,
        number: int,
        replicas: int,
        known: Deployment | None,
        canary: Canary,
        *,
        after: int,
        now_s: float,
        swap: bool,
        keep: bool,
    ) -> Accepted:
        before = self._replicas_before(known) if known else replicas
        self._end_rollout(name, RolloutState.FAILED, f"superseded by r{number}", now_s)
        origin = known.serving.number if known and known.serving else None
        fallback = origin if keep and origin != number else None
        self._run(
            "UPDATE deployments SET wanted = ?, replicas = ?, resting = 0, deleting = 0, fallback = ?, fallback_s = ?"
            " WHERE name = ?",
            *(number, replicas, fallback, now_s, name),
        )
        # There must be one beside which it can have a share.
        beside = origin is not None and origin != number and known is not None and not known.deleting
        share, *rest = (*canary.steps, ALL) if beside else (ALL,)
        mirror = canary.mirror if beside else 0
        self._run(
            "INSERT INTO rollouts"
            " (deployment, origin, target, origin_replicas, state, started_s, share, steps, judged, swap, mirror)"
            " VALUES (?, ?, ?, ?, 'progressing', ?, ?, ?, ?, ?, ?)",
            *(name, origin, number, before, now_s),
            *(share, msgspec.json.encode([each for each in rest if each < ALL]).decode(), canary.judged, swap, mirror),
        )
        row = self._one("SELECT max(id) AS id FROM rollouts WHERE deployment = ?", name)
        change = f"r{origin} to r{number}" if origin else f"r{number}"
        data = {"revision": f"r{number}", "replicas": replicas, "share": share, "swap": swap}
        self._say(name, "rollout", change, now_s, phase=Phase.STARTED, data=data)
        generation = self._raise_generation(name)
        return Accepted(name, number, generation, changed=True, rollout=row["id"] if row else None, after=after)

    def _replicas_before(self, known: Deployment) -> int:
        """How many the serving revision had; a rollout under way may have changed the wanted number already."""
        row = self._one(
            "SELECT origin_replicas FROM rollouts WHERE deployment = ? AND state = 'progressing'", known.name
        )
        return int(row["origin_replicas"]) if row else known.replicas

    def _revision_before(self, known: Deployment) -> int:
        progressing = known.rollout is not None and known.rollout.state is RolloutState.PROGRESSING
        if progressing and known.serving is not None:
            return known.serving.number
        row = self._one(
            "SELECT origin FROM rollouts WHERE deployment = ? AND state = 'done' AND target = ? AND origin IS NOT NULL"
            " ORDER BY id DESC LIMIT 1",
            *(known.name, known.serving.number if known.serving else 0),
        )
        if row is None:
            raise NotFoundError(
                "control.no_earlier_revision",
                f"`{known.name}` has no earlier revision to go back to",
                why=f"{known.serving.label} was the first to serve" if known.serving else "none ever served",
                hint=f"say which one: `corten rollback {known.name} --to rN`",
            )
        return int(row["origin"])

    def _end_rollout(self, name: str, state: RolloutState, reason: str, now_s: float) -> None:
        self._run(
            "UPDATE rollouts SET state = ?, reason = ?, ended_s = ? WHERE deployment = ? AND state = 'progressing'",
            *(state.value, reason, now_s, name),
        )

    def _raise_generation(self, name: str) -> int:
        self._run("UPDATE deployments SET generation = generation + 1 WHERE name = ?", name)
        row = self._one("SELECT generation FROM deployments WHERE name = ?", name)
        return int(row["generation"]) if row else 0

    def _say(
        self,
        deployment: str,
        step: str,
        message: str,
        now_s: float,
        *,
        phase: Phase = Phase.NOTE,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self._run(
            "INSERT INTO events (at_s, deployment, step, phase, message, data) VALUES (?, ?, ?, ?, ?, ?)",
            *(now_s, deployment, step, phase.value, message, msgspec.json.encode(data or {}).decode()),
        )
        self._run("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", _JOURNAL_LINES)

    def _last_seq(self) -> int:
        row = self._one("SELECT coalesce(max(seq), 0) AS seq FROM events")
        return int(row["seq"]) if row else 0

    def _revision_or_none(self, name: str, number: int | None) -> Revision | None:
        return None if number is None else self.revision(name, number)

    def _settings(self, text: str) -> Settings:
        try:
            return msgspec.json.decode(text, type=Settings)
        except msgspec.MsgspecError as error:
            raise database.corrupt(self._path, f"a revision's settings cannot be read: {error}") from error

    def _entry(self, row: sqlite3.Row) -> JournalEntry:
        data = msgspec.json.decode(row["data"], type=dict[str, Any])
        return JournalEntry(row["seq"], row["at_s"], row["deployment"], row["step"], row["phase"], row["message"], data)


def _shape(settings: Settings) -> dict[str, Any]:
    """All that makes a revision; how many replicas is the deployment's, the canary the rollout's."""
    return {key: value for key, value in msgspec.to_builtins(settings).items() if key not in _NOT_THE_REVISIONS}


def _scale_of(settings: Settings) -> Scale | None:
    if settings.most_replicas <= settings.replicas:
        return None
    return Scale(settings.replicas, settings.most_replicas, settings.concurrency)


def _replicas_for(settings: Settings, known: Deployment | None) -> int:
    """How many to begin with: where the requests decide, what they had decided, within the new bounds."""
    scale = _scale_of(settings)
    if scale is None or known is None or known.deleting:
        return max(settings.replicas, 1)
    return min(max(known.replicas, scale.least), scale.most)


def _scaled(known: Deployment, replicas: int, resting: int) -> str:
    if known.replicas == replicas:
        return f"{replicas} replicas, " + ("one frozen" if resting else "the frozen one is stopped")
    frozen = ", frozen" if resting else ""
    return f"{known.replicas} to {replicas} replicas{frozen}"


def _told(replicas: int, settings: Settings) -> str:
    scale = _scale_of(settings)
    return f"{replicas} (of {scale.least}..{scale.most})" if scale else str(replicas)


def _told_access(access: Access) -> str:
    who = "whoever has a token" if access.auth is Auth.TOKEN else "everybody"
    return f"{who} may ask" + (f", {access.rate_per_s} requests a second" if access.rate_per_s else "")


def _rollout(row: sqlite3.Row) -> Rollout:
    return Rollout(
        id=row["id"],
        deployment=row["deployment"],
        origin=row["origin"],
        target=row["target"],
        state=RolloutState(row["state"]),
        reason=row["reason"],
        started_s=row["started_s"],
        ended_s=row["ended_s"],
        # The table's own rule wants 1 at least.
        share=0 if row["mirror"] else row["share"],
        mirror=row["mirror"],
        compared=msgspec.json.decode(row["compared"], type=Compared),
        steps=msgspec.json.decode(row["steps"], type=tuple[int, ...]),
        judged=bool(row["judged"]),
        counted=msgspec.json.decode(row["counted"], type=dict[int, Traffic]) if row["counted"] else None,
        swap=bool(row["swap"]),
    )


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
