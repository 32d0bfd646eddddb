"""A wheel's zip to the entries of a layer, with no install step (Binary Distribution Format, packaging.python.org).

Where files go is what `installer` does for the image's interpreter: both libs to its site folder, scripts to `bin` of
its prefix (Debian's: /usr/local), `data` to the prefix. Nothing is left out but what is stale by definition (bytecode,
signatures of the RECORD that is rewritten). Dropping `.pyi`, `.pxd`, `.h` and sources would save 1 % of a
scikit-learn image and break those who look for them (numba, Cython at run time); dropping `tests` would save 9 % and
break packages that import from theirs.
"""

from __future__ import annotations

import base64
import configparser
import csv
import hashlib
import io
import posixpath
import re
import stat
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from corten.builder.entry import Entry, Slice
from corten.builder.interpreter import Interpreter
from corten.builder.tar import check_name
from corten.errors import CortenError, PolicyError, UsageError
from corten.store import inflate
from corten.store.inflate import InflateError, Inflater
from corten.store.writing import translated

_ENTRY_POINT = re.compile(r"(?P<module>[\w.]+)\s*:\s*(?P<function>[\w.]+)\s*(\[.*\])?")
# A script's name becomes a file's name below bin.
_SCRIPT_NAME = re.compile(r"[\w.][\w .-]*")
_LOCAL_HEADER_BYTES = 30
_CHUNK_BYTES = 1 << 20
# Larger members (a framework's main library may pass a gigabyte) go through a file instead of through memory.
_IN_MEMORY_BYTES = 64 << 20
_ENCRYPTED = 0x1


def entries(path: Path, python: Interpreter) -> Iterator[Entry]:
    """The files a wheel installs, sorted by name; one member is held in memory at a time, large ones in a file beside
    the wheel that is gone when the next entry is asked for.

    Every member is checked against RECORD (sha256 and stronger). Raises UsageError `wheel.broken`, PolicyError
    `wheel.unsafe_member` (traversal, symlink, duplicate ...) and `wheel.record_mismatch`, each naming the member.
    """
    with path.open("rb") as stream:
        wheel = _Wheel.read(path.name, stream, python)
        yield from wheel.entries(stream, path.parent)


