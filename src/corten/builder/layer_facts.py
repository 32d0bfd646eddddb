"""What a layer says of itself: read out of its tar, or faster out of the wheels it was made of."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from corten.builder.contents import Contents, FileFact, PackageFact
from corten.builder.entry import Entry, EntryKind
from corten.builder.plan import distribution
from corten.core.digest import Digest
from corten.core.image import Layer, LayerKind
from corten.store.layout import Layout
from corten.store.untar import LayerTar, MemberKind, opened

_METADATA = re.compile(r"(?:.*/)?(?P<stem>[^/]+)\.dist-info/METADATA")
_STATUS = "var/lib/dpkg/status.d/"
_COPYRIGHT = re.compile(r"usr/share/doc/([^/]+)/copyright")
_DOC_FOLDER = re.compile(r"usr/share/doc/([^/]+)")
# A `License:` field may hold the whole text; beyond this it is no name.
_LONGEST_LICENCE = 80
_LICENCE_CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?(.+)")


def of_layer(layout: Layout, layer: Layer) -> Contents:
    """What a stored layer holds. Raises NotFoundError `store.blob_missing`, PolicyError `layer.malformed`."""
    try:
        with opened(layout.path(layer.digest), layer) as tar:
            match layer.kind:
                case LayerKind.BASE:
                    return Contents(packages=_debs(_files_and_links(tar)))
                case LayerKind.WHEELS:
                    return Contents(packages=_in_order(_installed(tar)))
                case LayerKind.RUNTIME:
                    return Contents()
                case LayerKind.WEIGHTS | LayerKind.CODE:
                    return Contents(files=tuple(_files(tar)))
    except FileNotFoundError as error:
        raise layout.missing(layer.digest) from error


class FileHashes:
    """Hashes files while a layer is written of them: weights are large, and need not be read again."""

    def __init__(self) -> None:
        self._states: list[tuple[str, hashlib._Hash]] = []
        self._sizes: dict[str, int] = {}

    def watched(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The same entries; what is in them is looked at as it goes by."""
        for entry in entries:
            yield replace(entry, seen=self._seer(entry.name)) if entry.kind is EntryKind.FILE else entry

    def contents(self) -> Contents:
        """What the layer holds, once it is written."""
        found = ((name, self._sizes[name], state.hexdigest()) for name, state in self._states)
        return Contents(files=tuple(FileFact(name, size, Digest(digest)) for name, size, digest in found))

    def _seer(self, name: str) -> Callable[[bytes], None]:
        state = hashlib.sha256()
        self._states.append((name, state))
        self._sizes[name] = 0

        def see(piece: bytes) -> None:
            state.update(piece)
            self._sizes[name] += len(piece)

        return see


def _files(tar: LayerTar) -> Iterator[FileFact]:
    for member in tar.members():
        if member.kind is MemberKind.FILE:
            state = hashlib.sha256()
            for piece in tar.content():
                state.update(piece)
            yield FileFact(member.name, member.size_bytes, Digest(state.hexdigest()))


# Wheels


def of_wheels(wheels: Sequence[Path]) -> Contents | None:
    """The packages of a layer, out of the files it was made of; None when one of them is not there or damaged."""
    found = []
    for path in wheels:
        try:
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if _is_own_metadata(name))
                found.append(wheel_fact(_METADATA.sub(r"\g<stem>", name), archive.read(name).decode(errors="replace")))
        except (OSError, zipfile.BadZipFile, StopIteration):
            return None  # the cache may be deleted or damaged at any time; the layer itself tells the same
    return Contents(packages=_in_order(found))


def _is_own_metadata(name: str) -> bool:
    return name.count("/") == 1 and _METADATA.fullmatch(name) is not None


def _installed(tar: LayerTar) -> Iterator[PackageFact]:
    for member in tar.members():
        # Not those of packages another one carries within (`_vendor`).
        if (match := _METADATA.fullmatch(member.name)) and member.parts[-3] in ("dist-packages", "site-packages"):
            yield wheel_fact(match["stem"], _text(tar))


