"""Signatures under their tag: one manifest for all signers, told apart by what they signed."""

from __future__ import annotations

import json

import pytest

from corten.core.digest import Digest
from corten.core.image import CONFIG, MANIFEST, NAME_ANNOTATION, Descriptor
from corten.store.layout import Layout
from corten.store.signature_tag import (
    PAYLOAD_TYPE,
    SIGNATURE_ANNOTATION,
    documents,
    keep,
    payloads_of,
    signature_tag,
    subject_of,
    union,
)

SUBJECT = Digest.of(b"image")


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "store")


def payload(layout, text, signed):
    put = layout.put(text, PAYLOAD_TYPE)
    return Descriptor(put.media_type, put.digest, put.size_bytes, {SIGNATURE_ANNOTATION: signed})


def test_the_tag_says_what_it_is_about_and_no_other_tag_does() -> None:
    tag = signature_tag(SUBJECT)
    assert tag == f"sha256-{SUBJECT.hex}.sig"
    assert subject_of(tag) == SUBJECT
    for other in (
        "latest",
        f"sha256-{SUBJECT.hex}",
        f"sha256-{SUBJECT.hex}.att",
        "sha256-.sig",
        f"sha256:{SUBJECT.hex}.sig",
    ):
        assert subject_of(other) is None


def test_two_signers_share_the_tag_and_the_same_one_is_there_once(layout) -> None:
    ours, theirs = payload(layout, b"p", "ours"), payload(layout, b"p", "theirs")
    keep(layout, SUBJECT, [ours])
    keep(layout, SUBJECT, [ours, theirs])
    keep(layout, SUBJECT, [theirs])

    assert {one.annotations[SIGNATURE_ANNOTATION] for one in payloads_of(layout, SUBJECT)} == {"ours", "theirs"}
    assert len([one for one in layout.listed() if one.annotations.get(NAME_ANNOTATION) == signature_tag(SUBJECT)]) == 1


def test_it_is_no_image_and_no_referrer(layout) -> None:
    keep(layout, SUBJECT, [payload(layout, b"p", "s")])

    assert layout.images() == ()
    assert layout.referrers(SUBJECT) == ()


def test_the_documents_are_those_cosign_writes(layout) -> None:
    one = payload(layout, b"p", "s")
    config, manifest = documents([one])
    document = json.loads(manifest)

    assert document["mediaType"] == MANIFEST
    assert "subject" not in document
    assert (document["config"]["mediaType"], document["config"]["digest"]) == (CONFIG, str(Digest.of(config)))
    assert json.loads(config)["rootfs"]["diff_ids"] == [str(one.digest)]
    assert document["layers"] == [
        {
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": str(one.digest),
            "size": 1,
            "annotations": {"dev.cosignproject.cosign/signature": "s"},
        }
    ]


def test_the_order_of_signers_does_not_count(layout) -> None:
    first, second = payload(layout, b"a", "1"), payload(layout, b"b", "2")
    assert documents(union([first], [second])) == documents(union([second], [first]))
