"""Whether two revisions answered the same request alike. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

# Of numbers: two runtimes, or one on another day, need not agree to the last bit.
_TOLERANCE = 1e-6
_FAILED = 500
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a replica answered; `status` 0: nothing."""

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of copies of requests: of `same` the answers were alike, of `differing` not, of `failed` the new
    revision failed where the serving one did not; `skipped` were not asked.

    `at` is where the newest difference was, `largest` the largest one of numbers.
    """

    same: int = 0
    differing: int = 0
    failed: int = 0
    skipped: int = 0
    at: str = ""
    largest: float = 0.0

    @property
    def answered(self) -> int:
        """How many were compared."""
        return self.same + self.differing + self.failed

    def plus(self, serving: Reply, new: Reply) -> Compared:
        """With one more request."""
        if _fails(new) and not _fails(serving):
            return replace(self, failed=self.failed + 1, at=f"status {new.status or 'none'}, not {serving.status}")
        if serving.status != new.status:
            return replace(self, differing=self.differing + 1, at=f"status {new.status}, not {serving.status}")
        found = list(_differences(serving.body, new.body))
        if not found:
            return replace(self, same=self.same + 1)
        largest = max(self.largest, *(amount for _, amount in found))
        return replace(self, differing=self.differing + 1, at=found[0][0], largest=largest)

    def words(self) -> str:
        """For people."""
        if not self.answered:
            return "nothing compared yet"
        told = f"of {self.answered} compared {self.same} alike, {self.differing} differ, {self.failed} failed"
        where = f"; last at {self.at}" if self.at else ""
        return told + where + (f", at most by {self.largest:.3g}" if self.largest else "")


def _fails(reply: Reply) -> bool:
    return reply.status == 0 or reply.status >= _FAILED


def _differences(one: bytes, other: bytes) -> Iterator[tuple[str, float]]:
    """Where two bodies differ, and numbers by how much."""
    if one == other:
        return
    try:
        yield from _unlike(json.loads(one), json.loads(other), "")
    except (ValueError, RecursionError):
        yield "the body", 0.0


def _unlike(one: Any, other: Any, at: str) -> Iterator[tuple[str, float]]:
    match one, other:
        case dict(), dict():
            for key in sorted({*one, *other}):
                yield from _unlike(one.get(key, _MISSING), other.get(key, _MISSING), f"{at}.{key}" if at else key)
        case list(), list():
            for number, (left, right) in enumerate(zip_longest(one, other, fillvalue=_MISSING)):
                yield from _unlike(left, right, f"{at}[{number}]")
        case (bool(), _) | (_, bool()):
            if one is not other:
                yield at, 0.0
        case int() | float(), int() | float():
            amount = abs(one - other)
            if not amount <= _TOLERANCE * max(1.0, abs(one), abs(other)) and one != other:
                yield at, float(amount) if amount == amount else 0.0  # noqa: PLR0124 -- NaN
        case _:
            if one != other:
                yield at, 0.0
