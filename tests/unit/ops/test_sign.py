"""Sign and verify images of a store."""

from __future__ import annotations

import pytest
import small_image

from corten.builder import artifact
from corten.builder.artifact import BUNDLE_TYPE
from corten.core.home import Home
from corten.core.image import LayerKind
from corten.errors import PolicyError, UsageError
from corten.ops.keygen import keygen
from corten.ops.sign import sign
from corten.ops.verify import verify


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