def wheel_fact(stem: str, metadata: str) -> PackageFact:
    """A wheel by its METADATA (core metadata, PEP 566 and PEP 639). `stem` is its dist-info folder's `NAME-VERSION`."""
    fields = _fields(metadata)
    name, _, version = stem.partition("-")
    expression = next(iter(fields.get("license-expression", ())), "")
    licence = next(iter(fields.get("license", ())), "").strip()
    classified = [match[1] for text in fields.get("classifier", ()) if (match := _LICENCE_CLASSIFIER.fullmatch(text))]
    is_name = "\n" not in licence and len(licence) <= _LONGEST_LICENCE and licence not in ("", "UNKNOWN")
    named = [licence] if is_name else classified
    return PackageFact(
        distribution(next(iter(fields.get("name", ())), name)),
        next(iter(fields.get("version", ())), version),
        expression,
        () if expression else tuple(sorted(set(named))),
    )


def _fields(metadata: str) -> dict[str, list[str]]:
    """The header fields up to the empty line (a line of blanks belongs to the field before it), by lower-case name."""
    fields: dict[str, list[str]] = {}
    values: list[str] = []
    for line in metadata.splitlines():
        if not line:
            break
        if line[0] in " \t":
            if values:
                values[-1] += "\n" + line.strip()
            continue
        name, _, text = line.partition(":")
        values = fields.setdefault(name.lower(), [])
        values.append(text.strip())
    return fields


# Debian packages


def of_base(entries: Iterable[Entry]) -> Contents:
    """The packages of a base, out of the entries it was made of."""
    return Contents(packages=_debs((entry.name, _in_memory(entry), entry.target) for entry in entries))


def _in_memory(entry: Entry) -> Callable[[], str] | None:
    data = entry.data
    if entry.kind is not EntryKind.FILE or not isinstance(data, bytes):
        return None
    return partial(data.decode, errors="replace")


def _files_and_links(tar: LayerTar) -> Iterator[_FileOrLink]:
    for member in tar.members():
        yield member.name, partial(_text, tar) if member.kind is MemberKind.FILE else None, member.target


_FileOrLink = tuple[str, Callable[[], str] | None, str]
"""A name, how to read it where it is a file, and where it leads where it is a link."""


def _debs(found: Iterable[_FileOrLink]) -> tuple[PackageFact, ...]:
    versions: dict[str, str] = {}
    licences: dict[str, tuple[str, ...]] = {}
    links: dict[str, str] = {}
    for name, text, target in found:
        if text and name.startswith(_STATUS):
            fields = _fields(text())
            if {"package", "version"} <= fields.keys():  # images of others keep checksums there too
                versions[fields["package"][0]] = fields["version"][0]
        elif text and (match := _COPYRIGHT.fullmatch(name)):
            licences[match[1]] = _dep5(text())
        elif target and (match := _DOC_FOLDER.fullmatch(name)):
            # libgcc-s1 and its like keep their documentation in another package's folder.
            links[match[1]] = target.rsplit("/", 1)[-1]
    return _in_order(
        PackageFact(name, version, licences=licences.get(links.get(name, name), ()))
        for name, version in versions.items()
    )


def _dep5(text: str) -> tuple[str, ...]:
    """Names of licences in a machine-readable copyright file (DEP-5), none for a free-form one."""
    if not text.startswith("Format:"):
        return ()
    names = re.findall(r"^License:[ \t]*(\S[^\n]*)$", text, re.MULTILINE)
    return tuple(sorted({name.strip() for name in names if len(name) <= _LONGEST_LICENCE}))


def _text(tar: LayerTar) -> str:
    return b"".join(tar.content()).decode(errors="replace")


def _in_order(packages: Iterator[PackageFact] | Sequence[PackageFact]) -> tuple[PackageFact, ...]:
    return tuple(sorted(packages, key=lambda package: package.name))
