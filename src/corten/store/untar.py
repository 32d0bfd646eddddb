"""Read a layer's tar, strictly: what is not plainly a file, folder or link is refused by name.

Not `tarfile`: its `extractall` filters were by-passed more than once (CVE-2025-4517 and kin), it takes a PAX header of
any size into memory, and it costs 10 times as much a member. Formats: POSIX.1-2001 pax, ustar, and the GNU long names
that layers of other builders carry (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from backports import zstd
from isal import igzip

from corten.core.digest import Digest
from corten.core.image import Compression, Layer
from corten.errors import PolicyError
from corten.store.inflate import InflateError

_BLOCK = 512
_PIECE_BYTES = 1 << 20
_STORED_BYTES = 256 << 10
_NO_WHITEOUTS = frozenset((".wh.", ".wh..", ".wh..."))
# PATH_MAX is 4096; a header that says more about one name is an attack on memory.
_EXTENSION_LIMIT_BYTES = 64 << 10
_NAME_LIMIT_BYTES = 4095
_COMPONENT_LIMIT_BYTES = 255
# Each level costs an open descriptor while unpacking; real trees have about twenty.
_DEPTH_LIMIT = 100


class MemberKind(Enum):
    """The kinds of members a layer may have."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"


_KINDS = {
    b"0": MemberKind.FILE,
    b"\0": MemberKind.FILE,
    b"7": MemberKind.FILE,
    b"5": MemberKind.FOLDER,
    b"2": MemberKind.SYMLINK,
    b"1": MemberKind.HARDLINK,
}
_REFUSED = {b"3": "a character device", b"4": "a block device", b"6": "a named pipe", b"S": "a sparse file"}


@dataclass(frozen=True, slots=True)
class Member:
    """One member. `parts` are the components of its name: never empty, `.`, `..` or with a NUL.

    `target` is a symlink's text as it stands (it may point anywhere: nothing here follows it), or the name of the
    member a hard link is another name of. `size_bytes` is 0 for all but files.
    """

    parts: tuple[str, ...]
    kind: MemberKind
    executable: bool
    size_bytes: int
    target: str = ""

    @property
    def name(self) -> str:
        """The name with slashes."""
        return "/".join(self.parts)


class Source(Protocol):
    """Where plain tar bytes come from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""
        ...


@contextmanager
def plain(path: Path, layer: Layer) -> Iterator[Source]:
    """The bytes of a stored layer's tar, whatever it is compressed with. Raises OSError when the blob is not there."""
    with path.open("rb") as stored:
        match layer.compression:
            case Compression.NONE:
                yield stored
            case Compression.GZIP:
                with igzip.IGzipFile(fileobj=stored) as unpacked:  # type: ignore[no-untyped-call] # it has no stubs
                    yield unpacked
            case Compression.ZSTD:
                yield _Zstd(stored)


@contextmanager
def opened(path: Path, layer: Layer) -> Iterator[LayerTar]:
    """The plain tar of a stored layer, to be read member by member. Raises OSError when the blob is not there."""
    with plain(path, layer) as source:
        yield LayerTar(source, layer.title)


