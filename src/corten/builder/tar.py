"""Entries to tar bytes. The same entries give the same bytes on any machine, date, user and locale.

Headers are ustar (POSIX.1-1988) with owner 0 and time 0. A PAX record (POSIX.1-2001) is added only where ustar has
no room: names over 100 bytes that do not split at a slash, names that are not ASCII (ustar leaves their encoding
open, PAX says UTF-8), files of 8 GiB and more (ustar has 11 octal digits). Written by hand because `tarfile` costs
three times as much a member, and images hold tens of thousands of them.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from corten.builder.entry import Entry, EntryKind, Slice
from corten.errors import UsageError

_BLOCK = 512
# Two empty blocks end an archive; GNU tar's padding to 10 KiB is for tape drives and only adds bytes.
_END = bytes(2 * _BLOCK)
_CHUNK_BYTES = 1 << 20
_OCTAL_LIMIT_BYTES = 8 << 30
_NAME_BYTES = 100
_PREFIX_BYTES = 155
_DIRECTORY_MODE = 0o755
_PAX_NAME = b"././@PaxHeader"
_TYPES = {EntryKind.FILE: b"0", EntryKind.DIRECTORY: b"5", EntryKind.SYMLINK: b"2", EntryKind.WHITEOUT: b"0"}
_WHITEOUT = ".wh."


@dataclass(frozen=True, slots=True)
class Content:
    """A file's content on its way into a tar, and the same as a deflate stream."""

    plain: Iterable[bytes]
    deflated: bytes | Slice


