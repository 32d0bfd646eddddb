"""What is asked of a cluster: five verbs for objects, and one for what is none (logs, a pod's answers, versions)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from corten.cluster.kinds import Kind

MANAGER = "corten"
JSON = "application/json"
ANSWER_S = 30.0

Manifest = Mapping[str, Any]


class Change(Enum):
    """What a watch tells of an object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects of a kind, and the version of the whole they were seen at: watches go on from there."""

    items: tuple[Manifest, ...]
    version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What something in the cluster answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Api(Protocol):
    """A cluster's API. Raises what `cluster.failures` makes of its refusals; 429 and 5xx have been tried again by then.

    `namespace` is what the context says, or `default`; `server` its address, for people.
    """

    namespace: str
    server: str

    def apply(self, manifest: Manifest, namespace: str, *, manager: str = MANAGER, dry_run: bool = False) -> Manifest:
        """Make it so (server-side apply, never forced); gives the object as it is then."""

    def get(self, kind: Kind, name: str, namespace: str) -> Manifest | None:
        """One object; None when it is not there."""

    def list(self, kind: Kind, namespace: str, labels: str = "", fields: str = "") -> Listing:
        """The objects that selectors choose."""

    def watch(
        self, kind: Kind, namespace: str, labels: str, since: str, timeout_s: float
    ) -> Iterator[tuple[Change, Manifest]]:
        """What changes after `since`, for so long at most. Raises ExpiredError when that is too long ago."""

    def delete(self, kind: Kind, name: str, namespace: str) -> bool:
        """End it, and what it owns; False when it was not there."""

    def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        media_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        answer_s: float = ANSWER_S,
    ) -> Answer:
        """Any other request. A pod's own refusal is an answer, the API server's is an error.

        A pod that says nothing for `answer_s` is a 504.
        """


class ExpiredError(Exception):
    """What is asked for of an earlier moment is not kept any more (410): list again."""
