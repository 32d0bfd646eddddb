"""A replica's log: written by the replica itself, so that it goes on while no daemon runs; read and kept short here."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_LONGEST_BYTES: Final = 64 << 20
_KEPT_BYTES: Final = 8 << 20
_PIECE_BYTES: Final = 64 << 10
# Of one answer: a log of one endless line must not fill the memory of who reads it.
_ANSWER_BYTES: Final = 4 << 20


def last_lines(log: Path, most: int, *, limit_bytes: int = _ANSWER_BYTES) -> Sequence[str]:
    """The last lines, oldest first, read from the end; at most `limit_bytes` of them. Empty when there is no log."""
    if most <= 0:
        return []
    data = _tail(log, most, limit_bytes)
    return data.decode("utf-8", "replace").splitlines()[-most:]


def keep_short(log: Path, *, longest_bytes: int = _LONGEST_BYTES, kept_bytes: int = _KEPT_BYTES) -> bool:
    """Cut a log that has grown too long: its end goes to `log.1`, what was before is dropped. Raises OSError.

    The replica holds the file open, so it is truncated in place and not renamed; it writes with O_APPEND and goes on
    at the new end. What it writes between the copy and the cut is lost. Returns whether it was cut.
    """
    if log.stat().st_size <= longest_bytes:
        return False
    with log.open("rb") as stream:
        stream.seek(-kept_bytes, os.SEEK_END)
        end = stream.read(kept_bytes)
    unfinished = log.with_name(".log.1")
    unfinished.write_bytes(end)
    unfinished.replace(log.with_name("log.1"))
    os.truncate(log, 0)
    return True


def _tail(log: Path, lines: int, limit_bytes: int) -> bytes:
    try:
        stream = log.open("rb")
    except FileNotFoundError:
        return b""
    with stream:
        at = stream.seek(0, os.SEEK_END)
        end = at
        data = b""
        # One newline more than lines: the last line ends with one, the first needs the one before it.
        while at > 0 and data.count(b"\n") <= lines and end - at < limit_bytes:
            size = min(_PIECE_BYTES, at)
            at -= size
            stream.seek(at)
            data = stream.read(size) + data
    return data
