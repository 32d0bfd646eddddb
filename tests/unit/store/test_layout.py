"""The store: an OCI layout that is valid after every write, whoever is killed in between."""

from __future__ import annotations

import errno
import json
import os
import threading
from dataclasses import replace

import pytest

from corten.core.digest import Digest
from corten.core.image import CONFIG, INDEX, MANIFEST, Compression, Descriptor, LayerKind
from corten.core.platform import Platform
from corten.errors import CortenError, NotFoundError, PolicyError, UsageError
from corten.store.documents import descriptor_to
from corten.store.layout import Layout


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "store")


@pytest.fixture
def put_image(layout):
    """Store a small but whole image; returns its manifest's descriptor and its layer's digest."""

    def make(text: str = "layer", **config):
        layer = layout.put(text.encode(), "application/vnd.oci.image.layer.v1.tar")
        document = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest)]},
            "config": {"Env": ["A=b=c"], "Entrypoint": ["/bin/x"], "WorkingDir": "/app", "Labels": {"l": "t"}},
        } | config
        described = layout.put(json.dumps(document).encode(), CONFIG)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": str(described.digest), "size": described.size_bytes},
            "layers": [
                {
                    "mediaType": layer.media_type,
                    "digest": str(layer.digest),
                    "size": layer.size_bytes,
                    "annotations": {
                        "dev.corten.layer.kind": "weights",
                        "org.opencontainers.image.title": "w",
                        "dev.corten.layer.tar-bytes": "5",
                    },
                }
            ],
        }
        return layout.put(json.dumps(manifest).encode(), MANIFEST), layer.digest

    return make


def test_a_blob_is_found_by_its_digest(layout) -> None:
    descriptor = layout.put(b"hello", "text/plain")

    assert descriptor == Descriptor("text/plain", Digest.of(b"hello"), 5)
    assert layout.has(descriptor.digest)
    assert layout.read(descriptor.digest) == b"hello"


