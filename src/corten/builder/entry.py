"""A file system entry on its way into a layer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class EntryKind(Enum):
    """What an entry is. Devices, sockets and hard links never get into a layer of ours.

    A whiteout hides what lower layers have under its name (image-spec, layer.md).
    """

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    WHITEOUT = "whiteout"


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer. Owner and time are no part of it: always root and 0, since bytes depend on input only.

    `name` is relative, posix, without `.` or `..`. `data` is the content, or the file to stream it from (weights may be
    larger than memory). `target` is where a symlink points.
    """

    name: str
    kind: EntryKind = EntryKind.FILE
    mode: int = 0o644
    data: bytes | Path = b""
    target: str = ""
