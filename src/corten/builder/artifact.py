"""Artifacts attached to an image: one blob behind a manifest whose `subject` is the image (image-spec 1.1, manifest.md,
"Guidelines for Artifact Usage").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from corten.core.digest import Digest
from corten.core.image import MANIFEST, TITLE_ANNOTATION, Descriptor
from corten.errors import UsageError
from corten.store.documents import descriptor_from, descriptor_to
from corten.store.layout import Layout

LOCK_TYPE = "application/vnd.corten.lock.v1+json"
SBOM_TYPE = "application/vnd.cyclonedx+json"
STATEMENT_TYPE = "application/vnd.in-toto+json"
BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
# The empty descriptor of the image spec: an artifact has no config.
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
CREATED_ANNOTATION = "org.opencontainers.image.created"
# No clock: the same content attached to the same image is the same artifact.
EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Artifact:
    """Content to attach to an image. `type` is its media type and the artifact's; `title` a file name for people."""

    type: str
    title: str
    data: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)


def put(layout: Layout, artifact: Artifact, subject: Descriptor) -> Descriptor:
    """Store an artifact that refers to a manifest; gives its descriptor for `Layout.attach`."""
    config = layout.put(_EMPTY, EMPTY_TYPE)
    blob = layout.put(artifact.data, artifact.type)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact.type,
        "config": descriptor_to(config),
        "layers": [descriptor_to(replace(blob, annotations={TITLE_ANNOTATION: artifact.title}))],
        "subject": descriptor_to(Descriptor(subject.media_type, subject.digest, subject.size_bytes)),
        "annotations": {CREATED_ANNOTATION: EPOCH, **artifact.annotations},
    }
    described = layout.put(to_json(document), MANIFEST)
    return replace(described, artifact_type=artifact.type, annotations=dict(artifact.annotations))


def read(layout: Layout, descriptor: Descriptor) -> bytes:
    """The content of a stored artifact: its only blob, checked against its digest.

    Raises UsageError `store.malformed`, NotFoundError `store.blob_missing`, PolicyError `store.blob_corrupt`.
    """
    return layout.read(_manifest(layout, descriptor)[0].digest)


def noted(layout: Layout, descriptor: Descriptor) -> Mapping[str, str]:
    """The annotations of a stored artifact, as its manifest has them. Raises what `read` raises."""
    return _manifest(layout, descriptor)[1]


def attached(
    layout: Layout, subject: Digest, artifact_type: str, annotations: Mapping[str, str] | None = None
) -> bytes | None:
    """The content of the newest artifact of a type attached to an image, None when there is none.

    `annotations`: only one that has these. Raises what `read` raises.
    """
    wanted = dict(annotations or {}).items()
    for one in reversed(layout.referrers(subject, artifact_type)):
        if not wanted or wanted <= noted(layout, one).items():
            return read(layout, one)
    return None


def _manifest(layout: Layout, descriptor: Descriptor) -> tuple[Descriptor, Mapping[str, str]]:
    """An artifact's only blob and its annotations."""
    where = f"{layout.root} ({descriptor.digest})"
    try:
        document = json.loads(layout.read(descriptor.digest))
        (blob,) = document["layers"]
        return descriptor_from(blob, where), dict(document.get("annotations") or {})
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "store.malformed", "a malformed artifact", where=where, why=f"{type(error).__name__}: {error}"
        ) from error


def to_json(document: object) -> bytes:
    """Compact JSON with sorted keys: the same document, the same bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
