"""The journal: what the control plane is about to do and saw, a line in the transaction of each change."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

import msgspec

from corten.control.database import Statements
from corten.control.records import JournalEntry
from corten.core.events import Event, Phase

# How many lines are kept: some months of deploys, a few megabytes.
_LINES = 20_000


class Journal(Statements):
    """The part of the state that remembers what happened."""

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
        return tuple(map(_entry, rows))

    def last_seq(self) -> int:
        """The newest line's number."""
        row = self._one("SELECT coalesce(max(seq), 0) AS seq FROM events")
        return int(row["seq"]) if row else 0

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
        self._run("DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - ?", _LINES)


def _entry(row: sqlite3.Row) -> JournalEntry:
    data = msgspec.json.decode(row["data"], type=dict[str, Any])
    return JournalEntry(row["seq"], row["at_s"], row["deployment"], row["step"], row["phase"], row["message"], data)