def test_the_folder_is_an_oci_layout(layout) -> None:
    layout.put(b"x", "text/plain")

    assert json.loads((layout.root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((layout.root / "index.json").read_bytes())["manifests"] == []
    assert (layout.root / "blobs" / "sha256" / Digest.of(b"x").hex).stat().st_mode & 0o777 == 0o644


def test_a_reader_of_an_empty_store_makes_nothing(layout) -> None:
    assert layout.images() == ()
    assert not layout.has(Digest.of(b"x"))
    with pytest.raises(NotFoundError):
        layout.resolve("iris")
    assert not layout.root.exists()


def test_a_blob_appears_only_when_it_is_whole(layout) -> None:
    with layout.writer() as blob:
        blob.write(b"hel")
        assert not list((layout.root / "blobs" / "sha256").iterdir())
        blob.write(memoryview(b"lo"))

    assert layout.read(Digest.of(b"hello")) == b"hello"
    assert (blob.digest, blob.size_bytes) == (Digest.of(b"hello"), 5)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_write_that_fails_leaves_nothing(layout, error) -> None:
    def fail() -> None:
        with layout.writer() as blob:
            blob.write(b"half")
            raise error

    with pytest.raises(error):
        fail()

    assert not list((layout.root / ".incoming").iterdir())
    assert not list((layout.root / "blobs" / "sha256").iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_with_a_way_out_and_leaves_nothing(layout, monkeypatch, number) -> None:
    layout.put(b"before", "text/plain")

    def full(descriptor, data):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr("corten.store.writing.os.write", full)
        with pytest.raises(CortenError) as caught:
            layout.put(b"after", "text/plain")

    assert caught.value.code == "store.disk_full"
    assert "MB free" in caught.value.why
    assert "CORTEN_HOME" in caught.value.hint
    assert not list((layout.root / ".incoming").iterdir())
    assert not layout.has(Digest.of(b"after"))
    layout.put(b"after", "text/plain")


def test_short_writes_are_continued(layout, monkeypatch) -> None:
    write = os.write
    monkeypatch.setattr("corten.store.writing.os.write", lambda descriptor, data: write(descriptor, data[:3]))

    layout.put(b"hello world", "text/plain")

    assert layout.read(Digest.of(b"hello world")) == b"hello world"


def test_a_flipped_bit_is_noticed_and_put_aside(layout) -> None:
    digest = layout.put(b"hello", "text/plain").digest
    layout.path(digest).write_bytes(b"hellp")

    with pytest.raises(PolicyError) as caught:
        layout.read(digest)

    assert caught.value.code == "store.blob_corrupt"
    assert not layout.has(digest)
    assert (layout.root / "quarantine" / digest.hex).read_bytes() == b"hellp"


def test_putting_again_mends_a_damaged_blob(layout) -> None:
    digest = layout.put(b"hello", "text/plain").digest
    layout.path(digest).write_bytes(b"hellp")

    layout.put(b"hello", "text/plain")

    assert layout.read(digest) == b"hello"


def test_a_name_leads_to_an_image_and_moves(layout, put_image) -> None:
    (first, _), (second, _) = put_image("one"), put_image("two")
    layout.tag("iris", first)
    layout.tag("iris", second)

    assert layout.resolve("iris").digest == second.digest
    assert layout.resolve(str(first.digest)).digest == first.digest, "what lost its name is still there"
    assert [name for name, _ in layout.images()] == ["", "iris"]


def test_tagging_twice_changes_nothing(layout, put_image) -> None:
    descriptor, _ = put_image()
    layout.tag("iris", descriptor)
    before = (layout.root / "index.json").read_bytes()
    layout.tag("iris", descriptor)

    assert (layout.root / "index.json").read_bytes() == before


def test_one_image_may_have_two_names(layout, put_image) -> None:
    descriptor, _ = put_image()
    layout.tag("a", descriptor)
    layout.tag("b", descriptor)
    layout.untag("a")

    assert layout.resolve("b").digest == descriptor.digest
    assert layout.resolve(descriptor.digest.short).digest == descriptor.digest
    with pytest.raises(NotFoundError):
        layout.resolve("a")


def test_untagging_what_is_not_there_says_what_is(layout, put_image) -> None:
    layout.tag("iris", put_image()[0])

    with pytest.raises(NotFoundError) as caught:
        layout.untag("iri")

    assert "iris" in caught.value.why


def test_a_model_in_an_images_place_is_told_what_makes_an_image_of_it(layout, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").touch()
    other = "corten build SOURCE"
    for wanted, hint in [
        ("model.py:Model", "corten build model.py:Model"),
        ("other.py", other),
        ("a" * 300, other),
        (":Model", other),
    ]:
        with pytest.raises(NotFoundError) as caught:
            layout.resolve(wanted)
        assert caught.value.hint.startswith(hint)


def test_of_several_names_all_are_forgotten_or_none(layout, put_image) -> None:
    descriptor, _ = put_image()
    layout.tag("a", descriptor)
    layout.tag("b", descriptor)

    with pytest.raises(NotFoundError):
        layout.untag("a", "b", "c")
    assert [name for name, _ in layout.images()] == ["a", "b"]

    layout.untag("a", "b")
    assert layout.images() == (("", replace(descriptor, annotations={})),)


def test_an_image_that_keeps_a_name_is_not_listed_without_one_besides(layout, put_image) -> None:
    older, newer = put_image()[0], put_image("newer")[0]
    layout.tag("a", older)
    layout.tag("b", older)
    layout.tag("a", newer)

    assert [(name, one.digest) for name, one in layout.images()] == [("b", older.digest), ("a", newer.digest)]


@pytest.mark.parametrize("form", ["{hex}", "sha256:{hex}", "{short}", "sha256:{short}", "iris@sha256:{hex}"])
def test_digests_resolve_in_every_form_people_write(layout, put_image, form) -> None:
    descriptor, _ = put_image()
    layout.tag("iris", descriptor)
    text = form.format(hex=descriptor.digest.hex, short=descriptor.digest.short)

    assert layout.resolve(text).digest == descriptor.digest


@pytest.mark.parametrize("text", ["", "sha256:", "ab", "f" * 64, "sha256:zz"])
def test_what_fits_nothing_is_not_found(layout, put_image, text) -> None:
    layout.tag("iris", put_image()[0])

    with pytest.raises(NotFoundError):
        layout.resolve(text)


def test_a_prefix_of_two_images_is_ambiguous(layout) -> None:
    for last in "01":
        layout.tag(f"i{last}", Descriptor(MANIFEST, Digest("a" * 63 + last), 1))

    with pytest.raises(UsageError) as caught:
        layout.resolve("aaaaaaaa")
    assert caught.value.code == "store.ambiguous_digest"


def test_an_image_is_read_as_a_value(layout, put_image) -> None:
    descriptor, layer_digest = put_image("hello")

    image = layout.image(descriptor.digest)

    assert image.digest == descriptor.digest
    assert str(image.platform) == "linux/amd64"
    assert image.env == {"A": "b=c"}
    assert (image.entrypoint, image.working_dir, image.labels) == (("/bin/x",), "/app", {"l": "t"})
    (layer,) = image.layers
    assert (layer.kind, layer.title, layer.digest) == (LayerKind.WEIGHTS, "w", layer_digest)
    assert (layer.size_bytes, layer.tar_bytes, layer.compression) == (5, 5, Compression.NONE)


@pytest.mark.parametrize(
    "config",
    [
        {"rootfs": {"type": "layers", "diff_ids": []}},
        {"rootfs": None},
        {"rootfs": {"diff_ids": ["sha256:../../etc/passwd"]}},
        {"architecture": None, "os": 3, "config": "x"},
        {"config": {"Env": 3}},
    ],
)
def test_a_config_that_does_not_fit_is_refused(layout, put_image, config) -> None:
    descriptor, _ = put_image(**config)

    with pytest.raises(UsageError):
        layout.image(descriptor.digest)


@pytest.mark.parametrize("data", [b"[]", b"{", b"{}", b'{"config": {}}', b'{"config": 3}', b"\xff"])
def test_a_blob_that_is_no_manifest_is_refused(layout, data) -> None:
    descriptor = layout.put(data, MANIFEST)

    with pytest.raises(UsageError):
        layout.image(descriptor.digest)


def test_verifying_hashes_every_layer(layout, put_image) -> None:
    descriptor, layer = put_image("hello")
    assert layout.verify(descriptor.digest).digest == descriptor.digest
    layout.path(layer).write_bytes(b"hellp")

    with pytest.raises(PolicyError) as caught:
        layout.verify(descriptor.digest)

    assert caught.value.code == "store.blob_corrupt"
    assert not layout.has(layer)
    with pytest.raises(NotFoundError):
        layout.verify(descriptor.digest)


def test_many_writers_lose_no_name(layout, put_image) -> None:
    descriptors = [put_image(str(number))[0] for number in range(24)]
    threads = [
        threading.Thread(target=lambda n=number: Layout(layout.root).tag(f"i{n}", descriptors[n]))
        for number in range(24)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(name for name, _ in layout.images()) == sorted(f"i{number}" for number in range(24))


def test_a_broken_index_is_said_with_a_way_out(layout, put_image) -> None:
    layout.tag("iris", put_image()[0])
    (layout.root / "index.json").write_bytes(b'{"manifests": [')

    with pytest.raises(CortenError) as caught:
        layout.images()

    assert caught.value.code == "store.index_broken"
    assert "mv" in caught.value.hint


def test_only_old_leftovers_are_swept(layout) -> None:
    layout.put(b"x", "text/plain")
    for name, age_s in (("old", 90_000), ("new", 10)):
        path = layout.root / ".incoming" / name
        path.write_bytes(b"half a blob")
        os.utime(path, (1_000_000 - age_s, 1_000_000 - age_s))

    assert layout.sweep(now_s=1_000_000) == 1
    assert [path.name for path in (layout.root / ".incoming").iterdir()] == ["new"]
    assert layout.has(Digest.of(b"x"))


def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(CortenError) as caught:
        Layout(tmp_path / "file" / "store").put(b"x", "text/plain")

    assert caught.value.code == "store.write_failed"


def _artifact(layout, subject, text: str, **annotations):
    """A stored artifact manifest of type `x/TEXT` that refers to an image."""
    manifest = {"artifactType": f"x/{text}", "subject": {"mediaType": MANIFEST, "digest": str(subject), "size": 1}}
    described = layout.put(json.dumps(manifest).encode(), MANIFEST)
    return Descriptor(MANIFEST, described.digest, described.size_bytes, annotations, f"x/{text}")


def test_what_is_attached_to_an_image_is_found_by_its_digest_and_is_no_image(layout, put_image) -> None:
    manifest, _ = put_image()
    layout.tag("a", manifest)
    artifacts = [_artifact(layout, manifest.digest, text) for text in ("sbom", "lock")]

    layout.attach(manifest.digest, artifacts)

    assert [one.digest for one in layout.referrers(manifest.digest)] == [one.digest for one in artifacts]
    assert [one.artifact_type for one in layout.referrers(manifest.digest, "x/lock")] == ["x/lock"]
    assert [name for name, _ in layout.images()] == ["a"]
    assert layout.referrers(artifacts[0].digest) == ()
    with pytest.raises(NotFoundError):
        layout.resolve(str(artifacts[0].digest))


def test_an_artifact_takes_the_place_of_one_that_is_out_of_date(layout, put_image) -> None:
    manifest, _ = put_image()
    layout.tag("a", manifest)
    old, new = (_artifact(layout, manifest.digest, "sbom", number=number) for number in "12")
    newer = _artifact(layout, manifest.digest, "newer")
    layout.attach(manifest.digest, [old])

    layout.attach(manifest.digest, [newer], instead_of=[old.digest])

    assert [one.artifact_type for one in layout.referrers(manifest.digest)] == ["x/newer"]
    assert new.digest == old.digest  # annotations of the descriptor are no part of it
    assert layout.resolve("a").digest == manifest.digest


def test_attaching_again_writes_nothing(layout, put_image) -> None:
    manifest, _ = put_image()
    layout.attach(manifest.digest, [_artifact(layout, manifest.digest, "sbom")])
    before = (layout.root / "index.json").stat().st_ino

    layout.attach(manifest.digest, [_artifact(layout, manifest.digest, "sbom")])

    assert (layout.root / "index.json").stat().st_ino == before


def test_a_referrer_another_tool_listed_is_found_by_its_manifest(layout, put_image) -> None:
    manifest, _ = put_image()
    layout.tag("a", manifest)
    artifact = _artifact(layout, manifest.digest, "sbom")
    path = layout.root / "index.json"
    index = json.loads(path.read_bytes())
    entry = {
        "mediaType": MANIFEST,
        "digest": str(artifact.digest),
        "size": artifact.size_bytes,
        "artifactType": "x/sbom",
    }
    path.write_text(json.dumps(index | {"manifests": [*index["manifests"], entry]}))

    assert [one.digest for one in layout.referrers(manifest.digest)] == [artifact.digest]


@pytest.fixture
def both(layout, put_image):
    """An index over an image for each platform; its descriptor and the two manifests by platform."""
    images = {name: put_image(name, architecture=name)[0] for name in ("amd64", "arm64")}
    entries = [(Platform(name), descriptor) for name, descriptor in images.items()]
    index = layout.put(
        json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": [
                    descriptor_to(replace(descriptor, platform=platform)) for platform, descriptor in entries
                ],
            }
        ).encode(),
        INDEX,
    )
    layout.tag("both", index)
    return index, images


def test_of_an_index_this_machines_image_is_taken(layout, both) -> None:
    index, images = both
    assert layout.image(index.digest).digest == images[Platform.of_machine().architecture].digest


def test_of_an_index_any_platforms_image_can_be_asked_for(layout, both) -> None:
    index, images = both
    assert layout.image(index.digest, Platform("arm64")).platform == Platform("arm64")
    assert layout.image(index.digest, Platform("arm64")).digest == images["arm64"].digest


def test_a_name_resolves_to_the_index_and_digits_to_one_platforms_manifest(layout, both) -> None:
    index, images = both
    assert layout.resolve("both").digest == index.digest
    assert layout.resolve(images["arm64"].digest.short).digest == images["arm64"].digest


def test_a_platform_the_index_lacks_is_refused_with_those_it_has(layout, both) -> None:
    with pytest.raises(NotFoundError, match="linux/riscv64") as caught:
        layout.image(both[0].digest, Platform("riscv64"))
    assert caught.value.code == "store.other_platforms"
    assert "linux/amd64, linux/arm64" in caught.value.why
