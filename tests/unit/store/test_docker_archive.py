"""The archive `docker load` takes: what is in it, read by tarfile."""

import gzip
import io
import json
import tarfile

import pytest
from backports import zstd

from corten.core.digest import Digest
from corten.core.image import LAYER, LayerKind
from corten.errors import NotFoundError, PolicyError
from corten.store.docker_archive import DockerArchive
from corten.store.layout import Layout
from corten.testing.tiny_image import TinyImage

FORMS = {"": bytes, "+gzip": gzip.compress, "+zstd": zstd.compress}


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "store")


def plain_tar(name="a", data=b"content"):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def image_of(layout, *forms):
    tiny = TinyImage(layout)
    layers = []
    for number, form in enumerate(forms):
        data = plain_tar(f"file{number}", bytes(1000 * number))
        layers.append(
            tiny.raw_layer(FORMS[form](data), LayerKind.CODE, diff_id=Digest.of(data), media_type=LAYER + form)
        )
    return layout.image(tiny.image(layers, ["/x"]))


def members(layout, image, **options):
    data = b"".join(DockerArchive.of(layout, image, **options).stream(layout))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_layers_are_plain_whatever_they_are_stored_as(layout):
    image = image_of(layout, "", "+gzip", "+zstd")
    found = members(layout, image, names=["localhost/x:1"])
    for number, layer in enumerate(image.layers):
        assert found[f"{layer.diff_id.hex}/layer.tar"] == plain_tar(f"file{number}", bytes(1000 * number))


def test_the_manifest_leads_to_config_and_layers_in_their_order(layout):
    image = image_of(layout, "", "+zstd")
    found = members(layout, image, names=["localhost/x:1"])
    (manifest,) = json.loads(found["manifest.json"])
    assert manifest["RepoTags"] == ["localhost/x:1"]
    assert manifest["Layers"] == [f"{layer.diff_id.hex}/layer.tar" for layer in image.layers]
    config = found[manifest["Config"]]
    assert Digest.of(config).hex == manifest["Config"].removesuffix(".json") == layout.config(image.digest).hex


def test_a_layer_that_is_there_already_goes_empty(layout):
    image = image_of(layout, "", "")
    found = members(layout, image, there=[image.layers[0].diff_id])
    sizes = [len(found[f"{layer.diff_id.hex}/layer.tar"]) for layer in image.layers]
    assert sizes[0] == 0
    assert sizes[1] > 0


def test_the_same_image_gives_the_same_bytes(layout):
    image = image_of(layout, "+zstd", "+gzip")
    archive = DockerArchive.of(layout, image, names=["a"])
    assert b"".join(archive.stream(layout)) == b"".join(archive.stream(layout))


def test_a_layer_that_is_missing_or_broken_is_named(layout):
    image = image_of(layout, "+zstd")
    path = layout.path(image.layers[0].digest)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(PolicyError) as caught:
        list(DockerArchive.of(layout, image).stream(layout))
    assert caught.value.code == "layer.wrong_content"
    path.unlink()
    with pytest.raises(NotFoundError):
        list(DockerArchive.of(layout, image).stream(layout))
