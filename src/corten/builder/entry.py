"""A file system entry on its way into a layer."""

from __future__ import annotations

from collections.abc import Callable
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
class Slice:
    """A part of a file: `size_bytes` of it from `offset` on."""

    path: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer. Owner and time are no part of it: always root and 0, since bytes depend on input only.

    `name` is relative, posix, without `.` or `..`. `data` is the content, or the file to stream it from (weights may be
    larger than memory). `target` is where a symlink points. `deflated` is the same content as a deflate stream
    (RFC 1951), where there is one (else empty): a layer in gzip takes it as it is. `seen` is told the content, piece by
    piece, when it is written.
    """

    name: str
    kind: EntryKind = EntryKind.FILE
    mode: int = 0o644
    data: bytes | Path = b""
    target: str = ""
    deflated: bytes | Slice = b""
    seen: Callable[[bytes], None] | None = None
