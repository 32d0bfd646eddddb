"""Signatures others verify, by an ECDSA P-256 key of one's own: DSSE envelopes in Sigstore bundles v0.3, and the
payload of "simple signing" that cosign wrote before, for what knows no bundles yet.

Formats: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md,
https://github.com/sigstore/protobuf-specs (bundle), https://github.com/in-toto/attestation (Statement v1),
https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md (simple signing). No transparency log and no
certificate: what it proves is that the holder of the key signed this digest.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from corten.builder.artifact import BUNDLE_TYPE, STATEMENT_TYPE, Artifact, to_json
from corten.core.digest import Digest
from corten.errors import UsageError

# What `cosign sign` states of an image, and `cosign attest --type cyclonedx` of an SBOM.
IMAGE_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
SBOM_PREDICATE = "https://cyclonedx.org/bom"
STATEMENT = "https://in-toto.io/Statement/v1"
SIMPLE_TYPE = "cosign container image signature"
CONTENT_ANNOTATION = "dev.sigstore.bundle.content"
BUNDLE_PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"
_CONTENT = "dsse-envelope"


class RefusedError(ValueError):
    """A bundle that does not say what it should, by the key it should; the text says why."""


# Keys


def new_key(password: bytes = b"") -> tuple[bytes, bytes]:
    """A new pair: the private key as PKCS8 PEM (encrypted when there is a password), the public one as PKIX PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    secrecy = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secrecy)
    return private, public_pem(key)


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public key of a private one, as PKIX PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_key(pem: bytes, password: bytes, where: str) -> ec.EllipticCurvePrivateKey:
    """Read a private key. Raises UsageError `signature.bad_key`."""
    try:
        key = serialization.load_pem_private_key(pem, password or None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _bad_key("private", where, str(error)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_key("private", where, "it is no ECDSA P-256 key")
    return key


def public_key(pem: bytes, where: str) -> ec.EllipticCurvePublicKey:
    """Read a public key. Raises UsageError `signature.bad_key`."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _bad_key("public", where, str(error)) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _bad_key("public", where, "it is no ECDSA P-256 key")
    return key


def hint(key: ec.EllipticCurvePublicKey) -> str:
    """What bundles call the key by: base64 of the sha256 of its PKIX DER form."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _base64(hashlib.sha256(der).digest())


# Signing


def image_statement(digest: Digest) -> bytes:
    """What is signed of an image: that it is this one."""
    return to_json(_statement(digest, IMAGE_PREDICATE, {}))


def sbom_statement(digest: Digest, sbom: bytes) -> bytes:
    """An SBOM as a statement about the image."""
    return to_json(_statement(digest, SBOM_PREDICATE, json.loads(sbom)))


def bundle(statement: bytes, key: ec.EllipticCurvePrivateKey) -> Artifact:
    """A signed statement, to be attached to its subject. The same statement and key give the same bytes (RFC 6979)."""
    signed = key.sign(pae(statement), ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    document = {
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": hint(key.public_key())}},
        "dsseEnvelope": {
            "payload": _base64(statement),
            "payloadType": STATEMENT_TYPE,
            "signatures": [{"sig": _base64(signed)}],
        },
    }
    predicate = json.loads(statement)["predicateType"]
    notes = {CONTENT_ANNOTATION: _CONTENT, BUNDLE_PREDICATE_ANNOTATION: predicate}
    return Artifact(BUNDLE_TYPE, "bundle.sigstore.json", to_json(document), notes)


def simple_payload(digest: Digest, identity: str) -> bytes:
    """What a simple signature is over; `identity` is the name the image is to be known by, `registry/repository`."""
    return to_json(
        {
            "critical": {
                "identity": {"docker-reference": identity},
                "image": {"docker-manifest-digest": str(digest)},
                "type": SIMPLE_TYPE,
            },
            "optional": None,
        }
    )


def simple_signature(payload: bytes, key: ec.EllipticCurvePrivateKey) -> str:
    """The signature over a payload as its annotation has it."""
    return _base64(key.sign(payload, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))


def pae(statement: bytes) -> bytes:
    """DSSE's pre-authentication encoding of a statement: what the signature is over."""
    kind = STATEMENT_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(statement), statement)


# Verifying


def verified(data: bytes, key: ec.EllipticCurvePublicKey, subject: Digest) -> Mapping[str, Any]:
    """The statement in a bundle, signed by this key, about this digest. Raises RefusedError for everything else."""
    try:
        document = json.loads(data)
        envelope = document["dsseEnvelope"]
        named = document["verificationMaterial"]["publicKey"]["hint"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"]]
        kinds = (document["mediaType"], envelope["payloadType"])
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"no bundle signed by a key: {type(error).__name__}: {error}") from error
    if kinds != (BUNDLE_TYPE, STATEMENT_TYPE):
        raise RefusedError(f"an unknown kind of bundle: {kinds[0]} with {kinds[1]}")
    if named != hint(key):
        raise RefusedError(f"signed by another key ({str(named)[:50]})")
    # The payload is read only now that it is known to be what was signed.
    if not any(_is_signed(payload, one, key) for one in signatures):
        raise RefusedError("the signature is not of this content")
    return _about(payload, subject)


def verify_simple(payload: bytes, signature: str, key: ec.EllipticCurvePublicKey, subject: Digest) -> None:
    """Raise RefusedError unless the payload is signed by this key and about this digest."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except ValueError as error:
        raise RefusedError(f"no signature: {error}") from error
    if not _is_by(payload, raw, key):
        raise RefusedError("signed by another key, or the signature is not of this content")
    try:
        critical = json.loads(payload)["critical"]
        kind, about = critical["type"], critical["image"]["docker-manifest-digest"]
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"what is signed is no simple payload: {type(error).__name__}: {error}") from error
    if kind != SIMPLE_TYPE:
        raise RefusedError(f"what is signed is an unknown kind of payload: {str(kind)[:100]}")
    if about != str(subject):
        raise RefusedError("what is signed is about another image")


def _is_signed(payload: bytes, signature: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    return _is_by(pae(payload), signature, key)


def _is_by(data: bytes, signature: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _about(payload: bytes, subject: Digest) -> Mapping[str, Any]:
    try:
        statement = json.loads(payload)
        subjects = [one["digest"].get("sha256") for one in statement["subject"]]
        kind, predicate = statement["_type"], statement["predicateType"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"what is signed is no statement: {type(error).__name__}: {error}") from error
    if kind != STATEMENT or not isinstance(predicate, str):
        raise RefusedError(f"what is signed is an unknown kind of statement: {kind}")
    if subject.hex not in subjects:
        raise RefusedError("what is signed is about another image")
    return dict(statement)


def _statement(digest: Digest, predicate_type: str, predicate: Any) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": [{"digest": {"sha256": digest.hex}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bad_key(noun: str, where: str, why: str) -> UsageError:
    return UsageError(
        "signature.bad_key",
        f"not a {noun} key Corten can use",
        where=where,
        why=why,
        hint="expected PEM of an ECDSA P-256 key as `corten keygen` writes it; its password is CORTEN_SIGN_PASSWORD",
    )
