"""Envoy's logs: kept small, and read for what only they say."""

from __future__ import annotations

import os
from pathlib import Path

LARGEST_BYTES = 64 << 20


def size_bytes(path: Path) -> int:
    """How large a log is; 0 when there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def rotate(path: Path) -> bool:
    """Set a log aside when it has grown; whether it did."""
    if size_bytes(path) < LARGEST_BYTES:
        return False
    path.replace(path.with_name(path.name + ".1"))
    return True


def tail(log: Path, *, since_bytes: int = 0, at_most_bytes: int = 4096) -> str:
    """The end of a log, nothing from before `since_bytes`."""
    try:
        with log.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(since_bytes, end - at_most_bytes))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def last_words(log: Path, *, since_bytes: int) -> str:
    """The last line, without its time stamp and place."""
    line = tail(log, since_bytes=since_bytes).strip().rpartition("\n")[2]
    return line.partition("] ")[2][-500:] or line


def rejection(log: Path, *, since_bytes: int) -> str:
    """What follows `rejected: ` in the last complete line that has it; empty when there is none."""
    lines = tail(log, since_bytes=since_bytes).rpartition("\n")[0].splitlines()
    found = [line.partition("rejected: ")[2] for line in lines if "rejected: " in line]
    return found[-1][:1000] if found else ""