class _Zstd:
    """Plain bytes of zstd frames. Not `ZstdFile`: it hands out 32 kB at a time, which costs a third of unpacking."""

    def __init__(self, stored: Source) -> None:
        self._stored = stored
        self._frame = zstd.ZstdDecompressor()

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes. Raises ZstdError, and EOFError for a frame that is cut off."""
        while True:
            data = b""
            if self._frame.eof:
                data = self._frame.unused_data or self._stored.read(_STORED_BYTES)
                if not data:
                    return b""
                self._frame = zstd.ZstdDecompressor()
            elif self._frame.needs_input:
                data = self._stored.read(_STORED_BYTES)
                if not data:
                    raise EOFError("the compressed data ends in the middle")
            if plain := self._frame.decompress(data, size):
                return plain


class LayerTar:
    """The members of one layer in order, hashed on the way. Each file's content must be taken by `copy` or skipped.

    ::

        for member in tar.members():
            tar.copy(member.size_bytes, descriptor)
        if tar.finish() != layer.diff_id: ...

    Raises PolicyError `layer.malformed` or `layer.unsafe_member`, naming the member.
    """

    def __init__(self, source: Source, title: str) -> None:
        self._source = source
        self._title = title
        self._hash = hashlib.sha256()
        self.read_bytes = 0  # of the plain tar, so far
        self._piece = memoryview(b"")
        self._unread = 0  # of the current member's content, with its padding
        self._padding = 0

    def members(self) -> Iterator[Member]:
        """The members up to the end-of-archive marker. What was not copied of a file is skipped."""
        extended: dict[str, str] = {}
        while (header := self._header()) is not None:
            kind, size = header[156:157], _number(header[124:136], self)
            if kind in (b"x", b"g", b"L", b"K"):
                extended |= self._extension(kind, size)
                continue
            size = _number_text(extended["size"], self) if "size" in extended else size
            member = self._member(header, kind, size, extended)
            self._unread = member.size_bytes
            self._padding = -member.size_bytes % _BLOCK
            extended = {}
            if member.parts:
                yield member
            elif member.kind is not MemberKind.FOLDER:
                raise self.refuse(".", "only a folder can be the root")
            self.copy(self._unread, None)
            self._take(self._padding)

    def copy(self, size_bytes: int, descriptor: int | None) -> None:
        """Move that much of the current file's content into an open file (None: nowhere)."""
        self._unread -= size_bytes
        while size_bytes:
            piece = self._some(size_bytes)
            size_bytes -= len(piece)
            while descriptor is not None and piece:
                piece = piece[os.write(descriptor, piece) :]

    def content(self) -> Iterator[memoryview]:
        """The current file's content (what is not taken yet), in pieces."""
        while self._unread:
            piece = self._some(self._unread)
            self._unread -= len(piece)
            yield piece

    def finish(self) -> Digest:
        """Read to the very end and return the digest of all plain bytes: the diff_id."""
        while self._piece or self._fill():
            self._piece = memoryview(b"")
        return Digest(self._hash.hexdigest())

    def refuse(self, name: str, why: str) -> PolicyError:
        """The error that names a member not to be unpacked."""
        return PolicyError(
            "layer.unsafe_member",
            f"layer `{self._title}` holds a member Corten does not unpack: `{_printable(name)}`",
            why=why,
            hint="build the image again, or take it from a source you trust",
        )

    def malformed(self, why: str) -> PolicyError:
        """The error for bytes that are no tar."""
        return PolicyError(
            "layer.malformed",
            f"layer `{self._title}` is no readable tar",
            why=why,
            hint="build or pull the image again",
        )

    # -- bytes

    def _fill(self) -> bool:
        try:
            data = self._source.read(_PIECE_BYTES)
        except (zstd.ZstdError, gzip.BadGzipFile, InflateError, EOFError) as error:
            raise self.malformed(f"it cannot be decompressed: {error}") from error
        self._hash.update(data)
        self.read_bytes += len(data)
        self._piece = memoryview(data)
        return bool(data)

    def _some(self, most: int) -> memoryview:
        if not self._piece and not self._fill():
            raise self.malformed("it ends in the middle of a member")
        piece = self._piece[:most]
        self._piece = self._piece[most:]
        return piece

    def _take(self, size: int) -> bytes:
        if len(self._piece) >= size:
            taken = bytes(self._piece[:size])
            self._piece = self._piece[size:]
            return taken
        parts = []
        while size:
            piece = self._some(size)
            size -= len(piece)
            parts.append(bytes(piece))
        return b"".join(parts)

    # -- headers

    def _header(self) -> bytes | None:
        if not self._piece and not self._fill():
            return None  # no end-of-archive marker: allowed, some builders leave it out
        header = self._take(_BLOCK)
        if not any(header):
            return None
        seen = _number(header[148:156], self)
        if seen != sum(header) - sum(header[148:156]) + 8 * 0x20:
            raise self.malformed("a header's checksum is wrong")
        return header

    def _extension(self, kind: bytes, size: int) -> dict[str, str]:
        if size > _EXTENSION_LIMIT_BYTES:
            raise self.malformed(f"an extended header of {size} bytes, at most {_EXTENSION_LIMIT_BYTES} are read")
        data = self._take(size)
        self._take(-size % _BLOCK)
        match kind:
            case b"L":
                return {"path": os.fsdecode(data.rstrip(b"\0"))}
            case b"K":
                return {"linkpath": os.fsdecode(data.rstrip(b"\0"))}
            case b"g":
                return {}  # defaults for all members: times and owners, which are not taken over
            case _:
                return self._pax(data)

    def _pax(self, data: bytes) -> dict[str, str]:
        r"""`LENGTH KEY=VALUE\n` records (POSIX.1-2001 pax, "Extended Header"); the length counts itself."""
        found = {}
        while data:
            digits, _, _ = data.partition(b" ")
            length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
            record = data[len(digits) + 1 : length]
            key, separator, value = record[:-1].partition(b"=")
            if length > len(data) or not separator or not record.endswith(b"\n"):
                raise self.malformed("a malformed extended header")
            if key.startswith(b"GNU.sparse."):
                raise self.malformed("a sparse file, which no layer needs")
            if key in (b"path", b"linkpath", b"size"):
                found[key.decode()] = os.fsdecode(value)
            data = data[length:]
        return found

    def _member(self, header: bytes, kind: bytes, size: int, extended: dict[str, str]) -> Member:
        name = extended.get("path") or _name(header)
        if kind in _REFUSED or kind not in _KINDS:
            raise self.refuse(name, f"it is {_REFUSED.get(kind, f'of the unknown type {kind!r}')}")
        found = _KINDS[kind]
        if found is MemberKind.FILE and name.endswith("/"):
            found = MemberKind.FOLDER  # as old tars wrote folders
        return Member(
            parts=self._parts(name, name),
            kind=found,
            executable=bool(_number(header[100:108], self) & 0o111),
            size_bytes=size if found is MemberKind.FILE else 0,
            target=self._target(header, found, name, extended),
        )

    def _target(self, header: bytes, kind: MemberKind, name: str, extended: dict[str, str]) -> str:
        if kind not in (MemberKind.SYMLINK, MemberKind.HARDLINK):
            return ""
        target = extended.get("linkpath") or os.fsdecode(header[157:257].partition(b"\0")[0])
        if not target or "\0" in target:
            raise self.refuse(name, "a link to nothing")
        if len(os.fsencode(target)) > _NAME_LIMIT_BYTES:
            raise self.refuse(name, f"a link to a name longer than {_NAME_LIMIT_BYTES} bytes")
        return "/".join(self._parts(target, name)) if kind is MemberKind.HARDLINK else target

    def _parts(self, text: str, name: str) -> tuple[str, ...]:
        parts = tuple(part for part in text.split("/") if part not in ("", "."))
        if text.startswith("/"):
            raise self.refuse(name, "an absolute name")
        if ".." in parts:
            raise self.refuse(name, "a name that leads upwards")
        if "\0" in text:
            raise self.refuse(name, "a name with a NUL")
        if _size(text) > _NAME_LIMIT_BYTES:
            raise self.refuse(name, f"a name longer than {_NAME_LIMIT_BYTES} bytes")
        if len(parts) > _DEPTH_LIMIT:
            raise self.refuse(name, f"a name of more than {_DEPTH_LIMIT} parts")
        if not _NO_WHITEOUTS.isdisjoint(parts):
            raise self.refuse(name, "a whiteout of nothing, of its folder or of the one above")
        if any(_size(part) > _COMPONENT_LIMIT_BYTES for part in parts):
            raise self.refuse(name, f"a name with a part longer than {_COMPONENT_LIMIT_BYTES} bytes")
        return parts


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(os.fsencode(text))


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    # Only POSIX ustar ("ustar\0") has a prefix field; GNU ("ustar  ") keeps times there.
    if header[257:263] == b"ustar\0" and header[345] != 0:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return os.fsdecode(name)


def _number(field: bytes, tar: LayerTar) -> int:
    if field[0] in (0x80, 0xFF):  # GNU base-256, for sizes of 8 GiB and more
        value = int.from_bytes(field[1:], "big")
        if field[0] == 0xFF:
            raise tar.malformed("a negative number in a header")
        return value
    text = field.strip(b" \0")
    if not text:
        return 0
    try:
        value = int(text, 8)
    except ValueError as error:
        raise tar.malformed(f"`{text!r}` where a header has an octal number") from error
    if value < 0:
        raise tar.malformed("a negative number in a header")
    return value


def _number_text(text: str, tar: LayerTar) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise tar.malformed(f"`{_printable(text)}` where a size should be")
    return int(text)


def _printable(text: str) -> str:
    shown = text.encode("unicode_escape", "backslashreplace").decode("ascii")
    return shown if len(shown) <= 120 else shown[:117] + "..."
