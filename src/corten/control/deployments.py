"""Deployments and their revisions: what users named and want."""

from __future__ import annotations

import sqlite3

import msgspec

from corten.control.comparison import Compared
from corten.control.database import corrupt
from corten.control.journal import Journal
from corten.control.records import Deployment, Rollout, Scale
from corten.core.access import Access
from corten.core.deployment import Revision, RolloutState, Settings
from corten.core.digest import Digest
from corten.core.rest import Rest
from corten.core.traffic import Traffic
from corten.errors import CortenError, NotFoundError


class Deployments(Journal):
    """The part of the state that says what is wanted."""

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

    def secret_ids(self) -> frozenset[str]:
        """The secrets of all revisions there are."""
        rows = self._all("SELECT DISTINCT value AS id FROM revisions, json_each(settings, '$.secret_ids')")
        return frozenset(row["id"] for row in rows)

    def _revision_or_none(self, name: str, number: int | None) -> Revision | None:
        return None if number is None else self.revision(name, number)

    def _settings(self, text: str) -> Settings:
        try:
            return msgspec.json.decode(text, type=Settings)
        except msgspec.MsgspecError as error:
            raise corrupt(self._path, f"a revision's settings cannot be read: {error}") from error

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

    def _add_revision(self, name: str, image: Digest, settings: Settings, now_s: float) -> int:
        row = self._one("SELECT coalesce(max(number), 0) + 1 AS next FROM revisions WHERE deployment = ?", name)
        number = int(row["next"]) if row else 1
        self._run(
            "INSERT INTO revisions VALUES (?, ?, ?, ?, ?)",
            *(name, number, str(image), msgspec.json.encode(settings).decode(), now_s),
        )
        return number

    def _raise_generation(self, name: str) -> int:
        self._run("UPDATE deployments SET generation = generation + 1 WHERE name = ?", name)
        row = self._one("SELECT generation FROM deployments WHERE name = ?", name)
        return int(row["generation"]) if row else 0


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
