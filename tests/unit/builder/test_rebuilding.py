"""The plan of an image, found again in the image and its lock."""

from __future__ import annotations

from dataclasses import replace

import pytest
import small_image

from corten.builder import image as documents
from corten.builder.rebuilding import plan_again
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import LayerKind
from corten.errors import NotFoundError, PolicyError, UsageError


@pytest.fixture
def scratch(tmp_path):
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def stored(tmp_path, **options):
    return small_image.store(Home(tmp_path), small_image.plan(**options))


def test_the_plan_found_again_makes_the_same_config_and_manifest(tmp_path, scratch):
    small = stored(tmp_path, labels={"team": "fraud", "org.opencontainers.image.title": "another title"})

    plan = plan_again(small.image, small.plan.lock, small.layout, scratch)

    layers = small.image.layers
    config = small.layout.put(documents.config_json(plan, layers), "x")
    assert config.digest == Digest.of(documents.config_json(small.plan, layers))
    assert plan.labels == {"team": "fraud", "org.opencontainers.image.title": "another title"}
    assert plan.spec == small.plan.spec


def test_weights_and_code_are_taken_out_of_the_image_as_they_were(tmp_path, scratch):
    small = stored(tmp_path)

    plan = plan_again(small.image, small.plan.lock, small.layout, scratch)

    ((weights,),) = [group.files for group in plan.weights]
    assert (weights.name, weights.path.read_bytes()) == ("m.joblib", b"weights")
    (code,) = plan.code
    assert code.name == "run.sh"
    assert code.path.stat().st_mode & 0o100


def test_an_image_on_an_unknown_base_cannot_be_built_again(tmp_path, scratch):
    small = stored(tmp_path)

    with pytest.raises(UsageError) as caught:
        plan_again(small.image, replace(small.plan.lock, release="forky"), small.layout, scratch)
    assert caught.value.code == "rebuild.foreign"


def test_an_image_of_another_builder_cannot_be_built_again(tmp_path, scratch):
    small = stored(tmp_path)

    with pytest.raises(UsageError) as caught:
        plan_again(replace(small.image, labels={}), small.plan.lock, small.layout, scratch)
    assert caught.value.code == "rebuild.foreign"


def test_weights_that_are_not_what_the_image_says_are_refused(tmp_path, scratch):
    small = stored(tmp_path)
    path = small.layout.path(next(one for one in small.image.layers if one.kind is LayerKind.WEIGHTS).digest)
    path.write_bytes(path.read_bytes().replace(b"weights", b"WEIGHTS"))

    with pytest.raises(PolicyError) as caught:
        plan_again(small.image, small.plan.lock, small.layout, scratch)
    assert caught.value.code == "layer.wrong_content"


def test_a_missing_layer_is_named(tmp_path, scratch):
    small = stored(tmp_path)
    small.layout.path(small.image.layers[-1].digest).unlink()

    with pytest.raises(NotFoundError) as caught:
        plan_again(small.image, small.plan.lock, small.layout, scratch)
    assert caught.value.code == "store.blob_missing"
