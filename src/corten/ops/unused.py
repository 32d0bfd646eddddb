"""Which installed packages a process loaded nothing of."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_SITE = re.compile(r".*/(?:dist|site)-packages/")


@dataclass(frozen=True, slots=True)
class Unused:
    """A package of an image nothing of which was loaded; `size_bytes` is what its files take unpacked."""

    name: str
    version: str
    size_bytes: int


def unused_packages(root: Path, loaded: Iterable[str]) -> tuple[Unused, ...]:
    """The packages installed below an image's unpacked root that no loaded file belongs to, the largest first.

    `loaded` are paths as the process saw them: in a sandbox from its own root, without one from the machine's. What
    belongs to a package is told by its RECORD (PyPA, "Recording installed projects"). Raises OSError.
    """
    seen = {path[match.end() :] for path in loaded if (match := _SITE.match(path))}
    found = []
    for installer in root.rglob("*.dist-info/INSTALLER"):
        record = installer.with_name("RECORD")
        if installer.read_bytes().strip() != b"corten":
            continue  # what a base brings along was not our choice
        files = _files(record)
        if not seen & files.keys():
            name, _, version = record.parent.name.removesuffix(".dist-info").rpartition("-")
            found.append(Unused(name, version, sum(files.values())))
    return tuple(sorted(found, key=lambda one: (-one.size_bytes, one.name)))


def _files(record: Path) -> dict[str, int]:
    """The files a RECORD lists, below its folder, with their sizes; one that is not told counts as 0."""
    with record.open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.reader(stream) if len(row) == 3]
    return {name: int(size) if size.isdecimal() else 0 for name, _, size in rows}
