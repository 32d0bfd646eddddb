"""The .deb file format, read strictly and without dpkg: ar, control paragraphs, versions, members.

Sources: deb(5), deb-control(5), Debian policy 5.6.12 (versions), tar(5). What a package may not hold here (devices,
names that leave the root) is refused by name, because what is read goes into an image byte for byte.
"""

from __future__ import annotations

import lzma
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from corten.builder.entry import Entry, EntryKind
from corten.errors import CortenError, PolicyError
from corten.store import inflate
from corten.store.inflate import InflateError

# Far above any package of main; keeps a compression bomb from taking the memory.
MAX_UNPACKED_BYTES = 4 << 30

# `xz -9` asks for 65 MB to unpack; a header can ask for 4 GiB.
_MOST_XZ_MEMORY_BYTES = 256 << 20

_AR_MAGIC = b"!<arch>\n"
_AR_HEADER_BYTES = 60
_TAR_BLOCK = 512
# Top-level folders that are links into /usr since bookworm (usr-merge); packages built before still ship into them.
_MERGED = {"bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32"}


# Versions


_EPOCH = re.compile(r"[0-9]+")
_UPSTREAM = re.compile(r"[A-Za-z0-9.+~:-]+")
_REVISION = re.compile(r"[A-Za-z0-9.+~]+")
_PIECE = re.compile(r"([^0-9]*)([0-9]*)")

VersionKey = tuple[int, tuple[object, ...], tuple[object, ...]]


def version_key(text: str) -> VersionKey:
    """A value that sorts as policy 5.6.12 orders versions. Raises PolicyError for what is not a version."""
    epoch, colon, rest = text.partition(":")
    if not colon:
        epoch, rest = "0", text
    upstream, hyphen, revision = rest.rpartition("-")
    if not hyphen:
        upstream, revision = rest, "0"
    if not (_EPOCH.fullmatch(epoch) and _UPSTREAM.fullmatch(upstream) and _REVISION.fullmatch(revision)):
        raise PolicyError(
            "deb.version", f"not a Debian version: `{text[:80]}`", why="expected [epoch:]upstream[-revision]"
        )
    return int(epoch), _part_key(upstream), _part_key(revision)


def _part_key(text: str) -> tuple[object, ...]:
    key: list[object] = []
    for letters, digits in _PIECE.findall(text) if text else [("", "")]:
        if text and not letters and not digits:
            continue  # the empty match at the end
        key += [_letters_key(letters), int(digits or 0)]
    # The end sorts before any letter but after `~`, so it has to be there to be compared with one.
    return (*key, _letters_key(""))


def _letters_key(text: str) -> tuple[int, ...]:
    return (*(_weight(letter) for letter in text), 0)


def _weight(letter: str) -> int:
    if letter == "~":
        return -1
    return ord(letter) if letter.isalpha() else ord(letter) + 256


# Control paragraphs


def parse_paragraph(text: str, *, where: str) -> Mapping[str, str]:
    """One deb822 paragraph as a mapping with lower-case field names; continuation lines keep their line breaks.

    Raises PolicyError (`deb.control`) for lines that are neither and for a field given twice.
    """
    fields: dict[str, str] = {}
    name = ""
    for line in text.rstrip("\n").split("\n"):
        if line[:1] in {" ", "\t"} and name:
            fields[name] += "\n" + line.strip()
            continue
        name, colon, value = line.partition(":")
        name = name.lower()
        if not colon or not re.fullmatch(r"[!-9;-~]+", name) or name in fields:
            raise PolicyError(
                "deb.control",
                f"malformed control data: `{line[:80]}`",
                where=where,
                why="expected `Field: value`, once",
            )
        fields[name] = value.strip()
    return fields


