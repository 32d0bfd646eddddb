"""What of the store nobody reaches any more: a pure plan over a reading of it, and its execution.

Reached is what a name or a user (a deployment, a running replica) leads to, and what is attached to that: referrers by
their `subject`, signatures by the tag cosign and registries without a referrers API give them (`sha256-HEX...`).
Execute under `guard.collecting` only. First the index stops listing, then blobs go, so that a process killed in
between leaves blobs that the next run finds, never a name that leads nowhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from corten.core.digest import Digest
from corten.core.image import INDEXES, MANIFESTS, NAME_ANNOTATION, Descriptor
from corten.errors import CortenError, NotFoundError, UsageError
from corten.store.layout import Layout
from corten.store.writing import sync_folder, translated

# Content this young may be on its way into something that takes no lock: skopeo copying into the layout, say.
YOUNG_S: Final = 60.0
_LISTS: Final = ("layers", "manifests", "blobs")
_FALLBACK_TAG: Final = re.compile(r"sha256-([0-9a-f]{64})(?:\..+)?")


@dataclass(frozen=True, slots=True)
class Document:
    """Where a manifest or index leads to; `subject` is what it is attached to."""

    leads_to: tuple[Digest, ...] = ()
    subject: Digest | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of the store: its size in bytes, when it was written in seconds since the epoch."""

    size_bytes: int
    written_s: float


@dataclass(frozen=True, slots=True)
class Contents:
    """A store as read: the entries of its index, the documents they lead to, all blobs."""

    listed: tuple[Descriptor, ...]
    documents: Mapping[Digest, Document]
    blobs: Mapping[Digest, Blob]


@dataclass(frozen=True, slots=True)
class Removal:
    """What may go: entries of the index, blobs. `reached` is everything that stays because something leads to it."""

    entries: tuple[Descriptor, ...]
    blobs: tuple[Digest, ...]
    freed_bytes: int
    reached: frozenset[Digest]


def read(layout: Layout, wanted: Collection[Digest]) -> Contents:
    """Read a store. A manifest that is missing leads nowhere; for a corrupt one PolicyError is raised."""
    listed = layout.listed()
    documents = read_documents(layout, [*(entry.digest for entry in listed), *wanted])
    return Contents(listed, documents, dict(_blobs(layout)))


def read_documents(layout: Layout, roots: Iterable[Digest]) -> dict[Digest, Document]:
    """These manifests and indexes and those they lead to; missing ones are left out.

    Raises PolicyError `store.blob_corrupt`, CortenError `store.malformed`.
    """
    documents: dict[Digest, Document] = {}
    left = list(roots)
    while left:
        digest = left.pop()
        if digest in documents:
            continue
        with suppress(NotFoundError):
            documents[digest], inner = _document(layout, digest)
            left += inner
    return documents


def plan(contents: Contents, wanted: Collection[Digest], *, now_s: float, young_s: float = YOUNG_S) -> Removal:
    """What may be removed while `wanted` are in use. Nothing younger than `young_s` goes, nor what it leads to."""
    young = {digest for digest, blob in contents.blobs.items() if blob.written_s > now_s - young_s}
    named = {entry.digest for entry in contents.listed if _is_name(entry)}
    reached = reachable(contents, {*named, *wanted, *young})
    blobs = tuple(sorted(digest for digest in contents.blobs if digest not in reached))
    return Removal(
        entries=tuple(entry for entry in contents.listed if entry.digest not in reached),
        blobs=blobs,
        freed_bytes=sum(contents.blobs[digest].size_bytes for digest in blobs),
        reached=frozenset(reached),
    )


def reachable(contents: Contents, roots: Collection[Digest]) -> set[Digest]:
    """Everything roots lead to, and what is attached to any of it, and where that leads."""
    attached: dict[Digest, list[Digest]] = {}
    for artifact, document in contents.documents.items():
        if document.subject:
            attached.setdefault(document.subject, []).append(artifact)
    for entry in contents.listed:
        if subject := _tagged_subject(entry):
            attached.setdefault(subject, []).append(entry.digest)
    reached: set[Digest] = set()
    left = list(roots)
    while left:
        digest = left.pop()
        if digest in reached:
            continue
        reached.add(digest)
        left += attached.get(digest, ())
        if known := contents.documents.get(digest):
            left += known.leads_to
    return reached


def remove(layout: Layout, removal: Removal) -> None:
    """Do it; repeating it after a kill goes on where it was. Raises CortenError `store.write_failed`."""
    layout.forget(removal.entries)
    with translated(layout.root, "remove blobs"):
        for digest in removal.blobs:
            layout.path(digest).unlink(missing_ok=True)
        if removal.blobs:
            sync_folder(layout.path(removal.blobs[0]).parent)


def _is_name(entry: Descriptor) -> bool:
    return bool(entry.annotations.get(NAME_ANNOTATION)) and _tagged_subject(entry) is None


def _tagged_subject(entry: Descriptor) -> Digest | None:
    match = _FALLBACK_TAG.fullmatch(entry.annotations.get(NAME_ANNOTATION, ""))
    return Digest(match[1]) if match else None


def _document(layout: Layout, digest: Digest) -> tuple[Document, list[Digest]]:
    """A manifest or index, and which of the digests in it are manifests again."""
    try:
        document = json.loads(layout.read(digest))
        entries = [*_entries(document)]
        inner = [Digest.parse(entry["digest"]) for entry in entries if entry.get("mediaType") in (*MANIFESTS, *INDEXES)]
        subject = document.get("subject")
        return (
            Document(
                leads_to=tuple(Digest.parse(entry["digest"]) for entry in entries),
                subject=Digest.parse(subject["digest"]) if subject else None,
            ),
            inner,
        )
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise CortenError(
            "store.malformed",
            f"`{digest}` is listed as a manifest and is none",
            where=str(layout.path(digest)),
            why=str(error),
            hint="build or import that image again",
        ) from error


def _entries(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if config := document.get("config"):
        yield config
    for name in _LISTS:
        yield from document.get(name) or ()


def _blobs(layout: Layout) -> Iterator[tuple[Digest, Blob]]:
    folder = layout.path(Digest("0" * 64)).parent
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError, UsageError):
                found = path.stat()
                yield Digest.parse(f"sha256:{path.name}"), Blob(found.st_size, found.st_mtime)
