import errno
import io
import json
import os
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from corten.core.digest import Digest
from corten.core.image import Compression, Image, Layer, LayerKind
from corten.core.platform import Platform
from corten.errors import CortenError, NotFoundError, PolicyError
from corten.store import trees as module
from corten.store.merge import Mount
from corten.store.trees import Trees, chain_id


class Blobs:
    def __init__(self, folder):
        self.folder = folder

    def path(self, digest):
        return self.folder / digest.hex


class Maker:
    """Layers and images of them, in a folder of blobs."""

    def __init__(self, folder):
        self.blobs = Blobs(folder)

    def layer(self, kind, files=None, *, members=(), diff_id=None):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            for name, content in (files or {}).items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                info.mode = 0o4750 if name.endswith("su") else 0o600
                tar.addfile(info, io.BytesIO(content))
            for info in members:
                tar.addfile(info)
        plain = data.getvalue()
        digest = Digest.of(plain)
        self.blobs.path(digest).write_bytes(plain)
        return Layer(kind, kind.value, digest, diff_id or digest, len(plain), len(plain), Compression.NONE)

    def image(self, *layers):
        digest = Digest.of(repr(layers).encode())
        return Image(digest, Platform("amd64"), tuple(layers), {}, ("/usr/bin/true",), "/", {})


@pytest.fixture
def make(tmp_path):
    (tmp_path / "blobs").mkdir()
    return Maker(tmp_path / "blobs")


@pytest.fixture
def trees(tmp_path, make):
    return Trees(make.blobs, tmp_path / "trees")


@pytest.fixture
def image(make):
    return make.image(
        make.layer(LayerKind.BASE, {"usr/bin/python3": b"python", "usr/bin/su": b"su"}),
        make.layer(LayerKind.WHEELS, {"usr/lib/numpy.py": b"numpy"}),
        make.layer(LayerKind.WEIGHTS, {"models/a.onnx": b"a"}),
        make.layer(LayerKind.WEIGHTS, {"models/b.onnx": b"b"}),
        make.layer(LayerKind.CODE, {"app/corten.json": b"{}", "app/user.py": b"user"}),
    )


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_base_and_wheels_become_one_root_and_the_rest_is_mounted(trees, image, tmp_path):
    prepared = trees.prepare(image)
    assert (prepared.root / "usr/bin/python3").read_bytes() == b"python"
    assert (prepared.root / "usr/lib/numpy.py").read_bytes() == b"numpy"
    assert [*(prepared.root / "models").iterdir()] == []
    layers = tmp_path / "trees" / "layers"
    ids = [layer.diff_id.hex for layer in image.layers]
    assert prepared.folders == ("/models",)
    assert prepared.mounts == (
        Mount(layers / ids[4] / "app", "/app"),
        Mount(layers / ids[2] / "models/a.onnx", "/models/a.onnx"),
        Mount(layers / ids[3] / "models/b.onnx", "/models/b.onnx"),
    )


def test_a_root_is_named_by_its_chain_id(trees, image):
    prepared = trees.prepare(image)
    below = Digest.of(f"{image.layers[0].diff_id} {image.layers[1].diff_id}".encode())
    assert prepared.chain == below
    assert prepared.root.name == below.hex


def test_the_chain_id_is_the_image_specs():
    first, second, third = Digest("a" * 64), Digest("b" * 64), Digest("c" * 64)
    assert chain_id([first]) == first
    two = Digest.of(f"sha256:{'a' * 64} sha256:{'b' * 64}".encode())
    assert chain_id([first, second]) == two
    assert chain_id([first, second, third]) == Digest.of(f"{two} sha256:{'c' * 64}".encode())


def test_new_weights_leave_root_and_other_layers_as_they_are(trees, image, make, tmp_path):
    before = trees.prepare(image)
    inode = (before.root / "usr/bin/python3").stat().st_ino
    changed = make.layer(LayerKind.WEIGHTS, {"models/a.onnx": b"A"})
    after = trees.prepare(make.image(*image.layers[:2], changed, *image.layers[3:]))
    assert after.root == before.root
    assert (after.root / "usr/bin/python3").stat().st_ino == inode
    assert len([*(tmp_path / "trees/layers").iterdir()]) == 6
    assert len([*(tmp_path / "trees/roots").iterdir()]) == 1


def test_everybody_may_read_nobody_gets_setuid(trees, image):
    root = trees.prepare(image).root
    assert (root / "usr/bin/su").stat().st_mode & 0o7777 == 0o755
    assert (root / "usr/bin/python3").stat().st_mode & 0o7777 == 0o644
    assert (root / "usr").stat().st_mode & 0o7777 == 0o755


def test_the_umask_changes_nothing(make, tmp_path, image):
    old = os.umask(0o077)
    try:
        root = Trees(make.blobs, tmp_path / "trees").prepare(image).root
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in root.rglob("*")} <= {0o755, 0o644}
    assert all(folder.stat().st_mode & 0o777 == 0o755 for folder in (root, root.parent, tmp_path / "trees/layers"))


