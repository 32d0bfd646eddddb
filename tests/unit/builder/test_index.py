"""An index says which manifest is for which platform, in bytes that depend on nothing else."""

from __future__ import annotations

import json

from corten.builder.index import index_json
from corten.core.digest import Digest
from corten.core.image import INDEX, MANIFEST, Descriptor
from corten.core.platform import Platform

AMD64 = (Platform("amd64"), Descriptor(MANIFEST, Digest("a" * 64), 7))
ARM64 = (Platform("arm64"), Descriptor(MANIFEST, Digest("b" * 64), 8, annotations={"only": "here"}))


def test_an_index_names_each_manifest_with_its_platform() -> None:
    document = json.loads(index_json([AMD64, ARM64]))
    assert document["mediaType"] == INDEX
    assert [(entry["digest"][7], entry["platform"]["architecture"]) for entry in document["manifests"]] == [
        ("a", "amd64"),
        ("b", "arm64"),
    ]


def test_the_order_in_which_platforms_were_asked_for_makes_no_difference() -> None:
    assert index_json([AMD64, ARM64]) == index_json([ARM64, AMD64])


def test_annotations_of_the_store_stay_out_of_the_index() -> None:
    assert b"only" not in index_json([ARM64])
