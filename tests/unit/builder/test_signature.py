"""Signatures: what a key signed is taken, everything else is refused."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder import signature
from corten.builder.signature import RefusedError, verified
from corten.core.digest import Digest
from corten.errors import UsageError

IMAGE = Digest.of(b"image")
PRIVATE, PUBLIC = signature.new_key()
KEY = signature.private_key(PRIVATE, b"", "")
THEIRS = signature.private_key(signature.new_key()[0], b"", "")
BUNDLE = signature.bundle(signature.image_statement(IMAGE), KEY)


def public(pem=PUBLIC):
    return signature.public_key(pem, "")


def changed(**fields):
    """The bundle with parts of its envelope replaced."""
    document = json.loads(BUNDLE.data)
    document["dsseEnvelope"] |= fields
    return json.dumps(document).encode()


def test_a_signed_image_is_verified_by_its_public_key():
    statement = verified(BUNDLE.data, public(), IMAGE)

    assert statement == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": IMAGE.hex}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    }


def test_a_bundle_has_the_form_of_sigstores_v0_3():
    document = json.loads(BUNDLE.data)

    assert document["mediaType"] == BUNDLE.type == "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert len(base64.b64decode(document["verificationMaterial"]["publicKey"]["hint"], validate=True)) == 32
    assert document["dsseEnvelope"]["payloadType"] == "application/vnd.in-toto+json"
    assert BUNDLE.annotations == {
        "dev.sigstore.bundle.content": "dsse-envelope",
        "dev.sigstore.bundle.predicateType": "https://sigstore.dev/cosign/sign/v1",
    }


def test_signing_again_gives_the_same_bytes():
    assert signature.bundle(signature.image_statement(IMAGE), KEY) == BUNDLE


def test_what_is_signed_is_encoded_with_its_type_and_lengths():
    assert signature.pae(b"{}") == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"


def test_another_key_is_refused():
    with pytest.raises(RefusedError, match="another key"):
        verified(BUNDLE.data, THEIRS.public_key(), IMAGE)


def test_a_bundle_that_claims_our_key_and_is_signed_by_another_is_refused():
    forged = json.loads(signature.bundle(signature.image_statement(IMAGE), THEIRS).data)
    forged["verificationMaterial"]["publicKey"]["hint"] = signature.hint(public())

    with pytest.raises(RefusedError, match="not of this content"):
        verified(json.dumps(forged).encode(), public(), IMAGE)


def test_a_signature_of_another_image_is_refused():
    with pytest.raises(RefusedError, match="another image"):
        verified(BUNDLE.data, public(), Digest.of(b"another"))


def test_another_content_under_a_good_signature_is_refused():
    payload = base64.b64encode(signature.image_statement(Digest.of(b"another"))).decode()

    with pytest.raises(RefusedError, match="not of this content"):
        verified(changed(payload=payload), public(), Digest.of(b"another"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        changed(signatures=[]),
        changed(signatures=[{"sig": "?"}]),
        changed(payload="?"),
        changed(payloadType="text/plain"),
        BUNDLE.data.replace(b"bundle.v0.3", b"bundle.v9.9"),
    ],
)
def test_what_is_no_bundle_of_ours_is_refused(data):
    with pytest.raises(RefusedError):
        verified(data, public(), IMAGE)


@pytest.mark.parametrize(
    "statement",
    [
        {
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": "x",
            "subject": [{"digest": {"sha256": IMAGE.hex}}],
        },
        {"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "subject": []},
        {"_type": "https://in-toto.io/Statement/v1", "predicateType": "x", "subject": ["x"]},
        {
            "_type": "https://in-toto.io/Statement/v1",
            "predicateType": 1,
            "subject": [{"digest": {"sha256": IMAGE.hex}}],
        },
    ],
)
def test_a_signed_statement_of_an_unknown_form_is_refused(statement):
    data = signature.bundle(json.dumps(statement).encode(), KEY).data

    with pytest.raises(RefusedError):
        verified(data, public(), IMAGE)


@given(st.integers(0, len(BUNDLE.data) - 1), st.integers(1, 255))
def test_no_bundle_with_a_changed_byte_says_anything_else(place, flip):
    data = bytearray(BUNDLE.data)
    data[place] ^= flip
    try:
        statement = verified(bytes(data), public(), IMAGE)
    except RefusedError:
        return
    assert statement == verified(BUNDLE.data, public(), IMAGE)


def test_an_encrypted_key_needs_its_password():
    private, _ = signature.new_key(b"open sesame")

    assert signature.private_key(private, b"open sesame", "")
    for password in (b"", b"wrong"):
        with pytest.raises(UsageError) as caught:
            signature.private_key(private, password, "k.key")
        assert (caught.value.code, caught.value.where) == ("signature.bad_key", "k.key")


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", PRIVATE])
def test_what_is_no_public_key_is_refused(pem):
    with pytest.raises(UsageError) as caught:
        public(pem)
    assert caught.value.code == "signature.bad_key"


def test_a_key_of_another_kind_is_refused():
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    pem = (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(UsageError) as caught:
        public(pem)
    assert "P-256" in caught.value.why