def test_an_image_of_somebody_else_is_merged_whole(trees, make):
    image = make.image(
        make.layer(LayerKind.BASE, {"usr/x": b"1", "app/main.py": b"1"}),
        make.layer(LayerKind.BASE, {"app/main.py": b"2", "usr/.wh.x": b""}),
    )
    prepared = trees.prepare(image)
    assert prepared.mounts == ()
    assert (prepared.root / "app/main.py").read_bytes() == b"2"
    assert not (prepared.root / "usr/x").exists()


def test_code_outside_app_and_models_is_merged(trees, make):
    code = make.layer(LayerKind.CODE, {"usr/lib/mine.py": b"mine"})
    image = make.image(
        make.layer(LayerKind.BASE, {"usr/x": b"1"}), code, make.layer(LayerKind.WEIGHTS, {"models/a": b"a"})
    )
    prepared = trees.prepare(image)
    assert (prepared.root / "usr/lib/mine.py").read_bytes() == b"mine"
    assert [mount.target for mount in prepared.mounts] == ["/models"]


def test_a_base_over_weights_hides_them(trees, make):
    image = make.image(
        make.layer(LayerKind.WEIGHTS, {"models/a": b"old"}), make.layer(LayerKind.BASE, {"models/a": b"new"})
    )
    prepared = trees.prepare(image)
    assert prepared.mounts == ()
    assert (prepared.root / "models/a").read_bytes() == b"new"


def test_mount_points_are_there(trees, image):
    root = trees.prepare(image).root
    for name in ("proc", "sys", "dev", "run/corten", "tmp", "app", "models", "var/cache/python"):
        assert (root / name).is_dir()
    assert (root / "etc/resolv.conf").is_file()


@pytest.mark.parametrize("name", ["proc", "run", "var", "etc", "app"])
@pytest.mark.parametrize("target", ["outside", "file"])
def test_a_mount_point_that_is_a_link_is_refused_and_nothing_is_written_through_it(trees, make, tmp_path, name, target):
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "file").touch()
    image = make.image(make.layer(LayerKind.BASE, members=[link(name, str(tmp_path / target))]))
    with pytest.raises(CortenError) as raised:
        trees.prepare(image)
    assert raised.value.code == "trees.mount_point"
    assert [*outside.iterdir()] == []


def test_a_link_in_the_place_of_a_mounted_file_is_replaced(trees, make, tmp_path):
    (tmp_path / "outside").write_text("mine")
    image = make.image(make.layer(LayerKind.BASE, members=[link("etc/resolv.conf", str(tmp_path / "outside"))]))
    root = trees.prepare(image).root
    assert not (root / "etc/resolv.conf").is_symlink()
    assert (tmp_path / "outside").read_text() == "mine"


@pytest.mark.parametrize(
    "members",
    [
        [link("a", "{outside}"), tarfile.TarInfo("a/written")],
        [link("a", ".."), tarfile.TarInfo("a/written")],
        [link("a", "{outside}"), link("b", "a/secret", tarfile.LNKTYPE)],
        [link("a", "{outside}/secret"), tarfile.TarInfo("a")],
        [link("b", "secret", tarfile.LNKTYPE)],
        [tarfile.TarInfo("x"), tarfile.TarInfo("x")],
        [tarfile.TarInfo("x"), tarfile.TarInfo("x/y")],
        [link("a", "b"), link("b", "a"), tarfile.TarInfo("a/x")],
    ],
)
def test_a_layer_cannot_write_or_link_anywhere_else(trees, make, tmp_path, members):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    for member in members:
        member.linkname = member.linkname.format(outside=outside)
    image = make.image(make.layer(LayerKind.BASE, members=members))
    with pytest.raises(PolicyError) as raised:
        trees.prepare(image)
    assert raised.value.code == "layer.unsafe_member"
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").stat().st_nlink == 1
    assert unfinished(tmp_path) == []


def test_hard_links_within_a_layer_are_kept(trees, make):
    image = make.image(
        make.layer(LayerKind.BASE, {"usr/a": b"1"}, members=[link("usr/deep/b", "usr/a", tarfile.LNKTYPE)])
    )
    root = trees.prepare(image).root
    assert (root / "usr/deep/b").read_bytes() == b"1"


def unfinished(tmp_path):
    return [*(tmp_path / "trees/tmp").iterdir()]


def test_a_layer_that_is_not_what_the_config_says_is_refused(trees, make, tmp_path):
    image = make.image(make.layer(LayerKind.BASE, {"usr/x": b"1"}, diff_id=Digest("0" * 64)))
    with pytest.raises(PolicyError) as raised:
        trees.prepare(image)
    assert raised.value.code == "layer.wrong_content"
    assert not (tmp_path / "trees/layers").exists()
    assert unfinished(tmp_path) == []


def test_a_missing_blob_is_named(trees, make, image):
    make.blobs.path(image.layers[1].digest).unlink()
    with pytest.raises(NotFoundError) as raised:
        trees.prepare(image)
    assert raised.value.code == "store.blob_missing"
    assert image.layers[1].digest.hex in raised.value.where


