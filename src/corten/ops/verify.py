"""Check that an image is whole and signed by the key it should be signed by."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from corten.builder import artifact, signature
from corten.builder.artifact import BUNDLE_TYPE
from corten.builder.signature import IMAGE_PREDICATE, SIMPLE_TYPE, RefusedError
from corten.core.digest import Digest
from corten.core.home import Home
from corten.errors import PolicyError
from corten.ops.sign import read_key
from corten.store import signature_tag
from corten.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Verified:
    """An image that is whole and signed. `statements` are the kinds of all that the key signed about it."""

    digest: Digest
    statements: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {"digest": str(self.digest), "statements": list(self.statements)}


def verify(image: str, key: str | Path, *, home: Home | None = None) -> Verified:
    """Verify an image of the store by name or digest against a public key's file, without any network.

    Its signature (a bundle, or a simple one of older tools) first, then every blob of it against its digest. Raises
    PolicyError `signature.missing`, `signature.refused`, `store.blob_corrupt`; UsageError `signature.bad_key`;
    NotFoundError `store.image_unknown`.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    public = signature.public_key(read_key(key), str(key))
    layout = Layout(home.store)
    # Resolved once: a name may move while its old digest is being checked.
    named = layout.resolve(image)
    statements = _signed(layout, named.digest, public)
    inner = [one.digest for one in layout.platforms(named.digest) if layout.has(one.digest)]
    for digest in inner or [named.digest]:
        layout.verify(digest)
    return Verified(named.digest, statements)


def _signed(layout: Layout, digest: Digest, key: ec.EllipticCurvePublicKey) -> tuple[str, ...]:
    """The kinds of statements about the digest this key signed; the one about the image itself must be among them."""
    found: list[str] = []
    refused: list[str] = []
    for one in layout.referrers(digest, BUNDLE_TYPE):
        try:
            found.append(signature.verified(artifact.read(layout, one), key, digest)["predicateType"])
        except RefusedError as error:
            refused.append(f"{one.digest.short}: {error}")
    if IMAGE_PREDICATE in found:
        return tuple(dict.fromkeys(found))
    for one in signature_tag.payloads_of(layout, digest):
        try:
            signed = one.annotations.get(signature_tag.SIGNATURE_ANNOTATION, "")
            signature.verify_simple(layout.read(one.digest), signed, key, digest)
            return (SIMPLE_TYPE, *dict.fromkeys(found))
        except RefusedError as error:
            refused.append(f"{one.digest.short}: {error}")
    if not found and not refused:
        raise PolicyError(
            "signature.missing",
            f"`{digest.short}` is not signed",
            where=str(layout.root),
            hint="corten sign IMAGE --key NAME.key",
        )
    raise PolicyError(
        "signature.refused",
        f"`{digest.short}` is not signed by this key",
        where=str(layout.root),
        why="; ".join(refused[:5]) or f"the key signed only {', '.join(found)}",
        hint="do not run it unless you know who built it; check that the key is the right one",
    )
