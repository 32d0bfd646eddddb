"""A bundle holds an image and all that belongs to it; reading one trusts nothing in it."""

from __future__ import annotations

import io
import json
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.digest import Digest
from corten.core.home import Home
from corten.errors import CortenError, NotFoundError, PolicyError, UsageError
from corten.ops.export import export
from corten.ops.import_ import import_
from corten.store import bundle
from corten.store.layout import Layout
from corten.store.writing import is_locked, locked


class At:
    """Two installations and the file that goes from one to the other."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.here = Home(folder / "here")
        self.there = Home(folder / "there")
        self.tar = folder / "m.tar"


@pytest.fixture
def at(tmp_path):
    return At(tmp_path)


@pytest.fixture
def layout(at):
    return Layout(at.here.store)


@pytest.fixture
def put(layout, maker):
    return maker(layout)


@pytest.fixture
def image(layout, put):
    """An image of two layers with a lock attached, called `m`."""
    image = put.image("weights", "code")
    layout.tag("m", image)
    layout.attach(image.digest, [put.artifact(image, "the lock")])
    return image


def rewritten(path, change):
    """The tar with every member's (name, content, type) through `change`, which may drop it by None."""
    data = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=data, mode="w") as new:
        for member in old:
            content = old.extractfile(member).read() if member.isfile() else b""
            if not (changed := change(member.name, content)):
                continue
            member.name, content = changed
            member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    path.write_bytes(data.getvalue())


def added(path, member, content=b""):
    """The tar with one more member in front."""
    data = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=data, mode="w") as new:
        member.size = len(content)
        new.addfile(member, io.BytesIO(content))
        for each in old:
            new.addfile(each, old.extractfile(each) if each.isfile() else None)
    path.write_bytes(data.getvalue())


def test_what_was_exported_is_imported_whole_with_what_is_attached(image, layout, at) -> None:
    assert export("m", at.tar, home=at.here).digest == image.digest
    done = import_(at.tar, home=at.there)
    assert done.images == (("m", image.digest),)
    copy = Layout(at.there.store)
    assert copy.verify(copy.resolve("m").digest) == layout.image(image.digest)
    assert [one.digest for one in copy.referrers(image.digest)] == [
        one.digest for one in layout.referrers(image.digest)
    ]


def test_the_same_image_gives_the_same_bytes(image, at) -> None:
    first = export("m", at.tar, home=at.here)
    import_(at.tar, home=at.there)
    again = export("m", at.folder / "again.tar", home=at.there)
    assert again.sha256 == first.sha256
    assert at.tar.read_bytes() == (at.folder / "again.tar").read_bytes()


