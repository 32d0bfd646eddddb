"""Layers over each other, as names."""

from __future__ import annotations

import dataclasses
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.stack import read_stack
from corten.core.digest import Digest
from corten.core.image import LAYER, Compression, Layer, LayerKind
from corten.errors import NotFoundError, PolicyError
from corten.store.layout import Layout


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "store")


def layer(layout, *members):
    """A stored layer of (name, content or link): bytes, `->target`, `=target` for a hard link, None for a folder."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            if what is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(what, str):
                info.type = tarfile.SYMTYPE if what.startswith("->") else tarfile.LNKTYPE
                info.linkname = what.removeprefix("->").removeprefix("=")
            else:
                info.size = len(what)
            archive.addfile(info, io.BytesIO(what) if isinstance(what, bytes) else None)
    put = layout.put(content.getvalue(), LAYER)
    return Layer(LayerKind.BASE, "x", put.digest, put.digest, put.size_bytes, put.size_bytes, Compression.NONE)


def everything(name, size_bytes):
    return size_bytes


def test_an_upper_file_wins_and_folders_join(layout) -> None:
    stack = read_stack(
        layout,
        [layer(layout, ("a/x", b"1"), ("a/y", b"2")), layer(layout, ("a/x", b"3"), ("b", b"4"))],
        everything,
    )
    assert {name: file.data for name, file in stack.walk()} == {"a/x": b"3", "a/y": b"2", "b": b"4"}


def test_whiteouts_hide_what_is_below_and_never_what_is_beside_them(layout) -> None:
    lower = layer(layout, ("a/gone", b"1"), ("a/stays", b"2"), ("o/below", b"3"), ("f/g/h", b"4"))
    upper = layer(layout, ("a/.wh.gone", b""), ("o/new", b"5"), ("o/.wh..wh..opq", b""), (".wh.f", b""))
    assert [name for name, _ in read_stack(layout, [lower, upper], everything).walk()] == ["a/stays", "o/new"]


def test_links_are_followed_never_out_of_the_root(layout) -> None:
    stack = read_stack(
        layout,
        [
            layer(
                layout,
                ("usr/bin/python3.12", b"ELF"),
                ("bin", "->usr/bin"),
                ("usr/bin/python3", "->python3.12"),
                ("etc/alternatives/python", "->/bin/python3"),
                ("up", "->../../../../usr/bin/python3"),
                ("loop", "->loop"),
                ("same", "=usr/bin/python3.12"),
            )
        ],
        everything,
    )
    for path in ("bin/python3", "/etc/alternatives/python", "up"):
        assert stack.resolve(path) == "usr/bin/python3.12"
        assert stack.file(path).data == b"ELF"
    assert stack.file("same").data == b"ELF"
    assert stack.file("loop") is None
    assert stack.file("nothing/there") is None
    assert stack.resolve("bin/later") == "usr/bin/later"


def test_only_what_is_wanted_is_kept(layout) -> None:
    stack = read_stack(
        layout, [layer(layout, ("big", b"x" * 5000), ("other", b"y"))], lambda name, _: 3 * (name == "big")
    )
    assert (stack.file("big").data, stack.file("other").data) == (b"xxx", b"")


def test_a_layer_that_is_not_what_its_config_says_is_refused(layout) -> None:
    wrong = dataclasses.replace(layer(layout, ("a", b"1")), diff_id=Digest.of(b"other"))
    with pytest.raises(PolicyError) as caught:
        read_stack(layout, [wrong], everything)
    assert caught.value.code == "layer.wrong_content"


def test_a_missing_blob_is_named(layout) -> None:
    gone = layer(layout, ("a", b"1"))
    layout.path(gone.digest).unlink()
    with pytest.raises(NotFoundError) as caught:
        read_stack(layout, [gone], everything)
    assert caught.value.code == "store.blob_missing"


@given(
    st.lists(st.tuples(st.sampled_from(["a", "a/b", "a/b/c", "d"]), st.sampled_from(["file", "wh", "opq"])), max_size=8)
)
def test_layers_over_each_other_are_what_merging_them_one_by_one_gives(tmp_path_factory, steps) -> None:
    """Against a model that keeps plain sets of names."""
    layout = Layout(tmp_path_factory.mktemp("stack"))
    names: set[str] = set()
    layers = []
    for name, what in steps:
        folder, _, last = name.rpartition("/")
        inside = f"{folder}/" if folder else ""
        if what == "file":
            # A file takes the place of a folder of its name, and makes its parents folders.
            parents = {"/".join(name.split("/")[:depth]) for depth in range(1, name.count("/") + 1)}
            names = {one for one in names if not one.startswith(f"{name}/") and one not in parents} | {name}
            layers.append(layer(layout, (name, b"x")))
        elif what == "wh":
            names = {one for one in names if one != name and not one.startswith(f"{name}/")}
            layers.append(layer(layout, (f"{inside}.wh.{last}", b"")))
        else:
            names = {one for one in names if not one.startswith(f"{name}/")}
            layers.append(layer(layout, (f"{name}/.wh..wh..opq", b"")))
    found = {one for one, _ in read_stack(layout, layers, everything).walk()}
    assert found == names
