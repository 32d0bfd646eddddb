"""What differs between two bases, and an image's documents over another one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.debian.release import Deb
from corten.builder.rebase import Change, changes, check_base, rebased_config, rebased_manifest
from corten.core.digest import Digest
from corten.core.image import CONFIG, Compression, Descriptor, Image, Layer, LayerKind
from corten.core.platform import Platform
from corten.errors import UsageError


def deb(name: str, version: str, content: int = 0) -> Deb:
    return Deb(name, version, "amd64", f"http://x/{name}.deb", Digest(f"{content:064x}"), 1)


def image(*kinds: LayerKind) -> Image:
    layers = tuple(Layer(kind, "", Digest("a" * 64), Digest("a" * 64), 1, 1, Compression.NONE) for kind in kinds)
    return Image(Digest("b" * 64), Platform("amd64"), layers, {}, (), "/", {})


def test_new_gone_and_updated_packages_are_told_in_order() -> None:
    before = [deb("gone", "1"), deb("openssl", "1", 1), deb("same", "1")]
    after = [deb("same", "1"), deb("openssl", "2", 2), deb("added", "3")]
    assert changes(before, after) == (Change("added", "", "3"), Change("gone", "1", ""), Change("openssl", "1", "2"))


def test_a_package_built_anew_under_its_version_counts() -> None:
    assert changes([deb("aa", "1", 1)], [deb("aa", "1", 2)]) == (Change("aa", "1", "1"),)


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3)))
def test_the_same_packages_in_any_order_are_no_change(versions) -> None:
    debs = [deb(name * 2, str(version), version) for name, version in versions.items()]
    assert changes(debs, debs[::-1]) == ()


@pytest.mark.parametrize(
    "kinds",
    [
        (),
        (LayerKind.BASE, LayerKind.BASE, LayerKind.RUNTIME),
        (LayerKind.WHEELS, LayerKind.BASE, LayerKind.RUNTIME),
        (LayerKind.BASE,),
        (LayerKind.WEIGHTS,),
    ],
)
def test_an_image_whose_lowest_layer_alone_is_no_base_is_refused(kinds) -> None:
    with pytest.raises(UsageError) as caught:
        check_base(image(*kinds))
    assert caught.value.code == "rebase.foreign"


def test_an_image_of_ours_is_taken() -> None:
    check_base(image(LayerKind.BASE, LayerKind.WHEELS, LayerKind.RUNTIME, LayerKind.WEIGHTS, LayerKind.CODE))


def test_documents_keep_everything_but_the_base() -> None:
    history = [{"created_by": "old"}, {"created_by": "x"}]
    config = {"config": {"User": "65532"}, "rootfs": {"type": "layers", "diff_ids": ["old", "x"]}, "history": history}
    base = Layer(LayerKind.BASE, "new base", Digest("a" * 64), Digest("c" * 64), 3, 3, Compression.ZSTD)
    changed = rebased_config(config, 1, [base])
    assert changed["config"] == config["config"]
    assert changed["rootfs"]["diff_ids"] == [str(base.diff_id), "x"]
    assert [one["created_by"] for one in changed["history"]] == ["corten base: new base", "x"]
    described = Descriptor(CONFIG, Digest("b" * 64), 4)
    manifest = rebased_manifest({"layers": [{"digest": "old"}, {"digest": "x"}], "config": {}}, described, 1, [base])
    assert [layer["digest"] for layer in manifest["layers"]] == [str(base.digest), "x"]
    assert manifest["config"]["digest"] == str(described.digest)
