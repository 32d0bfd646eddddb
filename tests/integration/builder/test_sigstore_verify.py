"""Our bundles by sigstore's own verifier for JavaScript (npm's `@sigstore/verify`), as npm checks its packages by it."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest

from corten.builder import signature
from corten.core.digest import Digest

pytestmark = [pytest.mark.sigstore]
IMAGE = Digest.of(b"image")
PACKAGES = ("@sigstore/verify@4.1.3", "@sigstore/bundle@5.0.0", "@sigstore/protobuf-specs@0.5.1")
# The thresholds are what `--insecure-ignore-tlog=true` is to cosign: no log, no timestamp, a key instead of a certificate.
SCRIPT = """
const { readFileSync } = require('node:fs')
const { createPublicKey } = require('node:crypto')
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify')
const { bundleFromJSON } = require('@sigstore/bundle')
const { TrustedRoot } = require('@sigstore/protobuf-specs')
const [bundle, key] = process.argv.slice(2)
const publicKey = createPublicKey(readFileSync(key))
const trust = toTrustMaterial(TrustedRoot.fromJSON({}), () => ({ publicKey, validFor: () => true }))
const verifier = new Verifier(trust, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 })
const parsed = bundleFromJSON(JSON.parse(readFileSync(bundle)))
try {
  verifier.verify(toSignedEntity(parsed))
} catch (error) {
  console.log(`refused: ${error.code}`)
  process.exit(0)
}
console.log(parsed.content.dsseEnvelope.payload.toString())
"""


@pytest.fixture(scope="module")
def verifier(tmp_path_factory):
    """A function: a bundle and a key's PEM to what the verifier says is signed, or why it refuses."""
    folder = tmp_path_factory.mktemp("npm")
    words = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "verify.cjs").write_text(SCRIPT)

    def verify(bundle, key):
        (folder / "bundle.json").write_bytes(bundle)
        (folder / "key.pub").write_bytes(key)
        words = ["node", "verify.cjs", "bundle.json", "key.pub"]
        return subprocess.run(words, capture_output=True, text=True, timeout=30, cwd=folder, check=True).stdout.strip()

    return verify


@pytest.fixture(scope="module")
def signed():
    """A bundle about an image, and the key it is to be verified by."""
    private, public = signature.new_key()
    return signature.bundle(signature.image_statement(IMAGE), signature.private_key(private, b"", "")).data, public


def test_a_bundle_is_verified_by_its_key_and_says_which_image(verifier, signed):
    statement = json.loads(verifier(*signed))

    assert statement["subject"] == [{"digest": {"sha256": IMAGE.hex}}]
    assert statement["predicateType"] == "https://sigstore.dev/cosign/sign/v1"


def test_another_key_is_refused(verifier, signed):
    assert verifier(signed[0], signature.new_key()[1]) == "refused: SIGNATURE_ERROR"


def test_a_tampered_statement_is_refused(verifier, signed):
    document = json.loads(signed[0])
    payload = signature.image_statement(Digest.of(b"another image"))
    document["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()

    assert verifier(json.dumps(document).encode(), signed[1]) == "refused: SIGNATURE_ERROR"


def test_an_sbom_and_a_provenance_are_verified_like_the_image(verifier):
    private, public = signature.new_key()
    key = signature.private_key(private, b"", "")
    bundle = signature.bundle(signature.sbom_statement(IMAGE, b'{"bomFormat": "CycloneDX"}'), key).data

    assert json.loads(verifier(bundle, public))["predicateType"] == "https://cyclonedx.org/bom"
