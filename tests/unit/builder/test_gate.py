"""The statement that an image passed its test."""

import json

from corten.builder import artifact
from corten.builder.gate import PREDICATE, attach_gate
from corten.core.digest import Digest
from corten.core.image import MANIFEST
from corten.store.layout import Layout

CODE = Digest.of(b"code")


def test_it_says_of_which_image_what_was_checked_and_with_which_example(tmp_path):
    layout = Layout(tmp_path)
    manifest = layout.put(b"{}", MANIFEST)
    (made,) = attach_gate(layout, manifest, name="iris", code=CODE, checks=("predict: recorded", "readyz"))
    statement = json.loads(artifact.read(layout, made))
    assert statement["subject"] == [{"name": "iris", "digest": {"sha256": manifest.digest.hex}}]
    assert statement["predicateType"] == PREDICATE
    assert statement["predicate"]["result"] == "PASSED"
    assert statement["predicate"]["passedTests"] == ["predict: recorded", "readyz"]
    assert statement["predicate"]["configuration"][0]["digest"] == {"sha256": CODE.hex}


def test_passing_again_is_the_same_statement_and_another_one_takes_its_place(tmp_path):
    layout = Layout(tmp_path)
    manifest = layout.put(b"{}", MANIFEST)
    first = attach_gate(layout, manifest, name="iris", code=CODE, checks=("readyz",))
    again = attach_gate(layout, manifest, name="iris", code=CODE, checks=("readyz",))
    assert [one.digest for one in again] == [one.digest for one in first]
    (other,) = attach_gate(layout, manifest, name="iris", code=CODE, checks=("readyz", "predict: recorded"))
    assert [one.digest for one in layout.referrers(manifest.digest)] == [other.digest]
