"""Requests that were in the hands of a replica when it ended, in the state's file: the next daemon knows them too."""

from __future__ import annotations

from collections.abc import Sequence

from corten.control.database import Statements

MEMORY_S = 60.0  # a request that was not seen for so long is forgotten


class Suspects(Statements):
    """The part of the state that outlives a daemon which dies between two ends. No request's content is kept."""

    def remember(self, deployment: str, request: str, ends: int, *, now_s: float) -> None:
        """A request was in dying hands `ends` times by now, or is sent on: it is the last of them then."""
        with self._transaction(synced=False):
            self._run("DELETE FROM suspects WHERE deployment = ? AND request = ?", deployment, request)
            self._run("INSERT INTO suspects VALUES (?, ?, ?, ?)", deployment, request, ends, now_s)

    def of(self, deployment: str, *, now_s: float) -> Sequence[tuple[str, int]]:
        """A deployment's, who was sent on last at the end, with their ends; those of long ago are forgotten."""
        # Nor those of a time to come: the clock was set meanwhile.
        self._run("DELETE FROM suspects WHERE abs(seen_s - ?) > ?", now_s, MEMORY_S)
        rows = self._all("SELECT request, ends FROM suspects WHERE deployment = ? ORDER BY rowid", deployment)
        return [(str(row["request"]), int(row["ends"])) for row in rows]
