"""What may go is what nothing leads to; the plans are pure, and right for any store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.digest import Digest
from corten.core.image import (
    INDEX,
    LAYER,
    MANIFEST,
    NAME_ANNOTATION,
    Compression,
    Descriptor,
    Image,
    Layer,
    LayerKind,
)  # fmt: skip
from corten.core.platform import Platform
from corten.errors import CortenError, PolicyError
from corten.store import gc, gc_trees
from corten.store.documents import descriptor_to
from corten.store.gc import Blob, Contents, Document
from corten.store.gc_cache import Cached, to_remove
from corten.store.gc_trees import Reach
from corten.store.layout import Layout
from corten.store.trees import chain_id

LATER_S = 10_000_000_000.0


def digest(number: int) -> Digest:
    return Digest(f"{number:064x}")


@st.composite
def stores(draw):
    """A store whose documents lead anywhere, also to what is missing; and what is in use of it."""
    count = draw(st.integers(1, 12))
    anything = st.integers(0, count + 2).map(digest)
    documents = draw(
        st.dictionaries(
            anything,
            st.builds(Document, st.lists(anything, max_size=4).map(tuple), st.none() | anything),
            max_size=count,
        )
    )
    blobs = draw(st.dictionaries(anything, st.builds(Blob, st.integers(0, 99), st.floats(0, 200)), max_size=count + 3))
    names = draw(st.lists(st.tuples(anything, st.sampled_from(["", "", "a", "b"])), max_size=6))
    listed = tuple(
        Descriptor(MANIFEST, one, 1, annotations={NAME_ANNOTATION: name} if name else {}) for one, name in names
    )
    return Contents(listed, documents, blobs), draw(st.sets(anything, max_size=3))


@given(stores())
def test_nothing_that_is_in_use_goes_nor_anything_it_leads_to(store) -> None:
    contents, wanted = store
    plan = gc.plan(contents, wanted, now_s=200.0)
    named = {entry.digest for entry in contents.listed if entry.annotations}
    left, seen = [*named, *wanted], set()
    while left:
        one = left.pop()
        if one not in seen:
            seen.add(one)
            left += contents.documents.get(one, Document()).leads_to
    assert not seen & set(plan.blobs)
    assert not seen & {entry.digest for entry in plan.entries}


@given(stores())
def test_whatever_stays_has_everything_that_is_attached_to_it(store) -> None:
    contents, wanted = store
    plan = gc.plan(contents, wanted, now_s=200.0)
    for artifact, document in contents.documents.items():
        assert not (document.subject in plan.reached and artifact in plan.blobs)


@given(stores())
def test_a_second_run_finds_nothing_more(store) -> None:
    contents, wanted = store
    plan = gc.plan(contents, wanted, now_s=200.0)
    after = Contents(
        tuple(entry for entry in contents.listed if entry not in plan.entries),
        {one: document for one, document in contents.documents.items() if one not in plan.blobs},
        {one: blob for one, blob in contents.blobs.items() if one not in plan.blobs},
    )
    again = gc.plan(after, wanted, now_s=200.0)
    assert (again.blobs, again.entries, again.freed_bytes) == ((), (), 0)


@given(stores())
def test_what_stays_is_reached_or_young(store) -> None:
    contents, wanted = store
    plan = gc.plan(contents, wanted, now_s=200.0, young_s=50.0)
    assert plan.reached >= {one for one, blob in contents.blobs.items() if blob.written_s > 150.0}
    assert contents.blobs.keys() - plan.reached == set(plan.blobs)
    assert plan.freed_bytes == sum(contents.blobs[one].size_bytes for one in plan.blobs)


# -- a real store


@pytest.fixture
def layout(tmp_path):
    return Layout(tmp_path / "store")


@pytest.fixture
def put(layout, maker):
    return maker(layout)


def collect(layout, wanted=()):
    plan = gc.plan(gc.read(layout, wanted), wanted, now_s=LATER_S)
    gc.remove(layout, plan)
    return plan


def blobs(layout):
    return {path.name for path in (layout.root / "blobs" / "sha256").iterdir()}


def test_an_image_that_lost_its_name_goes_with_its_lock_and_the_new_one_stays(layout, put) -> None:
    old, new = put.image("old"), put.image("new")
    layout.tag("m", old)
    layout.attach(old.digest, [put.artifact(old, "lock of the old")])
    layout.tag("m", new)
    lock = put.artifact(new, "lock of the new")
    layout.attach(new.digest, [lock])
    before = len(blobs(layout))

    plan = collect(layout)

    assert len(blobs(layout)) == before - len(plan.blobs) == 5
    assert layout.verify(new.digest).digest == new.digest
    assert layout.referrers(new.digest)[0].digest == lock.digest
    assert not layout.has(old.digest)
    assert [entry.digest for entry in layout.listed()] == [new.digest, lock.digest]


def test_an_image_without_a_name_stays_while_it_is_in_use(layout, put) -> None:
    old, new = put.image("old"), put.image("new")
    layout.tag("m", old)
    layout.tag("m", new)
    assert collect(layout, {old.digest}).blobs == ()
    assert layout.verify(old.digest)


def test_every_platform_of_a_named_index_stays(layout, put) -> None:
    inner = [put.image(text) for text in ("amd64", "arm64")]
    index = layout.put(
        json.dumps({"mediaType": INDEX, "manifests": [descriptor_to(one) for one in inner]}).encode(), INDEX
    )
    layout.tag("m", index)
    assert collect(layout).blobs == ()


def test_a_signatures_tag_is_no_name_of_its_own(layout, put) -> None:
    image, signature = put.image("image"), put.image("signature")
    layout.tag("m", image)
    layout.tag(f"sha256-{image.digest.hex}.sig", signature)
    assert collect(layout).blobs == ()
    layout.untag("m")
    collect(layout)
    assert blobs(layout) == set()
    assert layout.listed() == ()


def test_what_was_written_a_moment_ago_stays(layout, put) -> None:
    put.image("on its way to a name")
    plan = gc.plan(gc.read(layout, ()), (), now_s=layout.path(Digest.of(b"on its way to a name")).stat().st_mtime + 1)
    assert plan.blobs == ()


def test_with_a_corrupt_manifest_nothing_is_removed(layout, put) -> None:
    image = put.image("image")
    layout.tag("m", image)
    layout.path(image.digest).write_bytes(b"{}")
    with pytest.raises(PolicyError, match="corrupt"):
        collect(layout)
    assert layout.has(Digest.of(b"image"))


def test_what_is_listed_but_no_manifest_is_refused_and_nothing_removed(layout) -> None:
    layout.tag("m", layout.put(b"[1]", MANIFEST))
    layout.put(b"unreached", LAYER)
    with pytest.raises(CortenError) as caught:
        collect(layout)
    assert caught.value.code == "store.malformed"
    assert layout.has(Digest.of(b"unreached"))


# -- unpacked layers


def image_of(*numbers: int) -> Image:
    layers = tuple(
        Layer(LayerKind.BASE, "", digest(100 + number), digest(number), 1, 1, Compression.NONE) for number in numbers
    )
    return Image(digest(sum(numbers)), Platform("amd64"), layers, {}, (), "/", {})


def test_of_two_images_that_share_layers_only_what_the_one_had_alone_goes() -> None:
    stays, goes = image_of(1, 2), image_of(1, 3)
    chains = [chain_id([layer.diff_id for layer in image.layers]).hex for image in (stays, goes)]
    names = {
        "layers": [digest(number).hex for number in (1, 2, 3)],
        "roots": chains,
        "pyc": chains,
        "images": [f"{image.digest.hex}.json" for image in (stays, goes)],
    }
    assert gc_trees.unreached(names, gc_trees.reach_of([stays])) == (
        f"images/{goes.digest.hex}.json", f"pyc/{chains[1]}", f"roots/{chains[1]}", f"layers/{digest(3).hex}",
    )  # fmt: skip


def test_a_root_of_any_number_of_an_images_layers_stays() -> None:
    image = image_of(1, 2, 3)
    roots = [chain_id([layer.diff_id for layer in image.layers[:count]]).hex for count in range(4)]
    assert gc_trees.unreached({"roots": roots}, gc_trees.reach_of([image])) == ()


@given(st.dictionaries(st.sampled_from(["layers", "roots", "pyc", "tmp", "views"]), st.lists(st.text(max_size=70))))
def test_what_is_not_named_by_a_digest_is_left_alone(names) -> None:
    assert not gc_trees.unreached(names, Reach())


def test_an_unpacked_images_own_record_keeps_it_when_the_store_lost_its_manifest(tmp_path) -> None:
    (tmp_path / "images").mkdir()
    record = {"format": 1, "chain": digest(9).hex, "folders": [], "mounts": [[f"layers/{digest(5).hex}/app", "app"]]}
    (tmp_path / "images" / f"{digest(7).hex}.json").write_text(json.dumps(record))
    reach = gc_trees.recorded_reach(tmp_path, [digest(7), digest(8)])
    assert reach == Reach(frozenset({digest(7), digest(8)}), frozenset({digest(5)}), frozenset({digest(9)}))


# -- downloads


def cached(name: str, size_bytes: int, used_s: float) -> Cached:
    return Cached(Path(name), size_bytes, used_s)


def test_the_longest_unused_downloads_go_until_the_rest_fits() -> None:
    items = [cached("new", 5, 90.0), cached("old", 5, 10.0), cached("middle", 5, 50.0)]
    assert [one.path.name for one in to_remove(items, now_s=100.0, most_bytes=10, oldest_s=1000.0)] == ["old"]


def test_downloads_unused_for_too_long_go_though_there_is_room() -> None:
    items = [cached("new", 5, 90.0), cached("old", 5, 10.0)]
    assert [one.path.name for one in to_remove(items, now_s=100.0, most_bytes=1000, oldest_s=50.0)] == ["old"]


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100))), st.integers(0, 200))
def test_what_is_kept_fits_and_was_used_after_all_that_goes(items, most_bytes) -> None:
    everything = [cached(str(number), *item) for number, item in enumerate(items)]
    removed = to_remove(everything, now_s=100.0, most_bytes=most_bytes, oldest_s=1000.0)
    kept = [one for one in everything if one not in removed]
    assert sum(one.size_bytes for one in kept) <= most_bytes
    assert all(one.used_s >= gone.used_s for one in kept for gone in removed)