def test_a_full_disk_leaves_nothing_and_the_next_try_works(trees, image, tmp_path, monkeypatch):
    real = os.write

    def full(descriptor, data):
        if bytes(data) == b"numpy":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(CortenError) as raised:
            trees.prepare(image)
    assert raised.value.code == "store.disk_full"
    assert unfinished(tmp_path) == []
    assert (trees.prepare(image).root / "usr/lib/numpy.py").exists()


def test_what_a_killed_process_left_is_swept_by_the_next(trees, image, tmp_path):
    left = tmp_path / "trees/tmp" / image.layers[0].diff_id.hex
    (left / "usr").mkdir(parents=True)
    (left / "usr/half").touch()
    (tmp_path / "trees/.swept-0000").mkdir()
    root = trees.prepare(image).root
    assert not (root / "usr/half").exists()
    assert unfinished(tmp_path) == []
    assert not (tmp_path / "trees/.swept-0000").exists()


def test_prepared_again_nothing_is_read_but_the_record(trees, image, make):
    first = trees.prepare(image)
    for layer in image.layers:
        make.blobs.path(layer.digest).unlink()
    assert trees.prepare(image) == first


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 99}', '{"format": 1, "chain": 3}'])
def test_a_damaged_record_is_made_anew(trees, image, tmp_path, damage):
    first = trees.prepare(image)
    (tmp_path / "trees/images" / f"{image.digest.hex}.json").write_text(damage)
    assert trees.prepare(image) == first


def test_a_removed_layer_or_root_is_made_anew(trees, image, tmp_path):
    import shutil

    first = trees.prepare(image)
    shutil.rmtree(first.root)
    shutil.rmtree(tmp_path / "trees/layers" / image.layers[4].diff_id.hex)
    assert trees.prepare(image) == first
    assert (first.root / "usr/bin/python3").exists()


def test_many_at_once_unpack_once(make, image, tmp_path, monkeypatch):
    unpacked = []
    real = module.unpack
    monkeypatch.setattr(module, "unpack", lambda *a, **k: (unpacked.append(a[1].title), real(*a, **k)))
    with ThreadPoolExecutor(8) as pool:
        results = [*pool.map(lambda _: Trees(make.blobs, tmp_path / "trees").prepare(image), range(8))]
    assert len({result.root for result in results}) == 1
    assert len(unpacked) == len(image.layers)


def test_waiting_for_another_process_ends(make, image, tmp_path):
    import fcntl

    (tmp_path / "trees").mkdir()
    now = [0.0]
    waiting = Trees(
        make.blobs,
        tmp_path / "trees",
        wait_s=5,
        monotonic=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
    )
    with (tmp_path / "trees/lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CortenError) as raised:
            waiting.prepare(image)
    assert raised.value.code == "trees.busy"
    assert 5 <= now[0] < 6


def test_giving_up_waiting_leaves_the_others_work_alone(make, image, tmp_path):
    import fcntl

    work = tmp_path / "trees/tmp/other"
    work.mkdir(parents=True)
    with (tmp_path / "trees/lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CortenError):
            Trees(make.blobs, tmp_path / "trees", wait_s=0.0, sleep=lambda _: None).prepare(image)
    assert work.exists()


def test_one_bad_layer_stops_the_others(make, tmp_path):
    good = make.layer(LayerKind.BASE, {f"usr/{number}": b"x" for number in range(200)})
    bad = replace(make.layer(LayerKind.WHEELS, {"usr/bad": b"bad"}), diff_id=Digest("1" * 64))
    with pytest.raises(PolicyError) as raised:
        Trees(make.blobs, tmp_path / "trees").prepare(make.image(good, bad))
    assert raised.value.code == "layer.wrong_content"
    assert threading.active_count() < 5


def test_a_view_holds_code_and_weights_for_runners_that_cannot_mount(trees, image):
    prepared = trees.prepare(image)
    view = trees.view(image, prepared)
    assert (view / "models/a.onnx").read_bytes() == b"a"
    assert (view / "app/user.py").read_bytes() == b"user"
    assert trees.view(image, prepared) == view


def test_the_view_of_a_merged_image_is_its_root(trees, make):
    image = make.image(make.layer(LayerKind.BASE, {"app/main.py": b"1"}))
    prepared = trees.prepare(image)
    assert trees.view(image, prepared) == prepared.root


def test_the_record_holds_no_path_of_this_machine(trees, image, tmp_path):
    trees.prepare(image)
    text = (tmp_path / "trees/images" / f"{image.digest.hex}.json").read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["format"] == 1


def test_an_installation_can_be_moved(trees, image, make, tmp_path):
    trees.prepare(image)
    (tmp_path / "trees").rename(tmp_path / "moved")
    prepared = Trees(make.blobs, tmp_path / "moved").prepare(image)
    assert prepared.root.is_relative_to(tmp_path / "moved")
    assert isinstance(prepared.root, Path)
