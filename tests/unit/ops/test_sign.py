"""Sign and verify images of a store."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import small_image

from corten.builder import artifact, signature
from corten.builder.artifact import BUNDLE_TYPE
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import LayerKind
from corten.errors import PolicyError, UsageError
from corten.ops.keygen import keygen
from corten.ops.sign import sign
from corten.ops.verify import verify
from corten.store import signature_tag


@pytest.fixture
def small(tmp_path):
    stored = small_image.store(Home(tmp_path))
    stored.attach()
    return stored


@pytest.fixture
def keys(tmp_path):
    return keygen(tmp_path / "ours", env={})


def refused(small, keys):
    with pytest.raises(PolicyError) as caught:
        verify("iris", keys.public, home=small.home)
    assert caught.value.exit_code == 7
    return caught.value.code


def test_a_signed_image_is_verified_with_its_sbom_and_provenance(small, keys):
    sign("iris", keys.private, home=small.home, env={})

    found = verify("iris", keys.public, home=small.home)

    assert found.digest == small.image.digest
    assert found.statements == (
        "https://sigstore.dev/cosign/sign/v1",
        "https://cyclonedx.org/bom",
        "https://slsa.dev/provenance/v1",
    )


def without_bundles(small):
    """The image as an older tool signs it."""
    bundles = [one.digest for one in small.layout.referrers(small.image.digest, BUNDLE_TYPE)]
    small.layout.attach(small.image.digest, [], instead_of=bundles)


def change_payload(small, **changes):
    """Put another payload, or another signature, under the tag."""
    (before,) = signature_tag.payloads_of(small.layout, small.image.digest)
    payload = changes.get("payload", small.layout.read(before.digest))
    put = small.layout.put(payload, signature_tag.PAYLOAD_TYPE)
    notes = {
        signature_tag.SIGNATURE_ANNOTATION: changes.get(
            "signed", before.annotations[signature_tag.SIGNATURE_ANNOTATION]
        )
    }
    small.layout.forget([small.layout.named(signature_tag.signature_tag(small.image.digest))])
    signature_tag.keep(small.layout, small.image.digest, [replace(put, annotations=notes)])


def test_the_signature_of_older_tools_is_enough(small, keys):
    sign("iris", keys.private, home=small.home, env={})
    without_bundles(small)

    assert verify("iris", keys.public, home=small.home).statements == ("cosign container image signature",)


def test_it_says_the_digest_and_the_name_the_image_is_to_have(small, keys):
    sign("iris", keys.private, identity="ghcr.io/team/iris", home=small.home, env={})
    (payload,) = signature_tag.payloads_of(small.layout, small.image.digest)

    assert json.loads(small.layout.read(payload.digest)) == {
        "critical": {
            "identity": {"docker-reference": "ghcr.io/team/iris"},
            "image": {"docker-manifest-digest": str(small.image.digest)},
            "type": "cosign container image signature",
        },
        "optional": None,
    }


@pytest.mark.parametrize("what", ["another key", "another image", "changed payload", "no signature", "another kind"])
def test_a_signature_of_older_tools_that_is_not_right_is_refused(small, keys, tmp_path, what):
    key = keygen(tmp_path / "theirs", env={}).private if what == "another key" else keys.private
    sign("iris", key, home=small.home, env={})
    without_bundles(small)
    own = signature.private_key(keys.private.read_bytes(), b"", "")
    good = signature.simple_payload(small.image.digest, "iris")
    match what:
        case "another image":
            payload = signature.simple_payload(Digest.of(b"other"), "iris")
            change_payload(small, payload=payload, signed=signature.simple_signature(payload, own))
        case "changed payload":
            change_payload(small, payload=good.replace(b'"iris"', b'"evil"'))
        case "no signature":
            change_payload(small, signed="?")
        case "another kind":
            payload = good.replace(b"cosign container", b"atomic container")
            change_payload(small, payload=payload, signed=signature.simple_signature(payload, own))
        case _:
            pass

    assert refused(small, keys) == "signature.refused"


def test_an_image_nobody_signed_is_refused(small, keys):
    assert refused(small, keys) == "signature.missing"


def test_an_image_signed_by_another_key_is_refused(small, keys, tmp_path):
    sign("iris", keygen(tmp_path / "theirs", env={}).private, home=small.home, env={})

    assert refused(small, keys) == "signature.refused"


def test_a_signature_of_another_image_does_not_help(small, keys):
    sign("iris", keys.private, home=small.home, env={})
    signed = small.layout.referrers(small.image.digest, BUNDLE_TYPE)
    other = small_image.store(small.home, weights=b"others")
    small.layout.attach(other.image.digest, signed)

    assert refused(small, keys) == "signature.refused"


def test_a_signed_provenance_alone_does_not_make_a_signed_image(small, keys):
    sign("iris", keys.private, home=small.home, env={})
    image_signature, *rest = small.layout.referrers(small.image.digest, BUNDLE_TYPE)
    small.layout.attach(small.image.digest, rest, instead_of=[image_signature.digest])
    small.layout.forget([small.layout.named(signature_tag.signature_tag(small.image.digest))])

    assert refused(small, keys) == "signature.refused"


def test_a_signed_image_with_a_damaged_layer_is_refused(small, keys):
    sign("iris", keys.private, home=small.home, env={})
    weights = next(one for one in small.image.layers if one.kind is LayerKind.WEIGHTS)
    small.layout.path(weights.digest).write_bytes(b"other weights")

    assert refused(small, keys) == "store.blob_corrupt"


def test_signing_again_changes_nothing_and_two_keys_may_sign(small, keys, tmp_path):
    theirs = keygen(tmp_path / "theirs", env={})
    sign("iris", keys.private, home=small.home, env={})
    once = small.layout.referrers(small.image.digest, BUNDLE_TYPE)
    sign("iris", keys.private, home=small.home, env={})
    assert small.layout.referrers(small.image.digest, BUNDLE_TYPE) == once

    sign("iris", theirs.private, home=small.home, env={})

    assert verify("iris", keys.public, home=small.home) == verify("iris", theirs.public, home=small.home)


def test_a_newer_provenance_takes_the_place_of_the_signed_one(small, keys):
    sign("iris", keys.private, home=small.home, env={})
    small.attach(None)
    sign("iris", keys.private, home=small.home, env={})

    bundles = small.layout.referrers(small.image.digest, BUNDLE_TYPE)
    assert len(bundles) == 3
    assert all(artifact.read(small.layout, one) for one in bundles)


def test_a_key_is_readable_by_its_owner_only_and_never_overwritten(keys, tmp_path):
    assert keys.private.stat().st_mode & 0o777 == 0o600
    before = keys.private.read_bytes()
    with pytest.raises(UsageError) as caught:
        keygen(tmp_path / "ours", env={})
    assert caught.value.code == "signature.key_exists"
    assert keys.private.read_bytes() == before


def test_a_password_encrypts_the_key_and_is_asked_for_by_signing(small, tmp_path):
    env = {"CORTEN_SIGN_PASSWORD": "open sesame"}
    keys = keygen(tmp_path / "closed", env=env)

    assert keys.encrypted
    assert b"ENCRYPTED" in keys.private.read_bytes()
    with pytest.raises(UsageError):
        sign("iris", keys.private, home=small.home, env={})
    sign("iris", keys.private, home=small.home, env=env)
    assert verify("iris", keys.public, home=small.home)


def test_a_missing_key_is_named(small, tmp_path):
    with pytest.raises(UsageError) as caught:
        verify("iris", tmp_path / "nowhere.pub", home=small.home)
    assert (caught.value.code, "nowhere.pub" in caught.value.what) == ("signature.bad_key", True)
