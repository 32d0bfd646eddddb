"""How a new revision gets its requests: all at once, or a growing share of them while it is watched."""

from __future__ import annotations

import re
from dataclasses import dataclass

from corten.errors import UsageError

_HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_AUTO_STEPS = (5, 25, 50)


@dataclass(frozen=True, slots=True)
class Canary:
    """`steps`: shares of the requests in percent, one after the other, before a new revision gets all of them.

    `judged`: a share is left for the next, or for none, by what the revision answers; else the user says so. With
    `sticky`, requests whose header of that name has the same value go to the same revision while its share only grows.
    With `mirror`, it gets no request before the user says so, but copies of so many percent of them, to be compared.
    """

    steps: tuple[int, ...] = ()
    judged: bool = False
    sticky: str = ""
    mirror: int = 0


def parse_canary(text: str) -> Canary:
    """`off`, `auto` (5, 25, 50 %, judged), shares of one's own (`1,10,50`: judged), or one to stay at (`10%`).

    Raises UsageError `canary.malformed`.
    """
    match text:
        case "" | "off":
            return Canary()
        case "auto":
            return Canary(_AUTO_STEPS, judged=True)
        case _:
            shares = [_share(word) for word in text.removesuffix("%").split(",")]
            steps = tuple(share for share in shares if share is not None)
    if len(steps) != len(shares) or list(steps) != sorted(set(steps)) or (text.endswith("%") and len(steps) > 1):
        raise UsageError(
            "canary.malformed",
            f"not a canary: `{text[:60]}`",
            why="expected off, auto, rising shares like 1,10,50 (judged), or one share to stay at like 10%",
            hint="canary = auto",
        )
    return Canary(steps, judged=not text.endswith("%"))


def parse_sticky(text: str) -> str:
    """The name of a header, in lower case as HTTP/2 has it; empty for none. Raises UsageError `canary.bad_header`."""
    name = text.lower()
    if name and not _HEADER.fullmatch(name):
        raise UsageError(
            "canary.bad_header",
            f"not the name of a header: `{text[:60]}`",
            why="expected letters, digits and `-`, as in x-user-id",
            hint="sticky = x-user-id",
        )
    return name


def _share(word: str) -> int | None:
    number = word.strip()
    return int(number) if number.isascii() and number.isdigit() and len(number) <= 2 and int(number) else None