def tar(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The bytes of a tar, as `parts` gives them."""
    for part in parts(entries):
        if isinstance(part, Content):
            yield from part.plain
        else:
            yield part


def parts(entries: Iterable[Entry]) -> Iterator[bytes | Content]:
    """The bytes of a tar of entries that are sorted by name; missing parent folders are added (0755), each once.

    What has been deflated already comes as Content. Lazy: holds one entry at a time, files are streamed. Raises
    UsageError `layer.unsafe_name` for `..`, absolute names, NUL and the like, `layer.unsorted` for disorder and
    duplicates, `source.changed` when a file changes while it is read.
    """
    previous = ""
    folders: set[str] = set()
    others: set[str] = set()
    for entry in entries:
        check_name(entry.name)
        if entry.name <= previous:
            raise UsageError(
                "layer.unsorted",
                f"`{entry.name}` is in the layer twice or out of order",
                why=f"it comes after `{previous}`",
            )
        previous = entry.name
        yield from _missing_parents(entry.name, folders, others)
        (folders if entry.kind is EntryKind.DIRECTORY else others).add(entry.name)
        yield from _member(entry)
    yield _END


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Sort entries by name as `tar` wants them (by code point, which is the order of the UTF-8 bytes)."""
    return sorted(entries, key=_by_name)


def merged(sources: Iterable[Iterable[Entry]]) -> Iterator[Entry]:
    """Several sorted streams as one, lazily. Of entries with one name the last source's wins, as in layers."""
    # Of equal names the highest rank comes first out of the merge.
    streams = [_ranked(source, -number) for number, source in enumerate(sources)]
    previous = None
    for name, _, entry in heapq.merge(*streams, key=lambda item: item[:2]):
        if name != previous:
            yield entry
        previous = name


def check_name(name: str) -> None:
    """Refuse what could land outside the layer's root, or differ between readers of the tar."""
    parts = name.split("/")
    # An empty part is a leading, trailing or doubled slash.
    if "\0" in name or any(part in {"", ".", ".."} or part.startswith(_WHITEOUT) for part in parts):
        raise UsageError(
            "layer.unsafe_name",
            f"`{name[:200]!r}` cannot be the name of a file in an image",
            why="expected a relative path without empty parts, `.`, `..`, NUL or OCI whiteout marks",
        )


def _by_name(entry: Entry) -> str:
    return entry.name


def _ranked(source: Iterable[Entry], rank: int) -> Iterator[tuple[str, int, Entry]]:
    return ((entry.name, rank, entry) for entry in source)


def _missing_parents(name: str, folders: set[str], others: set[str]) -> Iterator[bytes]:
    at = name.rfind("/")
    if at < 0 or name[:at] in folders:
        return
    at = name.find("/")
    while at >= 0:
        parent = name[:at]
        if parent in others:
            # Written through a file or, worse, a symlink: where it lands would depend on the reader.
            raise UsageError(
                "layer.unsafe_name", f"`{name}` lies below `{parent}`, which is not a folder in this layer"
            )
        if parent not in folders:
            folders.add(parent)
            yield _header(parent, EntryKind.DIRECTORY, _DIRECTORY_MODE, 0, "")
        at = name.find("/", at + 1)


def _member(entry: Entry) -> Iterator[bytes | Content]:
    if entry.kind is EntryKind.WHITEOUT:
        folder, slash, name = entry.name.rpartition("/")
        yield _header(f"{folder}{slash}{_WHITEOUT}{name}", entry.kind, entry.mode, 0, "")
    elif entry.kind is not EntryKind.FILE:
        yield _header(entry.name, entry.kind, entry.mode, 0, entry.target)
    elif isinstance(entry.data, Path):
        yield from _streamed(entry, entry.data)
    else:
        size = len(entry.data)
        yield _header(entry.name, entry.kind, entry.mode, size, "")
        if entry.seen:
            entry.seen(entry.data)
        yield Content((entry.data,), entry.deflated) if entry.deflated else entry.data
        yield bytes(-size % _BLOCK)


def _streamed(entry: Entry, path: Path) -> Iterator[bytes | Content]:
    with _opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        yield _header(entry.name, entry.kind, entry.mode, size, "")
        if entry.deflated:
            yield Content(_pieces(stream, size, path), entry.deflated)
        else:
            for piece in _pieces(stream, size, path):
                if entry.seen:
                    entry.seen(piece)
                yield piece
    yield bytes(-size % _BLOCK)


def _pieces(stream: FileIO, size: int, path: Path) -> Iterator[bytes]:
    left = size
    while piece := stream.read(min(_CHUNK_BYTES, left + 1)):
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise UsageError(
            "source.changed",
            f"`{path.name}` changed while it was packed",
            where=str(path),
            why=f"it had {size} bytes and then {'more' if left < 0 else 'fewer'}",
            hint="build again when nothing writes to it",
        )


def _opened(path: Path) -> FileIO:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise UsageError(
            "source.unreadable", f"`{path.name}` cannot be read", where=str(path), why=str(error.strerror)
        ) from error


def _header(name: str, kind: EntryKind, mode: int, size: int, target: str) -> bytes:
    raw = _encoded(name) + (b"/" if kind is EntryKind.DIRECTORY else b"")
    link = _encoded(target)
    records: list[tuple[bytes, bytes]] = []
    prefix = b""
    if len(raw) > _NAME_BYTES or not raw.isascii():
        prefix, short = _split(raw)
        if not short:
            records.append((b"path", raw))
            prefix, short = b"", raw[:_NAME_BYTES]
        raw = short
    if len(link) > _NAME_BYTES or not link.isascii():
        records.append((b"linkpath", link))
        link = link[:_NAME_BYTES]
    if size >= _OCTAL_LIMIT_BYTES:
        records.append((b"size", b"%d" % size))
        size = 0  # readers take the record; what stands here is for those that know no PAX
    header = _ustar(raw, _TYPES[kind], mode, size, prefix=prefix, link=link)
    return _pax(records) + header if records else header


def _split(raw: bytes) -> tuple[bytes, bytes]:
    # ustar joins prefix and name by a slash that is stored in neither. (b"", b"") when no slash is in the right place.
    # Not the slash that ends a folder's name.
    at = raw.rfind(b"/", 0, min(_PREFIX_BYTES + 1, len(raw) - 1))
    if raw.isascii() and at > 0 and len(raw) - at - 1 <= _NAME_BYTES:
        return raw[:at], raw[at + 1 :]
    return b"", b""


def _pax(records: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(_pax_record(key, value) for key, value in records)
    return _ustar(_PAX_NAME, b"x", 0o644, len(body)) + body + bytes(-len(body) % _BLOCK)


def _pax_record(key: bytes, value: bytes) -> bytes:
    # "LENGTH KEY=VALUE\n", where LENGTH counts its own digits too.
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d" % length + rest


def _ustar(name: bytes, kind: bytes, mode: int, size: int, *, prefix: bytes = b"", link: bytes = b"") -> bytes:
    header = b"".join(
        (
            name.ljust(_NAME_BYTES, b"\0"),
            b"%07o\0" % (mode & 0o7777),
            b"0000000\x000000000\0",  # uid, gid
            b"%011o\0" % size,
            b"00000000000\0        ",  # mtime, and the checksum's place holder
            kind,
            link.ljust(_NAME_BYTES, b"\0"),
            b"ustar\x0000",
            bytes(64),  # owner's and group's names
            b"0000000\x000000000\0",  # device numbers
            prefix.ljust(_PREFIX_BYTES, b"\0"),
            bytes(12),
        )
    )
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            "layer.unsafe_name",
            f"`{text[:200]!r}` cannot be the name of a file in an image",
            why="it is not valid UTF-8",
            hint="rename the file",
        ) from error
