"""Our signatures by somebody else's hand: openssl verifies them, and its keys sign."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import pytest

from corten.builder import signature
from corten.core.digest import Digest

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
IMAGE = Digest.of(b"image")


def openssl(*words, **options):
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, timeout=30, **options)


def test_openssl_verifies_the_signature_in_a_bundle_and_no_other(tmp_path):
    private, public = signature.new_key()
    document = json.loads(
        signature.bundle(signature.image_statement(IMAGE), signature.private_key(private, b"", "")).data
    )
    envelope = document["dsseEnvelope"]
    (tmp_path / "key.pub").write_bytes(public)
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    payload = base64.b64decode(envelope["payload"])
    # DSSE's encoding, written out here once more and not taken from the code under test.
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 " + str(len(kind)).encode() + b" " + kind + b" " + str(len(payload)).encode() + b" " + payload
    (tmp_path / "signed").write_bytes(signed)
    (tmp_path / "other").write_bytes(signed + b" ")

    words = ("dgst", "-sha256", "-verify", tmp_path / "key.pub", "-signature", tmp_path / "sig")
    assert openssl(*words, tmp_path / "signed").stdout == b"Verified OK\n"
    assert openssl(*words, tmp_path / "other").returncode != 0


def test_the_hint_is_the_hash_of_the_key_as_openssl_writes_it(tmp_path):
    _, public = signature.new_key()
    der = openssl("pkey", "-pubin", "-outform", "DER", input=public, check=True).stdout
    digest = openssl("dgst", "-sha256", "-binary", input=der, check=True).stdout

    assert signature.hint(signature.public_key(public, "")) == base64.b64encode(digest).decode()


def test_a_key_made_by_openssl_signs():
    words = ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    private = openssl(*words, check=True).stdout
    public = openssl("pkey", "-pubout", input=private, check=True).stdout

    made = signature.bundle(signature.image_statement(IMAGE), signature.private_key(private, b"", ""))

    assert signature.verified(made.data, signature.public_key(public, ""), IMAGE)


def test_openssl_verifies_the_signature_of_older_tools_and_no_other(tmp_path):
    private, public = signature.new_key()
    payload = signature.simple_payload(IMAGE, "ghcr.io/team/iris")
    signed = signature.simple_signature(payload, signature.private_key(private, b"", ""))
    (tmp_path / "key.pub").write_bytes(public)
    (tmp_path / "other.pub").write_bytes(signature.new_key()[1])
    (tmp_path / "sig").write_bytes(base64.b64decode(signed))
    (tmp_path / "payload").write_bytes(payload)
    (tmp_path / "tampered").write_bytes(payload.replace(b"team", b"evil"))
    (tmp_path / "digest").write_bytes(signature.simple_payload(Digest.of(b"other"), "ghcr.io/team/iris"))

    def says(key, file):
        words = ("dgst", "-sha256", "-verify", tmp_path / key, "-signature", tmp_path / "sig", tmp_path / file)
        return openssl(*words).stdout

    assert says("key.pub", "payload") == b"Verified OK\n"
    assert says("other.pub", "payload") != b"Verified OK\n"
    assert says("key.pub", "tampered") != b"Verified OK\n"
    assert says("key.pub", "digest") != b"Verified OK\n"