@dataclass(frozen=True, slots=True)
class _Wheel:
    """An open wheel, looked through once: which member goes where, and what is written anew."""

    filename: str
    python: Interpreter
    members: Mapping[str, zipfile.ZipInfo]  # by target
    record: Mapping[str, tuple[str, str]]  # hash name and value, by member
    written: Mapping[str, Entry]  # by target

    @classmethod
    def read(cls, filename: str, stream: BinaryIO, python: Interpreter) -> _Wheel:
        infos = _safe_members(filename, _directory(filename, stream))
        dist_info = _dist_info(filename, infos)
        rows = _record_rows(filename, stream, infos, dist_info)
        members = _targets(filename, infos, dist_info, python)
        written = _scripts(filename, stream, infos, dist_info, python) | {
            name: Entry(name, data=b"corten\n") for name in (f"{python.site}/{dist_info}/INSTALLER",)
        }
        members = {target: info for target, info in members.items() if target not in written}
        record = {name: digest for name, digest, _ in rows}
        wheel = cls(filename, python, members, record, written)
        return wheel._with_record(f"{python.site}/{dist_info}/RECORD", rows)

    def entries(self, stream: BinaryIO, spool: Path) -> Iterator[Entry]:
        for target in sorted({*self.members, *self.written}):
            if entry := self.written.get(target):
                yield entry
            elif self.members[target].file_size > _IN_MEMORY_BYTES:
                yield from self._large(target, self.members[target], stream, spool)
            else:
                yield self._entry(target, self.members[target], stream)

    def _entry(self, target: str, info: zipfile.ZipInfo, stream: BinaryIO) -> Entry:
        data, deflated = _content(self.filename, info, stream)
        self._check(info, data)
        if _is_script(info.filename):
            return Entry(target, mode=_mode(info), data=_with_interpreter(data, self.python))
        return Entry(target, mode=_mode(info), data=data, deflated=deflated)

    def _large(self, target: str, info: zipfile.ZipInfo, stream: BinaryIO, spool: Path) -> Iterator[Entry]:
        import tempfile

        name, expected = self.record.get(info.filename, ("", ""))
        state = hashlib.new(name or "sha256")
        with translated(spool, "unpack a large member of a wheel"):
            file = tempfile.NamedTemporaryFile(dir=spool, prefix=".member-")  # noqa: SIM115
        with file:
            size = 0
            for piece in _inflated(self.filename, info, stream):
                state.update(piece)
                size += len(piece)
                with translated(spool, "unpack a large member of a wheel"):
                    file.write(piece)
            if size != info.file_size:
                raise broken(self.filename, f"`{info.filename}` has another size than the zip gives for it")
            if name and (seen := _encoded(state.digest())) != expected:
                raise self._mismatch(info, f"expected {name}={expected}, found {seen}")
            with translated(spool, "unpack a large member of a wheel"):
                file.flush()
            deflated: bytes | Slice = b""
            if info.compress_type == zipfile.ZIP_DEFLATED:
                deflated = Slice(Path(stream.name), _seek(self.filename, info, stream), info.compress_size)
            yield Entry(target, mode=_mode(info), data=Path(file.name), deflated=deflated)

    def _check(self, info: zipfile.ZipInfo, data: bytes) -> None:
        name, expected = self.record.get(info.filename, ("", ""))
        if not name:
            # Not every tool lists every file; the lock's digest of the whole wheel covers it.
            if inflate.checksum(data) != info.CRC:
                raise broken(self.filename, f"`{info.filename}` does not have the checksum the zip gives for it")
            return
        if (seen := _record_digest(name, data)) != expected:
            raise self._mismatch(info, f"expected {name}={expected}, found {seen}")

    def _mismatch(self, info: zipfile.ZipInfo, why: str) -> PolicyError:
        return PolicyError(
            "wheel.record_mismatch",
            f"`{info.filename}` in `{self.filename}` is not what its RECORD says",
            why=why,
            hint="the wheel was changed after it was built; get it from another index",
        )

    def _with_record(self, target: str, rows: list[tuple[str, tuple[str, str], str]]) -> _Wheel:
        # Tools find a distribution's files by it. Scripts get other bytes here, so their hash is left open.
        sources = {info.filename: place for place, info in self.members.items()}
        site = self.python.site
        lines = [
            (posixpath.relpath(sources[name], site), "" if _is_script(name) else f"{digest[0]}={digest[1]}", size)
            for name, digest, size in rows
            if name in sources and digest[0]
        ]
        lines += [
            (
                posixpath.relpath(entry.name, site),
                f"sha256={_record_digest('sha256', _bytes(entry))}",
                str(len(_bytes(entry))),
            )
            for entry in self.written.values()
        ]
        lines.append((posixpath.relpath(target, site), "", ""))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            (name, digest, "" if not digest else size) for name, digest, size in sorted(lines)
        )
        written = {**self.written, target: Entry(target, data=text.getvalue().encode())}
        members = {place: info for place, info in self.members.items() if place != target}
        return _Wheel(self.filename, self.python, members, self.record, written)


def _directory(filename: str, stream: BinaryIO) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(stream) as archive:
            return archive.infolist()
    # What zipfile raises for bytes that are no zip depends on where they go wrong.
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, OverflowError, struct.error) as error:
        raise broken(filename, f"{type(error).__name__}: {error}") from error


