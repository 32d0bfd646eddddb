"""Sign an image, and what is attached to it, with a key of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec

from corten.builder import artifact, signature
from corten.builder.artifact import BUNDLE_TYPE, SBOM_TYPE, STATEMENT_TYPE, Artifact
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import NAME_ANNOTATION, Descriptor
from corten.core.reference import Reference
from corten.errors import UsageError
from corten.ops.keygen import PASSWORD_VARIABLE
from corten.store import signature_tag
from corten.store.guard import using
from corten.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed: an image, or an index with its platforms' images, and the kinds of statements about them."""

    digest: Digest
    statements: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {"digest": str(self.digest), "statements": list(self.statements)}


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key, opened."""

    key: ec.EllipticCurvePrivateKey

    @classmethod
    def open(cls, path: str | Path, env: Mapping[str, str]) -> Self:
        """Read a key's file, with the password in CORTEN_SIGN_PASSWORD. Raises UsageError `signature.bad_key`."""
        password = env.get(PASSWORD_VARIABLE, "").encode()
        return cls(signature.private_key(read_key(path), password, str(path)))

    def sign(self, layout: Layout, image: str, identity: str = "") -> Signed:
        """Sign an image of a store, or an index and its images. Raises NotFoundError `store.image_unknown`."""
        named = layout.resolve(image)
        known = identity or _identity(named.annotations.get(NAME_ANNOTATION, image.partition("@")[0]))
        inner = (one for one in layout.platforms(named.digest) if layout.has(one.digest))
        done = []
        for subject in (named, *inner):
            done += _sign_one(layout, subject, self.key)
            _sign_simply(layout, subject.digest, known, self.key)
        return Signed(named.digest, tuple(dict.fromkeys(done)))


def sign(
    image: str,
    key: str | Path,
    *,
    identity: str = "",
    home: Home | None = None,
    env: Mapping[str, str] | None = None,
) -> Signed:
    """Sign an image of the store by name or digest: itself, its SBOM, and the statements attached to it (provenance).

    Written are bundles, and a simple signature of the image under the tag of older tools; that one names the image as
    `identity` (`registry/repository`; default: as the store calls it), which such tools may compare. `key` is the
    private key's file, its password CORTEN_SIGN_PASSWORD. Signing again with the same key changes nothing.
    Raises NotFoundError `store.image_unknown`, UsageError `signature.bad_key`.
    """
    env = os.environ if env is None else env
    home = home or Home.from_env(env, uid=os.getuid())
    signer = Signer.open(key, env)
    with using(home.store):
        return signer.sign(Layout(home.store), image, identity)


def read_key(path: str | Path) -> bytes:
    """The content of a key's file. Raises UsageError `signature.bad_key`."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(
            "signature.bad_key",
            f"the key `{Path(path).name}` cannot be read",
            where=str(path),
            why=str(error.strerror),
            hint="corten keygen NAME",
        ) from error


def _sign_one(layout: Layout, subject: Descriptor, key: ec.EllipticCurvePrivateKey) -> list[str]:
    bundles = [signature.bundle(statement, key) for statement in _statements(layout, subject.digest)]
    described = [artifact.put(layout, one, subject) for one in bundles]
    predicates = [_predicate(one) for one in bundles]
    before = [
        one.digest
        for one in layout.referrers(subject.digest, BUNDLE_TYPE)
        if artifact.noted(layout, one).get(signature.BUNDLE_PREDICATE_ANNOTATION) in predicates
        and _is_by(artifact.read(layout, one), key)
    ]
    layout.attach(subject.digest, described, instead_of=before)
    return predicates


def _sign_simply(layout: Layout, subject: Digest, identity: str, key: ec.EllipticCurvePrivateKey) -> None:
    payload = signature.simple_payload(subject, identity)
    signed = {signature_tag.SIGNATURE_ANNOTATION: signature.simple_signature(payload, key)}
    described = replace(layout.put(payload, signature_tag.PAYLOAD_TYPE), annotations=signed)
    signature_tag.keep(layout, subject, [described])


def _identity(name: str) -> str:
    """A reference without tag and digest, as cosign writes it; any other name as it is."""
    try:
        reference = Reference.parse(name)
    except UsageError:
        return name
    return f"{reference.registry}/{reference.repository}"


def _statements(layout: Layout, subject: Digest) -> Iterator[bytes]:
    yield signature.image_statement(subject)
    if (sbom := artifact.attached(layout, subject, SBOM_TYPE)) is not None:
        yield signature.sbom_statement(subject, sbom)
    for one in layout.referrers(subject, STATEMENT_TYPE):
        yield artifact.read(layout, one)


def _predicate(bundle: Artifact) -> str:
    return bundle.annotations[signature.BUNDLE_PREDICATE_ANNOTATION]


def _is_by(bundle: bytes, key: ec.EllipticCurvePrivateKey) -> bool:
    return signature.hint(key.public_key()).encode() in bundle
