"""Rollouts: how a deployment gets from one revision to the next, by which shares, and back when it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from corten.control.comparison import Compared
from corten.control.deployments import Deployments
from corten.control.records import ALL, Accepted, Deployment, Rollout
from corten.core.canary import Canary
from corten.core.deployment import RolloutState
from corten.core.events import Phase
from corten.core.traffic import Traffic
from corten.errors import NotFoundError


class Rollouts(Deployments):
    """The part of the state that says how far a change is."""

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

    def _end_rollout(self, name: str, state: RolloutState, reason: str, now_s: float) -> None:
        self._run(
            "UPDATE rollouts SET state = ?, reason = ?, ended_s = ? WHERE deployment = ? AND state = 'progressing'",
            *(state.value, reason, now_s, name),
        )

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