# The ar archive


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the outer archive."""

    name: str
    data: bytes


def read_ar(stream: BinaryIO, *, where: str, max_bytes: int = MAX_UNPACKED_BYTES) -> Iterator[Member]:
    """The members of a common ar archive, in order. Raises PolicyError (`deb.malformed`) for anything odd."""
    if stream.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise _malformed(where, "it does not begin with `!<arch>`")
    while header := stream.read(_AR_HEADER_BYTES):
        name, size_bytes = _ar_header(header, where)
        if size_bytes > max_bytes:
            raise _malformed(where, f"member `{name}` claims {size_bytes} bytes, the limit is {max_bytes}")
        data = stream.read(size_bytes)
        if len(data) != size_bytes:
            raise _malformed(where, f"member `{name}` ends after {len(data)} of {size_bytes} bytes")
        yield Member(name, data)
        if size_bytes % 2:
            stream.read(1)  # members begin at even offsets


def _ar_header(header: bytes, where: str) -> tuple[str, int]:
    size = header[48:58].rstrip(b" ")
    name = header[:16].rstrip(b" ").removesuffix(b"/")
    if len(header) != _AR_HEADER_BYTES or header[58:] != b"`\n" or not size.isdigit() or not name.isascii():
        raise _malformed(where, "an archive header is damaged")
    return name.decode("ascii"), int(size)


# The package


@dataclass(frozen=True, slots=True)
class Package:
    """A read .deb: the text of its control file, and what it installs, in its own order, usr-merge applied."""

    control: bytes
    entries: tuple[Entry, ...]


def read(path: Path, *, max_bytes: int = MAX_UNPACKED_BYTES) -> Package:
    """Read a .deb file.

    Raises PolicyError (`deb.malformed`, `deb.member_refused`, `deb.compression`), CortenError (`deb.unreadable`).
    """
    try:
        with path.open("rb") as stream:
            return read_stream(stream, where=str(path), max_bytes=max_bytes)
    except OSError as error:
        raise CortenError(
            "deb.unreadable",
            "cannot read a cached package",
            where=str(path),
            why=str(error),
            hint="run the build again; it fetches what is missing",
        ) from error


def read_stream(stream: BinaryIO, *, where: str, max_bytes: int = MAX_UNPACKED_BYTES) -> Package:
    """`read` for a stream; `where` is what errors call it."""
    control, data = _control_and_data(stream, where, max_bytes)
    with_control = {
        member.name.removeprefix("./"): member.data
        for member in _tar_members(_decompress(control, where, max_bytes), where)
    }
    if "control" not in with_control:
        raise _malformed(where, "it has no control file")
    entries = tuple(_entries(_decompress(data, where, max_bytes), where))
    return Package(bytes(with_control["control"]), entries)


def _control_and_data(stream: BinaryIO, where: str, max_bytes: int) -> tuple[Member, Member]:
    members = read_ar(stream, where=where, max_bytes=max_bytes)
    first = next(members, None)
    if first is None or first.name != "debian-binary" or not first.data.startswith(b"2."):
        raise _malformed(where, "it does not begin with a `debian-binary` of version 2")
    # deb(5): members with a leading underscore may stand anywhere after debian-binary and are to be ignored.
    rest = [member for member in members if not member.name.startswith("_")]
    match [member.name.split(".tar")[0] for member in rest]:
        case ["control", "data"]:
            return rest[0], rest[1]
        case found:
            raise _malformed(where, f"expected control.tar and data.tar, found {found}")


class Decompressor(Protocol):
    """What lzma, isal and zstd have in common."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came after its end."""
        ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """More of the content, at most so many bytes."""
        ...


def decompressor(suffix: str, where: str) -> Decompressor:
    """The decompressor of files that end so. Raises PolicyError (`deb.compression`)."""
    match suffix:
        case ".xz":
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ_MEMORY_BYTES)
        case ".gz":
            return inflate.gzip()
        case ".zst":
            from backports import zstd

            of_zstd: Decompressor = zstd.ZstdDecompressor()
            return of_zstd
        case _:
            raise PolicyError(
                "deb.compression", f"unknown compression `{suffix}`", where=where, why="known: .xz, .zst, .gz, none"
            )


def _decompress(member: Member, where: str, max_bytes: int) -> memoryview:
    suffix = member.name.partition(".tar")[2]
    if not suffix:
        return memoryview(member.data)
    pieces: list[bytes] = []
    rest, left = member.data, max_bytes + 1
    while rest and left > 0:  # a stream may follow a stream (xz and gzip files concatenate)
        stream = decompressor(suffix, where)
        try:
            piece = stream.decompress(rest, left)
        except (lzma.LZMAError, InflateError, _zstd_error()) as error:
            raise _malformed(where, f"`{member.name}` does not decompress: {error}") from error
        pieces.append(piece)
        left -= len(piece)
        if left > 0 and not stream.eof:
            raise _malformed(where, f"`{member.name}` is cut short")
        rest = stream.unused_data
    if left <= 0:
        raise _malformed(where, f"`{member.name}` unpacks to more than {max_bytes} bytes")
    return memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))


def _zstd_error() -> type[Exception]:
    from backports import zstd

    error: type[Exception] = zstd.ZstdError
    return error


# tar. Our own reader, because tarfile takes a damaged header in the middle for the end of the archive.


@dataclass(frozen=True, slots=True)
class _TarMember:
    name: str
    kind: bytes
    mode: int
    data: memoryview
    link: str


