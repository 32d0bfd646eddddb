"""How a new revision gets its requests: all at once, or a growing share of them while it is watched."""

from __future__ import annotations

from dataclasses import dataclass

from corten.errors import UsageError

_AUTO_STEPS = (5, 25, 50)


@dataclass(frozen=True, slots=True)
class Canary:
    """`steps`: shares of the requests in percent, one after the other, before a new revision gets all of them.

    `judged`: a share is left for the next, or for none, by what the revision answers; else the user says so.
    """

    steps: tuple[int, ...] = ()
    judged: bool = False


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


def _share(word: str) -> int | None:
    number = word.strip()
    return int(number) if number.isascii() and number.isdigit() and len(number) <= 2 and int(number) else None
