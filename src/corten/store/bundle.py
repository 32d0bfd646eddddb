"""A bundle: one tar with an image, everything attached to it and all their blobs, as an OCI image layout.

::

    blobs/sha256/HEX      every blob; of a delta bundle those the other side lacks
    corten-bundle.json    what is attached, what was left out and what that is called; unknown to other tools
    index.json            the one image under its name, so that `podman load` and `skopeo copy oci-archive:` find it
    oci-layout

Files in that order, no times, no owners: the same content gives the same bytes. Reading trusts nothing: only plain
files are taken, each blob must be what its name says, and a name is given last.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from corten.core.digest import Digest
from corten.core.image import INDEX, NAME_ANNOTATION, Descriptor
from corten.errors import CortenError, NotFoundError, PolicyError, UsageError
from corten.store.documents import descriptor_from, descriptor_to
from corten.store.gc import Contents, reachable, read_documents
from corten.store.layout import LAYOUT_VERSION, Layout
from corten.store.signature_tag import subject_of
from corten.store.untar import LayerTar, Member, MemberKind

_FORMAT: Final = 1
_INFO: Final = "corten-bundle.json"
_INDEX: Final = "index.json"
_LAYOUT: Final = "oci-layout"
_BLOBS: Final = ("blobs", "sha256")
_DOCUMENT_LIMIT_BYTES: Final = 16 << 20
_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes into a bundle: small files by name, blobs, and the blobs the other side is said to have."""

    files: Mapping[str, bytes]
    blobs: tuple[Digest, ...]
    left_out: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a bundle said once all its blobs were in the store: images by name, what is attached, names of the rest."""

    images: tuple[tuple[str, Descriptor], ...]
    referrers: tuple[Descriptor, ...]
    titles: Mapping[Digest, str]
    blobs: frozenset[Digest]
    new_bytes: int


def plan(
    name: str, image: Descriptor, contents: Contents, titles: Mapping[Digest, str], *, without: Collection[Digest] = ()
) -> Bundle:
    """What a bundle of an image holds; blobs in `without` are left out, documents never. `titles` are for people."""
    reached = reachable(contents, {image.digest})
    left_out = sorted((reached - contents.documents.keys()) & set(without))
    referrers = [entry for entry in contents.listed if entry.artifact_type and entry.digest in reached]
    info = {
        "format": _FORMAT,
        "image": str(image.digest),
        "referrers": [descriptor_to(entry) for entry in sorted(referrers, key=lambda entry: entry.digest)],
        "left_out": {str(digest): titles.get(digest, "") for digest in left_out},
    }
    named = replace(image, annotations={**image.annotations, NAME_ANNOTATION: name})
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor_to(named)]}
    return Bundle(
        files={_INFO: _json(info), _INDEX: _json(index), _LAYOUT: LAYOUT_VERSION},
        blobs=tuple(sorted(reached - set(left_out))),
        left_out=tuple(left_out),
    )


def blob_name(digest: Digest) -> str:
    """The path of a blob in a bundle."""
    return "/".join((*_BLOBS, digest.hex))


def blobs_in(path: Path) -> frozenset[Digest]:
    """The blobs a bundle file has, by name only, and those it was told the other side has."""
    found, left_out = set(), set()
    with _opened(path) as tar:
        for member in tar.members():
            if digest := _blob(member, tar):
                found.add(digest)
            elif member.name == _INFO:
                left_out = set(_left_out(_document(member, tar, path), path))
    return frozenset(found | left_out)


def take(path: Path, layout: Layout, passed: Callable[[int], None] = lambda _: None) -> Arrived:
    """Move the blobs of a bundle into the store, each checked against its name; nothing gets a name yet.

    `passed` is told of bytes as they come. What arrived whole before an error stays, without a name: a second try goes
    on there, and `gc` removes it. Raises PolicyError `bundle.refused`, `bundle.wrong_digest`, UsageError
    `bundle.malformed`, `bundle.unreadable`.
    """
    files: dict[str, Mapping[str, Any]] = {}
    blobs: set[Digest] = set()
    new_bytes = 0
    with _opened(path) as tar:
        for member in tar.members():
            if digest := _blob(member, tar):
                new_bytes += _take_blob(digest, tar, layout, path, passed)
                blobs.add(digest)
            elif member.name in (_INFO, _INDEX):
                if member.name in files:
                    raise _malformed(path, f"it has two files called {member.name}")
                files[member.name] = _document(member, tar, path)
    if _INDEX not in files:
        raise _malformed(path, "it has no index.json")
    info = files.get(_INFO, {})
    with _parsing(path):
        entries = [descriptor_from(entry, str(path)) for entry in files[_INDEX]["manifests"]]
        referrers = tuple(descriptor_from(entry, str(path)) for entry in info.get("referrers", ()))
    return Arrived(
        images=tuple((entry.annotations.get(NAME_ANNOTATION, ""), entry) for entry in entries),
        referrers=referrers,
        titles=_left_out(info, path),
        blobs=frozenset(blobs),
        new_bytes=new_bytes,
    )


def check_whole(arrived: Arrived, layout: Layout, path: Path) -> tuple[tuple[Descriptor, Digest], ...]:
    """That everything the images lead to is in the store, whole; gives what is attached, each with its subject.

    Blobs that were not in the bundle are hashed again: a delta must not build on a broken blob. Raises NotFoundError
    `bundle.incomplete`, PolicyError `store.blob_corrupt`, CortenError `store.malformed`.
    """
    roots = {entry.digest for _, entry in arrived.images}
    documents = read_documents(layout, [*roots, *(entry.digest for entry in arrived.referrers)])
    reached = reachable(Contents(arrived.referrers, documents, {}), roots)
    missing = sorted(digest for digest in reached if not layout.has(digest))
    if missing:
        raise _incomplete(missing, arrived, path)
    for digest in sorted(reached - arrived.blobs):
        seen = Digest.of_file(layout.path(digest))
        if seen != digest:
            raise layout.quarantine(digest, seen)
    return tuple(
        (replace(entry, annotations=annotations), subject)
        for entry in arrived.referrers
        if entry.digest in reached
        for subject, annotations in _attachment(entry, documents[entry.digest].subject)
    )


def _attachment(entry: Descriptor, subject: Digest | None) -> Iterator[tuple[Digest, Mapping[str, str]]]:
    """What an entry is attached to: by the `subject` of its manifest, or by its name; any other name is dropped."""
    name = entry.annotations.get(NAME_ANNOTATION, "")
    if subject:
        yield subject, {key: text for key, text in entry.annotations.items() if key != NAME_ANNOTATION}
    elif signed := subject_of(name):
        yield signed, {NAME_ANNOTATION: name}


@contextmanager
def _opened(path: Path) -> Iterator[LayerTar]:
    try:
        with path.open("rb") as stream:
            yield LayerTar(stream, path.name)
    except OSError as error:
        raise UsageError(
            "bundle.unreadable", f"`{path.name}` cannot be read", where=str(path), why=str(error.strerror)
        ) from error
    except PolicyError as error:
        if not error.code.startswith("layer."):
            raise
        # The reader of tars speaks of layers.
        raise PolicyError(
            "bundle.refused",
            f"`{path.name}` is no bundle Corten takes",
            where=str(path),
            why=f"{error.what.replace(f'layer `{path.name}`', 'it')}: {error.why}",
            hint="export it again",
        ) from error


def _blob(member: Member, tar: LayerTar) -> Digest | None:
    """The digest a member's name says it has; None for what is no blob. Links are refused wherever they are."""
    if member.kind in (MemberKind.SYMLINK, MemberKind.HARDLINK):
        raise tar.refuse(member.name, "a link, and bundles hold plain files")
    if member.kind is MemberKind.FOLDER or member.parts[:-1] != _BLOBS:
        return None
    try:
        return Digest.parse(f"sha256:{member.parts[-1]}")
    except UsageError as error:
        raise tar.refuse(member.name, "a blob whose name is no digest") from error


