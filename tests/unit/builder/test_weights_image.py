"""The weights image has the image's own weight blobs and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from corten.builder.weights_image import MODELPACK_TYPE, store_weights, weights_name, weights_of
from corten.core.digest import Digest
from corten.core.image import LAYER, Compression, Image, Layer, LayerKind
from corten.core.model import ModelSpec
from corten.core.platform import Platform
from corten.errors import UsageError
from corten.store.layout import Layout

SPEC = ModelSpec(name="iris", adapter="sklearn", files=("iris.joblib",))


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "store")


@pytest.fixture
def image(layout):
    layers = []
    for kind in (LayerKind.BASE, LayerKind.WHEELS, LayerKind.WEIGHTS, LayerKind.WEIGHTS, LayerKind.CODE):
        blob = layout.put(f"{kind.value} {len(layers)}".encode(), LAYER)
        size = blob.size_bytes
        layers.append(
            Layer(kind, f"{kind.value}-{len(layers)}", blob.digest, blob.digest, size, size, Compression.NONE)
        )
    return Image(Digest("a" * 64), Platform("amd64"), tuple(layers), {}, (), "/", {})


def test_its_layers_are_the_images_weights_in_order_and_no_blob_is_added_but_documents(layout, image) -> None:
    weights = layout.image(store_weights(SPEC, [image], layout).digest)
    assert [layer.digest for layer in weights.layers] == [layer.digest for layer in weights_of(image)]
    assert all(layer.media_type == LAYER for layer in weights.layers), "nothing to decompress, nothing to change"
    assert weights.entrypoint == ()


def test_several_platforms_share_the_blobs_and_each_finds_its_image(layout, image) -> None:
    other = replace(image, platform=Platform("arm64"))
    index = store_weights(SPEC, [image, other], layout)
    found = [layout.image(index.digest, platform) for platform in (Platform("amd64"), Platform("arm64"))]
    assert [one.platform.architecture for one in found] == ["amd64", "arm64"]
    assert found[0].layers == found[1].layers


def test_a_modelpack_manifest_of_the_same_blobs_is_attached(layout, image) -> None:
    weights = store_weights(SPEC, [image], layout)
    (described,) = layout.referrers(weights.digest, MODELPACK_TYPE)
    document = json.loads(layout.read(described.digest))
    assert document["subject"]["digest"] == str(weights.digest)
    assert [layer["digest"] for layer in document["layers"]] == [str(layer.digest) for layer in weights_of(image)]
    assert {layer["mediaType"] for layer in document["layers"]} == {"application/vnd.cncf.model.weight.v1.tar"}
    config = json.loads(layout.read(Digest.parse(document["config"]["digest"])))
    assert config["descriptor"] == {"name": "iris"}
    assert config["modelfs"]["diffIds"] == [str(layer.diff_id) for layer in weights_of(image)]


def test_the_same_weights_give_the_same_digest_whatever_else_the_image_holds(layout, image) -> None:
    recoded = replace(image, layers=image.layers[:-1], digest=Digest("b" * 64))
    assert store_weights(SPEC, [image], layout) == store_weights(SPEC, [recoded], layout)


def test_a_model_of_code_alone_has_no_weights_image(layout, image) -> None:
    bare = replace(image, layers=image.layers[:2])
    with pytest.raises(UsageError) as caught:
        store_weights(SPEC, [bare], layout)
    assert caught.value.code == "build.no_weights"


def test_a_name_that_would_get_too_long_is_refused() -> None:
    assert weights_name("iris") == "iris-weights"
    with pytest.raises(UsageError, match="not a name"):
        weights_name("x" * 40)
