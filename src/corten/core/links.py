"""Where a path leads in a tree that has links."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

# How often a link may lead to a link (the kernel's limit, path_resolution(7)).
_MOST = 40


def follow(path: str, target: Callable[[Sequence[str]], str]) -> list[str]:
    """The parts of the place a path leads to, links followed and never out of the root; what is not there stays.

    `target` gives where the link at these parts points, and nothing for what is no link.
    """
    rest = parts(path)
    found: list[str] = []
    links = 0
    while rest:
        part = rest.pop(0)
        if part == "..":
            found = found[:-1]
            continue
        pointed = target([*found, part]) if links < _MOST else ""
        if pointed:
            links += 1
            found = [] if pointed.startswith("/") else found
            rest = parts(pointed) + rest
            continue
        found.append(part)
    return found


def parts(path: str) -> list[str]:
    """The names a path is made of; the root itself has none."""
    return [part for part in PurePosixPath(path).parts if part != "/"]