def _tar_members(tar: memoryview, where: str) -> Iterator[_TarMember]:
    offset, long_name, long_link = 0, b"", b""
    while offset + _TAR_BLOCK <= len(tar):
        header = bytes(tar[offset : offset + _TAR_BLOCK])
        if not header.strip(b"\0"):
            return
        _check_sum(header, where, offset)
        size_bytes, kind = _number(header[124:136], where), header[156:157]
        start = offset + _TAR_BLOCK
        data = tar[start : start + size_bytes]
        if len(data) != size_bytes:
            raise _malformed(where, f"the tar ends inside a member at {offset}")
        offset = start + -(-size_bytes // _TAR_BLOCK) * _TAR_BLOCK
        if kind == b"L":  # GNU: the next member's name; `K`: its link's target
            long_name = bytes(data).rstrip(b"\0")
        elif kind == b"K":
            long_link = bytes(data).rstrip(b"\0")
        else:
            name = _text(long_name or _ustar_name(header), where)
            link = _text(long_link or header[157:257].partition(b"\0")[0], where)
            yield _TarMember(name, kind, _number(header[100:108], where), data, link)
            long_name = long_link = b""
    raise _malformed(where, "the tar has no end")


def _check_sum(header: bytes, where: str, offset: int) -> None:
    if _number(header[148:156], where) != sum(header[:148]) + 8 * 0x20 + sum(header[156:]):
        raise _malformed(where, f"the tar header at {offset} is damaged")


def _number(field: bytes, where: str) -> int:
    if field[:1] == b"\x80":  # GNU's base 256, for sizes of 8 GiB and more
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError as error:
        raise _malformed(where, f"not a number in a tar header: {digits!r}") from error


def _ustar_name(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    # GNU's older magic (`ustar  `) has other fields where POSIX has the prefix.
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _text(name: bytes, where: str) -> str:
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(where, repr(name), "its name is not UTF-8") from error


# Members become entries


def _entries(tar: memoryview, where: str) -> Iterator[Entry]:
    seen: dict[str, Entry] = {}
    for member in _tar_members(tar, where):
        own = _inside(member.name, member.name, where)
        if not own:
            continue
        entry = _entry(own, member, seen, where)
        if entry is None:
            continue
        earlier = seen.get(entry.name)
        if earlier is not None and EntryKind.DIRECTORY not in {earlier.kind, entry.kind}:
            raise _refused(where, member.name, "the package has it twice")
        seen[entry.name] = entry
        yield entry


def _entry(own: str, member: _TarMember, seen: Mapping[str, Entry], where: str) -> Entry | None:
    name = usr_merged(own)
    match member.kind:
        case b"0" | b"\0":
            return Entry(name, EntryKind.FILE, member.mode & 0o777, bytes(member.data))
        case b"5":
            return Entry(name, EntryKind.DIRECTORY, member.mode & 0o1777)
        case b"2" if own in _MERGED:
            return None  # base-files of trixie ships the usr-merge links themselves; followed, they would be loops
        case b"2":
            return Entry(name, EntryKind.SYMLINK, 0o777, target=_target(own, member, where))
        case b"1":
            first = seen.get(usr_merged(_inside(member.link, member.name, where)))
            if first is None or first.kind is not EntryKind.FILE:
                raise _refused(where, member.name, f"it is a hard link to `{member.link}`, which is no file before it")
            return replace(first, name=name)
        case kind:
            raise _refused(where, member.name, f"it is of type {kind!r}; files, folders and links are allowed")


def _inside(name: str, member: str, where: str) -> str:
    """The name without `./` and trailing `/`; refused unless it stays below the root."""
    if name.startswith("/"):
        raise _refused(where, member, "its name is absolute")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise _refused(where, member, "its name holds `..`")
    if any(character < " " or character == "\x7f" for character in name):
        raise _refused(where, member, "its name holds a control character")
    return "/".join(parts)


def usr_merged(name: str) -> str:
    """`lib/x` is `usr/lib/x`: where a name leads once the top-level folders are links into /usr."""
    return f"usr/{name}" if name.partition("/")[0] in _MERGED else name


def _target(own: str, member: _TarMember, where: str) -> str:
    """A symlink's target as it must be at its merged place; refused when it climbs out of the root."""
    if not member.link:
        raise _refused(where, member.name, "it is a link to nothing")
    if member.link.startswith("/"):
        return member.link
    here = posixpath.dirname(own)
    resolved = posixpath.normpath(posixpath.join(here, member.link))
    if resolved == ".." or resolved.startswith("../"):
        raise _refused(where, member.name, f"it is a link out of the root: `{member.link}`")
    # A relative link that leaves a merged folder would count its `..` from one level deeper.
    leaves = own.partition("/")[0] != resolved.partition("/")[0]
    return "/" + usr_merged(resolved) if usr_merged(own) != own and leaves else member.link


def _malformed(where: str, why: str) -> PolicyError:
    return PolicyError("deb.malformed", "not a valid Debian package", where=where, why=why)


def _refused(where: str, member: str, why: str) -> PolicyError:
    return PolicyError("deb.member_refused", f"refused member `{member}`", where=where, why=why)
