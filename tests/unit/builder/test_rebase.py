"""What differs between two bases, and an image's documents over another one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.debian.release import RELEASES, Deb
from corten.builder.interpreter import Interpreter, Libc, LibcFamily, debian_python
from corten.builder.lock import Pin
from corten.builder.oci_base import Facts, Installed, OciBase, System
from corten.builder.plan import wheel_layers
from corten.builder.rebase import (
    Change,
    changes,
    check_base,
    check_python,
    on_other_base,
    packages_changed,
    rebased_config,
    rebased_manifest,
)
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


# Over another image

PYTHON = Interpreter("3.12", "/usr/local/bin/python3.12", "usr/local", "usr/local/lib/python3.12/site-packages",
                     Libc(LibcFamily.GLIBC, "2.36"))  # fmt: skip


def base(tag: str, *, python: Interpreter = PYTHON, env=None, packages=(), layers: int = 1) -> OciBase:
    pin = Pin("ghcr.io/team/python:3.12", Digest.of(tag.encode()), Digest.of(tag.encode() + b" image"))
    facts = Facts(System(), (python,), (), packages, listed=True, certificates=True, libstdcxx=True)
    layer = Layer(LayerKind.BASE, tag, Digest.of(tag.encode()), Digest.of(tag.encode()), 1, 1, Compression.GZIP)
    return OciBase(pin, (layer,) * layers, env or {}, facts, python)


def test_a_newer_base_with_the_same_python_fits() -> None:
    check_python(base("a"), base("b"))
    check_python(base("a"), base("b", python=replace(PYTHON, libc=Libc(LibcFamily.GLIBC, "2.41"))))


@pytest.mark.parametrize(
    "python",
    [
        replace(PYTHON, version="3.13"),
        replace(PYTHON, program="/usr/bin/python3.12"),
        replace(PYTHON, site="usr/lib/python3.12/site-packages"),
        replace(PYTHON, libc=Libc(LibcFamily.GLIBC, "2.31")),
        replace(PYTHON, libc=Libc(LibcFamily.MUSL, "2.36")),
    ],
)
def test_another_python_or_an_older_c_library_does_not(python: Interpreter) -> None:
    with pytest.raises(UsageError) as caught:
        check_python(base("a"), base("b", python=python))
    assert caught.value.code == "rebase.other_python"
    assert "--upgrade" in caught.value.hint


def test_packages_that_came_went_or_changed_are_told() -> None:
    before = (Installed("deb", "openssl", "1"), Installed("deb", "same", "1"), Installed("wheel", "pip", "24"))
    after = (Installed("deb", "openssl", "2"), Installed("deb", "same", "1"), Installed("deb", "new", "1"))
    assert packages_changed(base("a", packages=before), base("b", packages=after)) == (
        Change("new", "", "1"), Change("openssl", "1", "2"), Change("pip", "24", ""),
    )  # fmt: skip


def test_the_environment_of_the_old_base_gives_way_and_what_others_set_stays() -> None:
    old, new = base("a", env={"PATH": "/old", "GONE": "1"}), base("b", env={"PATH": "/new", "CAME": "2"})
    run = {"Env": ["GONE=1", "MINE=kept", "PATH=/old", "PYTHONUNBUFFERED=1"], "Labels": {"x": "y"}}
    config, manifest = on_other_base({"config": run, "os": "linux"}, {"layers": []}, old, new)

    env = dict(text.split("=", 1) for text in config["config"]["Env"])
    assert {"PATH": "/new", "CAME": "2", "MINE": "kept", "PYTHONUNBUFFERED": "1"}.items() <= env.items()
    assert "GONE" not in env
    assert config["config"]["Env"] == sorted(config["config"]["Env"])
    assert manifest["annotations"]["org.opencontainers.image.base.digest"] == str(new.pin.manifest)
    assert config["config"]["Labels"] == {"x": "y", **manifest["annotations"]}


def test_a_base_may_have_several_layers_and_an_own_one_has_one() -> None:
    several = image(LayerKind.BASE, LayerKind.BASE, LayerKind.RUNTIME)
    assert check_base(several, single=False) == 2
    with pytest.raises(UsageError):
        check_base(several)


def test_a_base_of_too_many_layers_leaves_none_for_wheels() -> None:
    assert wheel_layers(base("a", layers=123), 0) == 1
    with pytest.raises(UsageError) as caught:
        wheel_layers(base("a", layers=124), 0)
    assert caught.value.code == "base.too_many_layers"


def test_debians_own_base_keeps_its_share_of_layers() -> None:
    assert wheel_layers(RELEASES["bookworm"], 60) == 64
    assert RELEASES["bookworm"].interpreter == debian_python("3.11", "2.36")
