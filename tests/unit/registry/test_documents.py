import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.digest import Digest
from corten.core.image import CONFIG, INDEX, LAYER, MANIFEST, Descriptor
from corten.errors import RemoteError
from corten.registry.client import next_page
from corten.registry.documents import check_depth, read_manifest, referrers_index, referrers_tag, unique

BLOB = {"mediaType": LAYER, "digest": str(Digest.of(b"layer")), "size": 5}
CONFIG_BLOB = {"mediaType": CONFIG, "digest": str(Digest.of(b"{}")), "size": 2}
IMAGE = {"schemaVersion": 2, "mediaType": MANIFEST, "config": CONFIG_BLOB, "layers": [BLOB]}


def read(document, media_type=MANIFEST):
    return read_manifest(json.dumps(document).encode(), media_type, "test")


def test_an_image_needs_its_config_and_its_layers():
    found = read(IMAGE)
    assert [blob.digest for blob in found.blobs] == [Digest.of(b"{}"), Digest.of(b"layer")]
    assert found.children == ()
    assert found.subject is None


def test_an_index_needs_its_manifests():
    found = read({"schemaVersion": 2, "mediaType": INDEX, "manifests": [{**BLOB, "mediaType": MANIFEST}]}, "")
    assert [child.digest for child in found.children] == [Digest.of(b"layer")]


def test_a_referrer_is_listed_with_its_type_or_that_of_its_config():
    subject = {"mediaType": MANIFEST, "digest": str(Digest.of(b"subject")), "size": 7}
    typed = read({**IMAGE, "artifactType": "application/x", "subject": subject, "annotations": {"a": "b"}})
    assert (typed.descriptor.artifact_type, typed.subject) == ("application/x", Digest.of(b"subject"))
    assert typed.descriptor.annotations == {"a": "b"}
    assert read({**IMAGE, "subject": subject}).descriptor.artifact_type == CONFIG


@pytest.mark.parametrize(
    "document",
    [
        [], None, "x", {}, {"mediaType": "text/html"}, {**IMAGE, "config": None}, {**IMAGE, "layers": [1]},
        {**IMAGE, "layers": [{**BLOB, "size": -1}]}, {**IMAGE, "layers": [{**BLOB, "size": "5"}]},
        {**IMAGE, "layers": [{**BLOB, "size": True}]}, {**IMAGE, "layers": [{**BLOB, "digest": "sha256:../../x"}]},
        {**IMAGE, "layers": [BLOB] * 5000}, {**IMAGE, "annotations": 5}, {**IMAGE, "subject": "x"},
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(document):
    with pytest.raises(RemoteError) as refused:
        read(document)
    assert refused.value.code == "registry.malformed"


@given(st.binary(max_size=80))
def test_any_bytes_are_a_manifest_or_refused(data):
    with pytest.raises(RemoteError):
        read_manifest(data, MANIFEST, "test")


def test_deep_nesting_of_json_and_of_indexes_is_refused():
    with pytest.raises(RemoteError):
        read_manifest(b"[" * 200_000, MANIFEST, "test")
    with pytest.raises(RemoteError):
        check_depth(9, "test")


def test_the_list_of_referrers_reads_back_in_its_order():
    entries = [Descriptor(MANIFEST, Digest.of(bytes([n])), n, {"k": "v"}, "application/x") for n in (2, 1, 3)]
    data = referrers_index(entries)
    assert list(read_manifest(data, INDEX, "test").children) == entries
    assert referrers_index(entries) == data
    assert list(unique([*entries, *entries])) == entries


def test_the_fallback_tag_is_the_digest_with_a_dash():
    assert referrers_tag(Digest("a" * 64)) == "sha256-" + "a" * 64


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ('</v2/a/referrers/x?n=1>; rel="next"', "/v2/a/referrers/x?n=1"),
        ("<https://r.example/x>; rel=next", "https://r.example/x"),
        ('<x>; rel="prev"', ""),
        ("", ""),
    ],
)
def test_the_next_page_is_what_a_link_says(link, target):
    assert next_page(link) == target