def _safe_members(filename: str, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.rstrip("/") if info.is_dir() else info.filename
        try:
            check_name(name)
        except UsageError as error:
            raise _unsafe(filename, info.orig_filename, error.why) from error
        # zipfile cuts a name at a NUL and turns backslashes around on Windows only: both mean mischief.
        if "\\" in info.orig_filename or "\0" in info.orig_filename:
            raise _unsafe(filename, info.orig_filename, "a backslash or NUL in the name")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise _unsafe(filename, name, "a symbolic link or device")
        if info.is_dir():
            continue
        if name in members:
            raise _unsafe(filename, name, "it is there twice")
        if info.flag_bits & _ENCRYPTED or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise _unsafe(filename, name, "encrypted, or compressed by a method wheels do not use")
        members[name] = info
    return members


def _dist_info(filename: str, members: Mapping[str, zipfile.ZipInfo]) -> str:
    found = sorted({top for name in members if (top := name.partition("/")[0]).endswith(".dist-info")})
    wanted = _normal(filename.split("-", maxsplit=1)[0])
    if len(found) != 1 or f"{found[0]}/WHEEL" not in members or _normal(found[0].split("-")[0]) != wanted:
        seen = ", ".join(found) or "none"
        raise broken(filename, f"expected one `{wanted}-….dist-info` with a WHEEL file, found {seen}")
    return found[0]


def _record_rows(
    filename: str, stream: BinaryIO, members: Mapping[str, zipfile.ZipInfo], dist_info: str
) -> list[tuple[str, tuple[str, str], str]]:
    if f"{dist_info}/RECORD" not in members:
        raise broken(filename, "it has no RECORD")
    try:
        text = _content(filename, members[f"{dist_info}/RECORD"], stream)[0].decode()
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
        return [(row[0], _hash(row[1]), row[2]) for row in rows]
    except (UnicodeDecodeError, csv.Error, IndexError, ValueError) as error:
        raise broken(filename, f"its RECORD cannot be read: {error}") from error


def _hash(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if name and name not in {"sha256", "sha384", "sha512"}:
        # The specification forbids md5 and sha1 here.
        raise ValueError(f"hashes by {name} are not allowed")
    return name, value


def _targets(
    filename: str, members: Mapping[str, zipfile.ZipInfo], dist_info: str, python: Interpreter
) -> dict[str, zipfile.ZipInfo]:
    targets: dict[str, zipfile.ZipInfo] = {}
    for name, info in members.items():
        if _is_stale(name, dist_info):
            continue
        target = _target(filename, name, python)
        if target in targets:
            raise _unsafe(filename, name, f"`{targets[target].filename}` goes to the same place")
        targets[target] = info
    return targets


def _is_stale(name: str, dist_info: str) -> bool:
    # Bytecode is checked against times, and all times in an image are 0. Signatures are of the RECORD as it was.
    return "/__pycache__/" in f"/{name}" or name in {f"{dist_info}/RECORD.jws", f"{dist_info}/RECORD.p7s"}


def _target(filename: str, name: str, python: Interpreter) -> str:
    top, _, rest = name.partition("/")
    if not top.endswith(".data") or not rest:
        return f"{python.site}/{name}"
    scheme, _, inner = rest.partition("/")
    folders = {
        "purelib": python.site,
        "platlib": python.site,
        "scripts": f"{python.prefix}/bin",
        "headers": f"{python.prefix}/include/python{python.version}/{top.split('-')[0]}",
        "data": python.prefix,
    }
    if scheme not in folders or not inner:
        raise _unsafe(filename, name, f"expected one of {', '.join(folders)} below .data")
    return f"{folders[scheme]}/{inner}"


def _scripts(
    filename: str, stream: BinaryIO, members: Mapping[str, zipfile.ZipInfo], dist_info: str, python: Interpreter
) -> dict[str, Entry]:
    name = f"{dist_info}/entry_points.txt"
    if name not in members:
        return {}
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(_content(filename, members[name], stream)[0].decode())
    except (configparser.Error, UnicodeDecodeError) as error:
        raise broken(filename, f"its entry_points.txt cannot be read: {error}") from error
    scripts = {}
    for section in ("console_scripts", "gui_scripts"):
        for script, text in parser.items(section) if parser.has_section(section) else ():
            entry = _script(filename, script.strip(), text.strip(), python)
            scripts[entry.name] = entry
    return scripts


def _script(filename: str, name: str, text: str, python: Interpreter) -> Entry:
    match = _ENTRY_POINT.fullmatch(text)
    if not match or not _SCRIPT_NAME.fullmatch(name) or name in {".", ".."}:
        raise broken(filename, f"its entry point `{name} = {text}` is malformed")
    module, function = match["module"], match["function"]
    body = (
        f"import sys\nfrom {module} import {function.split('.')[0]}\n"
        f'if __name__ == "__main__":\n    sys.exit({function}())\n'
    )
    return Entry(f"{python.prefix}/bin/{name}", mode=0o755, data=_first_line(python) + b"\n" + body.encode())


def _is_script(member: str) -> bool:
    return member.partition("/")[0].endswith(".data") and member.split("/")[1:2] == ["scripts"]


def _first_line(python: Interpreter) -> bytes:
    return f"#!{python.program}".encode()


def _with_interpreter(data: bytes, python: Interpreter) -> bytes:
    # `#!python` and `#!pythonw` stand for the interpreter the wheel is installed for.
    if not data.startswith(b"#!python"):
        return data
    _, newline, rest = data.partition(b"\n")
    return _first_line(python) + newline + rest


def _mode(info: zipfile.ZipInfo) -> int:
    return 0o755 if (info.external_attr >> 16) & 0o111 or _is_script(info.filename) else 0o644


def _seek(filename: str, info: zipfile.ZipInfo, stream: BinaryIO) -> int:
    """Go to where a member's data begins, and tell where that is."""
    # zipfile opens a member in 50 us, this takes 5; what it checks beyond is checked by RECORD and CRC.
    stream.seek(max(info.header_offset, 0))
    header = stream.read(_LOCAL_HEADER_BYTES)
    if len(header) < _LOCAL_HEADER_BYTES or header[:4] != b"PK\x03\x04":
        raise broken(filename, f"`{info.filename}` has no local header")
    skipped = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return stream.seek(skipped, io.SEEK_CUR)


def _content(filename: str, info: zipfile.ZipInfo, stream: BinaryIO) -> tuple[bytes, bytes]:
    """A member, and the deflate stream it was (empty where it is stored plain)."""
    _seek(filename, info, stream)
    raw = stream.read(info.compress_size)
    if info.compress_type == zipfile.ZIP_STORED:
        data, deflated = raw, b""
    else:
        inflater = inflate.raw()
        # One byte more than promised, so that a bomb is noticed and never inflated.
        try:
            data, deflated = inflater.decompress(raw, info.file_size + 1), raw
        except InflateError as error:
            raise broken(filename, f"`{info.filename}` cannot be inflated: {error}") from error
        _check_end(filename, info, inflater)
    if len(data) != info.file_size:
        raise broken(filename, f"`{info.filename}` has another size than the zip gives for it")
    return data, deflated


def _check_end(filename: str, info: zipfile.ZipInfo, inflater: Inflater) -> None:
    # What an image takes over as it is has to end where the zip says it does: readers go on right behind it.
    if not inflater.eof or inflater.unused_data:
        raise broken(filename, f"`{info.filename}` has another size than the zip gives for it")


def _inflated(filename: str, info: zipfile.ZipInfo, stream: BinaryIO) -> Iterator[bytes]:
    """A member in pieces, never more of it than the zip promises and one piece."""
    _seek(filename, info, stream)
    left = info.compress_size
    inflater = inflate.raw() if info.compress_type == zipfile.ZIP_DEFLATED else None
    promised = info.file_size
    while left > 0 and (raw := stream.read(min(_CHUNK_BYTES, left))):
        left -= len(raw)
        for piece in _pieces_of(filename, info, inflater, raw) if inflater else (raw,):
            promised -= len(piece)
            yield piece
            if promised < 0:
                return
    if inflater:
        _check_end(filename, info, inflater)


def _pieces_of(filename: str, info: zipfile.ZipInfo, inflater: Inflater, raw: bytes) -> Iterator[bytes]:
    # All input may be taken while output still waits for room: that is over when less comes than there is room for.
    more = True
    while more:
        try:
            piece = inflater.decompress(raw, _CHUNK_BYTES)
        except InflateError as error:
            raise broken(filename, f"`{info.filename}` cannot be inflated: {error}") from error
        raw = inflater.unconsumed_tail
        more = bool(raw) or len(piece) == _CHUNK_BYTES
        yield piece


def _record_digest(name: str, data: bytes) -> str:
    return _encoded(hashlib.new(name, data).digest())


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _bytes(entry: Entry) -> bytes:
    assert isinstance(entry.data, bytes)  # noqa: S101
    return entry.data


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def broken(filename: str, why: str) -> UsageError:
    """The error for a file that is no valid wheel. What came was what is offered: its hash was compared before."""
    name, _, rest = filename.partition("-")
    version = rest.partition("-")[0]
    other = f"`-r '{name}!={version}'`" if version else "`--requirement`"
    return UsageError(
        "wheel.broken",
        f"`{filename}` is no valid wheel",
        why=why,
        hint=f"it is damaged where it is offered: put a whole one there, or take another release, {other}",
    )


def _unsafe(filename: str, member: str, why: str) -> CortenError:
    return PolicyError(
        "wheel.unsafe_member", f"`{member[:200]!r}` in `{filename}` is refused", why=why, hint="do not use this wheel"
    )
