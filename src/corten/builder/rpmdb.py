"""The packages of an rpm database (rpmdb.sqlite: Fedora, RHEL 9 and later), read from its bytes.

A row of its table `Packages` is a header as rpm keeps it in memory (rpm.org, "RPM v4 header format", without magic):
two numbers, an index of tags and their data. Nothing of rpm is run or needed.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Final

_NAME, _VERSION, _RELEASE, _EPOCH, _ARCHITECTURE = 1000, 1001, 1002, 1003, 1022
_INT32, _STRING = 4, 6
_ENTRY: Final = struct.Struct(">iIII")  # tag, type, offset, count
_MAGIC: Final = b"SQLite format 3\0"
_MOST_ENTRIES: Final = 10_000


@dataclass(frozen=True, slots=True)
class Rpm:
    """An installed package; `version` is EPOCH:VERSION-RELEASE, the epoch only where there is one."""

    name: str
    version: str
    architecture: str


def read_rpmdb(data: bytes) -> tuple[Rpm, ...]:
    """The packages, in order; none where the database cannot be read: it says less then, and is no reason to fail.

    `gpg-pubkey` is no package but a key rpm trusts.
    """
    if not data.startswith(_MAGIC):
        return ()
    # Journal mode WAL (bytes 18 and 19, "Database File Format" 1.3.3) wants files beside it that are not there.
    plain = data[:18] + b"\1\1" + data[20:]
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(plain)
            rows = database.execute("SELECT blob FROM Packages").fetchall()
        found = [_package(row[0]) for row in rows]
    except (sqlite3.Error, ValueError, TypeError, struct.error):
        return ()
    packages = (one for one in found if one.name not in ("", "gpg-pubkey"))
    return tuple(sorted(packages, key=lambda one: (one.name, one.version)))


def _package(header: bytes) -> Rpm:
    tags = dict(_tags(header))
    epoch = f"{tags[_EPOCH]}:" if tags.get(_EPOCH) else ""
    version = f"{epoch}{tags.get(_VERSION, '')}-{tags.get(_RELEASE, '')}"
    return Rpm(str(tags.get(_NAME, "")), version, str(tags.get(_ARCHITECTURE, "")))


def _tags(header: bytes) -> Iterator[tuple[int, str | int]]:
    """The tags asked for: strings and the first of numbers."""
    count, size = struct.unpack_from(">II", header)
    begin = 8 + count * _ENTRY.size
    if count > _MOST_ENTRIES or begin + size > len(header):
        raise ValueError("a header that is cut short")
    store = header[begin : begin + size]
    for number in range(count):
        tag, kind, offset, _ = _ENTRY.unpack_from(header, 8 + number * _ENTRY.size)
        if tag not in (_NAME, _VERSION, _RELEASE, _EPOCH, _ARCHITECTURE):
            continue
        if kind == _INT32:
            yield tag, struct.unpack_from(">I", store, offset)[0]
        elif kind == _STRING:
            yield tag, store[offset : store.index(b"\0", offset)].decode("utf-8", "replace")
