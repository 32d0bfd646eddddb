"""Signatures where cosign kept them before there were bundles, and podman and skopeo look for them still: an image
manifest under the tag `sha256-HEX.sig`, each of whose layers is a signed payload
(https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md, "Storage").

The manifest has no `subject`: only its tag says what it is about. Several signers share it, a layer each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from corten.core.digest import Digest
from corten.core.image import CONFIG, MANIFEST, NAME_ANNOTATION, Descriptor
from corten.errors import UsageError
from corten.store.documents import descriptor_from, descriptor_to
from corten.store.layout import Layout

PAYLOAD_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
_SUFFIX = ".sig"


def signature_tag(subject: Digest) -> str:
    """The tag of the signatures of a manifest."""
    return f"sha256-{subject.hex}{_SUFFIX}"


def subject_of(tag: str) -> Digest | None:
    """What a tag's signatures are about; None for any other tag."""
    try:
        subject = Digest.parse(tag.removesuffix(_SUFFIX).replace("sha256-", "sha256:", 1))
    except UsageError:
        return None
    return subject if signature_tag(subject) == tag else None


def union(first: Sequence[Descriptor], second: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """The payloads of both, each signature once: the same payload may be signed by several keys."""
    seen = {key_of(one): one for one in (*second, *first)}
    return tuple(sorted(seen.values(), key=key_of))


def documents(payloads: Iterable[Descriptor]) -> tuple[bytes, bytes]:
    """Config and manifest over these payloads: the same payloads give the same bytes."""
    ordered = sorted(payloads, key=key_of)
    config = _json(
        {
            "architecture": "",
            "os": "",
            "config": {},
            "created": "1970-01-01T00:00:00Z",
            "rootfs": {"type": "layers", "diff_ids": [str(one.digest) for one in ordered]},
        }
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor_to(Descriptor(CONFIG, Digest.of(config), len(config))),
        "layers": [descriptor_to(one) for one in ordered],
    }
    return config, _json(manifest)


def payloads_of(layout: Layout, subject: Digest) -> tuple[Descriptor, ...]:
    """The payloads a store has for a manifest, each with its signature as an annotation.

    Raises UsageError `store.malformed`, PolicyError `store.blob_corrupt`, NotFoundError `store.blob_missing`.
    """
    entry = layout.named(signature_tag(subject))
    if entry is None:
        return ()
    where = f"{layout.root} ({entry.digest})"
    try:
        layers = json.loads(layout.read(entry.digest))["layers"]
        return tuple(descriptor_from(one, where) for one in layers)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "store.malformed", "a malformed signature", where=where, why=f"{type(error).__name__}: {error}"
        ) from error


def keep(layout: Layout, subject: Digest, payloads: Sequence[Descriptor]) -> None:
    """Add signatures of a manifest, whose payloads are in the store, to those it has there."""
    config, manifest = documents(union(payloads_of(layout, subject), payloads))
    layout.put(config, CONFIG)
    before = layout.named(signature_tag(subject))
    described = replace(
        layout.put(manifest, MANIFEST),
        artifact_type=PAYLOAD_TYPE,
        annotations={NAME_ANNOTATION: signature_tag(subject)},
    )
    layout.attach(subject, [described], instead_of=[before.digest] if before else [])


def key_of(payload: Descriptor) -> tuple[str, str]:
    """What tells two signatures apart: the payload and who signed it."""
    return payload.digest.hex, payload.annotations.get(SIGNATURE_ANNOTATION, "")


def _json(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
