"""Manifests, indexes and lists of referrers: somebody else's JSON to values and back. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from corten.core.digest import Digest
from corten.core.image import INDEX, INDEXES, MANIFESTS, Descriptor
from corten.core.platform import Platform
from corten.errors import CortenError, RemoteError
from corten.store.documents import descriptor_to

MANIFEST_TYPES = (*MANIFESTS, *INDEXES)
# What registries are bound to take (distribution-spec, "Pushing manifests"); larger ones are somebody's attack.
MANIFEST_LIMIT_BYTES = 4 << 20
# An index of indexes is rare and three deep unheard of; an index that names itself cannot exist, but a long chain can.
_DEEPEST = 4
_MOST_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class Manifest:
    """An image manifest, an artifact's, or an index, as the bytes it has and what they point at.

    `blobs` are its config and layers, `children` the manifests an index lists, `subject` what it refers to.
    """

    descriptor: Descriptor
    data: bytes
    blobs: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    subject: Digest | None = None

    @property
    def digest(self) -> Digest:
        """Of the bytes."""
        return self.descriptor.digest


def read_manifest(data: bytes, media_type: str, where: str) -> Manifest:
    """Read a manifest or an index. `media_type` is what the store or the registry says it is; the document wins.

    Raises RemoteError `registry.malformed`.
    """
    try:
        document = json.loads(data)
        kind = str(document.get("mediaType") or media_type)
        descriptor = Descriptor(
            kind,
            Digest.of(data),
            len(data),
            annotations=_texts(document.get("annotations")),
            artifact_type=str(document.get("artifactType") or ""),
        )
        subject = document.get("subject")
        if kind in INDEXES:
            children = tuple(_descriptor(entry) for entry in _list(document, "manifests"))
            return Manifest(descriptor, data, (), children, _subject(subject))
        _check_kind(kind)
        config = _descriptor(document["config"])
        if not descriptor.artifact_type:
            # What a list of referrers shows for it then (distribution-spec, "Listing Referrers").
            descriptor = replace(descriptor, artifact_type=config.media_type)
        blobs = (config, *(_descriptor(entry) for entry in _list(document, "layers")))
        return Manifest(descriptor, data, blobs, (), _subject(subject))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, CortenError) as error:
        raise RemoteError(
            "registry.malformed",
            "not an image manifest or index",
            where=where,
            why=f"{type(error).__name__}: {error}"[:300],
            hint="check the reference; images of the old schema 1 are not supported",
        ) from error


def referrers_tag(subject: Digest) -> str:
    """The tag that lists referrers where a registry has no API for it (distribution-spec, "Referrers Tag Schema")."""
    return f"sha256-{subject.hex}"


def referrers_index(entries: Iterable[Descriptor]) -> bytes:
    """The list of referrers: the same entries in the same order give the same bytes."""
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor_to(entry) for entry in entries]}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def unique(descriptors: Iterable[Descriptor]) -> Iterator[Descriptor]:
    """Each digest once, in order."""
    seen: set[Digest] = set()
    for descriptor in descriptors:
        if descriptor.digest not in seen:
            seen.add(descriptor.digest)
            yield descriptor


def check_depth(depth: int, where: str) -> None:
    """Raise RemoteError for an index nested too deep."""
    if depth > _DEEPEST:
        raise RemoteError(
            "registry.malformed", "indexes are nested too deep", where=where, why=f"more than {_DEEPEST} levels"
        )


def _check_kind(kind: str) -> None:
    if kind not in MANIFEST_TYPES:
        raise ValueError(f"the media type is `{kind[:100]}`")


def _descriptor(document: Any) -> Descriptor:
    size = document["size"]
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"the size `{str(size)[:40]}` is no number of bytes")
    platform = document.get("platform")
    return Descriptor(
        media_type=str(document["mediaType"]),
        digest=Digest.parse(str(document["digest"])),
        size_bytes=size,
        annotations=_texts(document.get("annotations")),
        artifact_type=str(document.get("artifactType") or ""),
        platform=Platform(str(platform["architecture"]), str(platform["os"])) if platform else None,
    )


def _list(document: Mapping[str, Any], key: str) -> list[Any]:
    entries = document.get(key) or []
    if not isinstance(entries, list) or len(entries) > _MOST_ENTRIES:
        raise ValueError(f"`{key}` is no list of at most {_MOST_ENTRIES}")
    return entries


def _subject(document: Any) -> Digest | None:
    return _descriptor(document).digest if document else None


def _texts(document: Any) -> dict[str, str]:
    return {str(key): str(text) for key, text in (document or {}).items()}