def test_other_tools_see_one_image_under_its_name(image, at) -> None:
    export("m", at.tar, home=at.here)
    with tarfile.open(at.tar) as archive:
        index = json.load(archive.extractfile("index.json"))
        assert json.load(archive.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    assert [entry["annotations"]["org.opencontainers.image.ref.name"] for entry in index["manifests"]] == ["m"]


def test_what_killed_exports_left_goes_with_the_next_one_and_what_others_write_stays(at, image):
    left, written, fresh, anothers = (
        at.folder / name
        for name in (".m.tar.0123456789ab", ".m.tar.ba9876543210", ".m.tar.abcdefabcdef", ".n.tar.0123456789ab")
    )
    for path in (left, written, fresh, anothers):
        path.write_bytes(b"half")
        if path != fresh:
            os.utime(path, (0, 0))
    with locked(written):
        export("m", at.tar, home=at.here)
    assert not left.exists()
    assert written.exists()
    assert fresh.exists(), "it may not be locked yet"
    assert anothers.exists()
    assert import_(at.tar, home=at.there)


def test_an_export_holds_the_lock_on_what_it_writes(at, layout, put):
    layout.tag("m", put.image("w" * 4_000_000, "code"))
    held = []

    def look(event):
        held.extend(is_locked(path) for path in at.folder.glob(".m.tar.*"))

    export("m", at.tar, home=at.here, listen=look)
    assert True in held


def test_a_delta_leaves_out_what_the_other_side_has(image, put, layout, at) -> None:
    export("m", at.tar, home=at.here)
    layout.tag("m", put.image("weights", "new code"))
    delta = at.folder / "delta.tar"
    assert export("m", delta, delta_from=at.tar, home=at.here).left_out == 1
    with tarfile.open(delta) as archive:
        assert bundle.blob_name(Digest.of(b"weights")) not in archive.getnames()
    import_(at.tar, home=at.there)
    import_(delta, home=at.there)
    copy = Layout(at.there.store)
    assert copy.verify(copy.resolve("m").digest).digest == layout.resolve("m").digest


def test_a_delta_can_be_made_from_an_image_that_is_here(image, put, layout, at) -> None:
    layout.tag("next", put.image("weights", "new code"))
    assert export("next", at.tar, delta_from="m", home=at.here).left_out == 1


def test_a_delta_of_a_delta_counts_what_the_first_left_out_as_there(image, put, layout, at) -> None:
    layout.tag("second", put.image("weights", "second code"))
    layout.tag("third", put.image("weights", "third code"))
    export("second", at.tar, delta_from="m", home=at.here)
    assert export("third", at.folder / "third.tar", delta_from=at.tar, home=at.here).left_out == 1


def test_a_delta_without_its_base_is_refused_with_the_names_of_what_is_missing(image, put, layout, at):
    layout.tag("next", put.image("weights", "new code"))
    export("next", at.tar, delta_from="m", home=at.here)
    with pytest.raises(NotFoundError) as caught:
        import_(at.tar, home=at.there)
    assert caught.value.code == "bundle.incomplete"
    assert "weights (" in caught.value.why
    assert Layout(at.there.store).images() == ()


def test_a_delta_does_not_build_on_a_broken_blob(image, put, layout, at) -> None:
    export("m", at.tar, home=at.here)
    import_(at.tar, home=at.there)
    layout.tag("m", put.image("weights", "new code"))
    export("m", at.folder / "delta.tar", delta_from=at.tar, home=at.here)
    Layout(at.there.store).path(Digest.of(b"weights")).write_bytes(b"broken!")
    with pytest.raises(PolicyError) as caught:
        import_(at.folder / "delta.tar", home=at.there)
    assert caught.value.code == "store.blob_corrupt"
    assert Layout(at.there.store).resolve("m").digest == image.digest, "the name has not moved"


def test_a_corrupt_blob_is_not_exported(image, layout, at) -> None:
    layout.path(Digest.of(b"weights")).write_bytes(b"broken!")
    with pytest.raises(PolicyError, match="corrupt"):
        export("m", at.tar, home=at.here)
    assert not at.tar.exists()
    assert list(at.tar.parent.glob("*.tar*")) == []


def test_one_changed_bit_is_found_before_anything_has_a_name(image, at) -> None:
    export("m", at.tar, home=at.here)
    weights = bundle.blob_name(Digest.of(b"weights"))
    rewritten(at.tar, lambda name, content: (name, b"Weights" if name == weights else content))
    with pytest.raises(PolicyError) as caught:
        import_(at.tar, home=at.there)
    assert caught.value.code == "bundle.wrong_digest"
    assert Layout(at.there.store).images() == ()
    assert not Layout(at.there.store).has(Digest.of(b"weights"))


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("../escape", tarfile.REGTYPE, ""),
        ("/etc/passwd", tarfile.REGTYPE, ""),
        ("blobs/sha256/../../../x", tarfile.REGTYPE, ""),
        ("blobs/sha256/notadigest", tarfile.REGTYPE, ""),
        ("blobs", tarfile.SYMTYPE, "/etc"),
        ("blobs/sha256/" + "a" * 64, tarfile.SYMTYPE, "/etc/shadow"),
        ("blobs/sha256/" + "a" * 64, tarfile.LNKTYPE, "index.json"),
        ("index.json", tarfile.SYMTYPE, "/etc/passwd"),
        ("device", tarfile.CHRTYPE, ""),
        ("block", tarfile.BLKTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    ],
)
def test_what_could_reach_out_of_a_bundle_is_refused(image, at, name, kind, link) -> None:
    export("m", at.tar, home=at.here)
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    added(at.tar, member)
    with pytest.raises(PolicyError) as caught:
        import_(at.tar, home=at.there)
    assert caught.value.code == "bundle.refused"
    assert Layout(at.there.store).images() == ()
    assert not (at.folder / "escape").exists()


def test_files_other_tools_put_in_are_passed_over(image, at) -> None:
    export("m", at.tar, home=at.here)
    added(at.tar, tarfile.TarInfo("manifest.json"), b"[]")
    assert import_(at.tar, home=at.there).images[0][0] == "m"


@pytest.mark.parametrize("index", [None, b"{", b"[]", b"{}", b'{"manifests": [{}]}', b'{"manifests": 7}'])
def test_a_tar_without_a_proper_index_is_no_bundle(image, at, index) -> None:
    export("m", at.tar, home=at.here)
    rewritten(
        at.tar, lambda name, content: (name, content) if name != "index.json" else (name, index) if index else None
    )
    with pytest.raises(UsageError) as caught:
        import_(at.tar, home=at.there)
    assert caught.value.code == "bundle.malformed"


@given(data=st.binary(max_size=2000))
def test_any_other_file_is_refused_in_words(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "x.tar").write_bytes(data)
    with pytest.raises(CortenError) as caught:
        import_(folder / "x.tar", home=Home(folder / "home"))
    assert caught.value.code in ("bundle.refused", "bundle.malformed")


def test_a_file_that_is_not_there_is_said_to_be_unreadable(at) -> None:
    with pytest.raises(UsageError) as caught:
        import_(at.folder / "none.tar", home=at.there)
    assert caught.value.code == "bundle.unreadable"


def test_an_image_can_be_imported_under_another_name(image, at) -> None:
    export("m", at.tar, home=at.here)
    assert import_(at.tar, name="copy", home=at.there).images == (("copy", image.digest),)


def test_names_that_are_none_of_ours_become_the_nearest(image, at) -> None:
    export("m", at.tar, home=at.here)

    def renamed(name, content):
        return name, content.replace(b'"m"', b'"localhost/My_Model:latest"') if name == "index.json" else content

    rewritten(at.tar, renamed)
    assert import_(at.tar, home=at.there).images[0][0] == "localhost-my-model-latest"


def test_titles_in_the_file_cannot_move_the_cursor(image, put, layout, at) -> None:
    layout.tag("next", put.image("weights", "new code"))
    export("next", at.tar, delta_from="m", home=at.here)

    def titled(name, content):
        return name, content.replace(b'"weights"', b'"\\u001b[2Jweights"') if name == "corten-bundle.json" else content

    rewritten(at.tar, titled)
    with pytest.raises(NotFoundError) as caught:
        import_(at.tar, home=at.there)
    assert "?[2Jweights" in caught.value.why