def _take_blob(digest: Digest, tar: LayerTar, layout: Layout, path: Path, passed: Callable[[int], None]) -> int:
    with layout.writer() as blob:
        for piece in tar.content():
            blob.write(piece)
            passed(len(piece))
        if blob.digest != digest:
            raise PolicyError(
                "bundle.wrong_digest",
                f"a blob in `{path.name}` is not what its name says",
                where=f"{path} ({blob_name(digest)})",
                why=f"its content has the digest {blob.digest}",
                hint="copy the file again; compare its sha256 with the one on the other side",
            )
    return blob.size_bytes


def _document(member: Member, tar: LayerTar, path: Path) -> Mapping[str, Any]:
    if member.size_bytes > _DOCUMENT_LIMIT_BYTES:
        raise _malformed(path, f"{member.name} has {member.size_bytes} bytes")
    with _parsing(path):
        document = json.loads(b"".join(tar.content()))
        if isinstance(document, dict):
            return document
    raise _malformed(path, f"{member.name} is no JSON object")


def _left_out(info: Mapping[str, Any], path: Path) -> dict[Digest, str]:
    with _parsing(path):
        return {Digest.parse(digest): str(title) for digest, title in info.get("left_out", {}).items()}


@contextmanager
def _parsing(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _malformed(path, f"{type(error).__name__}: {error}") from error
    except UsageError as error:
        if error.code.startswith("bundle."):
            raise
        raise _malformed(path, str(error)) from error


def _incomplete(missing: Collection[Digest], arrived: Arrived, path: Path) -> CortenError:
    shown = sorted(f"{_printable(arrived.titles.get(digest, '')) or 'a blob'} ({digest.short})" for digest in missing)
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return NotFoundError(
        "bundle.incomplete",
        f"`{path.name}` builds on {len(missing)} blobs that are not here",
        where=str(path),
        why=f"missing: {', '.join(shown[:_SHOWN])}{more}",
        hint="import the image the delta was made from first, or export without --delta-from",
    )


def _malformed(path: Path, why: str) -> UsageError:
    return UsageError(
        "bundle.malformed",
        f"`{path.name}` is no bundle",
        where=str(path),
        why=_printable(why),
        hint="expected a file made by `corten export` or another tool's OCI archive",
    )


def _printable(text: str) -> str:
    # Titles come from the file: none may move a terminal's cursor.
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:200]


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, indent=1).encode()
