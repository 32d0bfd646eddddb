"""Merging and mounting against a model of the image spec's layer rules in a few lines."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corten.store.merge import Mount, MountPlan, listing, merge, opened_folder, plan_mounts

OPAQUE = ".wh..wh..opq"

name = st.sampled_from(["a", "b", "c"])
entry = st.sampled_from(["a", "b", "c", ".wh.a", ".wh.b", ".wh.c", OPAQUE])


@st.composite
def tree(draw, depth=3):
    """A layer: names to folders (dicts) or contents (strings)."""
    made = {}
    for found in draw(st.lists(entry, max_size=4, unique=True)):
        if found.startswith(".wh."):
            made[found] = ""
        elif depth and draw(st.booleans()):
            made[found] = draw(tree(depth - 1))
        else:
            made[found] = draw(st.sampled_from(["1", "2", "3"]))
    return made


def overlay(below, above):
    """The rules: image-spec, layer.md, "Whiteouts" and "Applying Changesets"."""
    result = {} if OPAQUE in above else dict(below)
    for found in above:
        if found.startswith(".wh.") and found != OPAQUE:
            result.pop(found.removeprefix(".wh."), None)
    for found, content in above.items():
        if found.startswith(".wh."):
            continue
        if isinstance(content, dict):
            under = result.get(found)
            result[found] = overlay(under if isinstance(under, dict) else {}, content)
        else:
            result[found] = content
    return result


def write(folder: Path, content):
    folder.mkdir(exist_ok=True)
    for found, below in content.items():
        if isinstance(below, dict):
            write(folder / found, below)
        else:
            (folder / found).write_text(below)


def read(folder: Path):
    return {path.name: read(path) if path.is_dir() else path.read_text() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    return tmp_path_factory.mktemp("merge")


def written(workshop, layers):
    shutil.rmtree(workshop)
    workshop.mkdir()
    folders = [workshop / f"layer{number}" for number in range(len(layers))]
    for folder, layer in zip(folders, layers, strict=True):
        write(folder, layer)
    return folders


@settings(deadline=None)
@given(layers=st.lists(tree(), min_size=1, max_size=4))
def test_merged_layers_are_what_the_spec_says(workshop, layers):
    folders = written(workshop, layers)
    root = workshop / "root"
    root.mkdir()
    expected = {}
    for folder, layer in zip(folders, layers, strict=True):
        with opened_folder(folder) as source, opened_folder(root) as target:
            merge(source, target)
        expected = overlay(expected, layer)
    assert read(root) == expected
    assert [read(folder) for folder in folders] == layers  # merging changes no layer


def show(plan: MountPlan, root: Path, top: str):
    """What a replica would find: the root, folders made over it, mounts over these."""
    shown = read(root / top) if (root / top).is_dir() else {}

    def at(target):
        return [part for part in target.split("/") if part][1:]

    def put(parts, content):
        nonlocal shown
        if not parts:
            shown = content
            return
        folder = shown
        for part in parts[:-1]:
            folder = folder[part]
        folder[parts[-1]] = content

    for folder in plan.folders:
        put(at(folder), {})
    for mount in plan.mounts:
        put(at(mount.target), read(mount.source) if mount.source.is_dir() else mount.source.read_text())
    return shown


@settings(deadline=None)
@given(base=tree(), layers=st.lists(tree(), max_size=3))
def test_mounted_layers_look_like_merged_ones(workshop, base, layers):
    base = overlay({}, base)  # a root has been merged: no whiteouts
    folders = written(workshop, [{"top": base}, *({"top": layer} for layer in layers)])
    stack = []
    for folder in folders:
        with opened_folder(folder) as descriptor:
            stack.append((folder, listing(descriptor)))
    plan = plan_mounts(stack, ("top",))
    expected = base
    for layer in layers:
        expected = overlay(expected, layer)
    assert show(plan, folders[0], "top") == expected
    assert len(set(plan.folders)) == len(plan.folders)


def test_a_folder_of_one_layer_is_one_mount(tmp_path):
    code = {"app": {str(number): None for number in range(1000)}}
    plan = plan_mounts([(tmp_path / "root", {"app": {}}), (tmp_path / "code", code)], ("app", "models"))
    assert plan == MountPlan((), (Mount(tmp_path / "code/app", "/app"),))


def test_weights_of_several_layers_are_mounted_file_by_file(tmp_path):
    stack = [
        (tmp_path / "root", {"models": {}, "app": {}}),
        (tmp_path / "w1", {"models": {"a.onnx": None}}),
        (tmp_path / "w2", {"models": {"b": {"c.bin": None}}}),
    ]
    assert plan_mounts(stack, ("app", "models")) == MountPlan(
        ("/models",),
        (Mount(tmp_path / "w1/models/a.onnx", "/models/a.onnx"), Mount(tmp_path / "w2/models/b", "/models/b")),
    )


def test_nothing_is_mounted_when_nothing_is_above_the_root(tmp_path):
    assert plan_mounts([(tmp_path, {"app": {"x": None}, "models": {}})], ("app", "models")) == MountPlan()


def test_files_are_linked_and_not_copied(tmp_path):
    (layer,) = written(tmp_path / "w", [{"a": "1"}]) if (tmp_path / "w").mkdir() is None else ()
    (layer / "link").symlink_to("/etc/passwd")
    root = tmp_path / "root"
    root.mkdir()
    with opened_folder(layer) as source, opened_folder(root) as target:
        merge(source, target)
    assert (root / "a").stat().st_ino == (layer / "a").stat().st_ino
    assert str((root / "link").readlink()) == "/etc/passwd"


def test_where_links_cannot_be_made_files_are_copied(tmp_path, monkeypatch):
    layer, root = tmp_path / "layer", tmp_path / "root"
    write(layer, {"a": "new", "d": {"b": "2"}})
    write(root, {"a": "old"})
    (layer / "link").symlink_to("a")
    (layer / "a").chmod(0o755)

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with opened_folder(layer) as source, opened_folder(root) as target:
        merge(source, target)
    assert (root / "a").read_text() == "new"
    assert (root / "a").stat().st_mode & 0o777 == 0o755
    assert (root / "d/b").read_text() == "2"
    assert str((root / "link").readlink()) == "a"


@pytest.mark.parametrize("whiteout", [".wh.", ".wh..", ".wh..."])
def test_a_whiteout_never_reaches_above_its_folder(tmp_path, whiteout):
    layer, root = tmp_path / "layer", tmp_path / "outside" / "root"
    layer.mkdir()
    root.mkdir(parents=True)
    (tmp_path / "outside" / "precious").touch()
    (root / "kept").touch()
    (layer / whiteout).touch()
    with opened_folder(layer) as source, opened_folder(root) as target:
        merge(source, target)
    assert (tmp_path / "outside" / "precious").exists()
    assert (root / "kept").exists()


def test_a_link_below_is_replaced_by_a_folder_and_not_walked_through(tmp_path):
    layer, root, outside = tmp_path / "layer", tmp_path / "root", tmp_path / "outside"
    write(layer, {"etc": {"passwd": "evil"}})
    root.mkdir()
    outside.mkdir()
    (root / "etc").symlink_to(outside)
    with opened_folder(layer) as source, opened_folder(root) as target:
        merge(source, target)
    assert not (outside / "passwd").exists()
    assert (root / "etc/passwd").read_text() == "evil"
