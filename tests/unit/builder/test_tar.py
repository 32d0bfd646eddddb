"""Tar bytes, with the standard library's reader as the judge."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.entry import Entry, EntryKind
from corten.builder.tar import in_order, merged, tar
from corten.errors import UsageError

_PART = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda text: text not in {".", ".."} and not text.startswith(".wh.")
)
_NAME = st.lists(_PART, min_size=1, max_size=6).map("/".join)


def _tree(files: dict[str, bytes]) -> dict[str, bytes]:
    """Of random files those that do not lie below another file."""
    return {
        name: data
        for name, data in files.items()
        if not any(name.startswith(f"{other}/") for other in files if other != name)
    }


def _read(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


def _packed(*entries: Entry) -> bytes:
    return b"".join(tar(in_order(entries)))


@given(st.dictionaries(_NAME, st.binary(max_size=2000), max_size=8).map(_tree))
def test_what_goes_in_comes_out_of_the_standard_librarys_reader(files: dict[str, bytes]) -> None:
    data = _packed(*(Entry(name, data=content) for name, content in files.items()))

    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        seen = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
        folders = [member.name for member in archive if member.isdir()]
    assert seen == files
    assert len(folders) == len(set(folders))
    wanted = {"/".join(name.split("/")[:end]) for name in files for end in range(1, name.count("/") + 1)}
    assert set(folders) == wanted


@given(_NAME, _NAME)
def test_links_keep_their_target(name: str, target: str) -> None:
    (member,) = (one for one in _read(_packed(Entry(name, EntryKind.SYMLINK, 0o777, target=target))) if one.issym())

    assert (member.name, member.linkname) == (name, target)


@given(st.dictionaries(_NAME, st.binary(max_size=50), max_size=6).map(_tree), st.randoms())
def test_the_order_of_the_entries_does_not_change_the_bytes(files, random) -> None:
    entries = [Entry(name, data=content) for name, content in files.items()]
    shuffled = random.sample(entries, len(entries))

    assert _packed(*entries) == _packed(*shuffled)


def test_owner_and_time_are_nobodys() -> None:
    members = _read(_packed(Entry("a/b", mode=0o755, data=b"x")))
    assert [member.name for member in members] == ["a", "a/b"]
    for member in members:
        assert (member.uid, member.gid, member.mtime, member.uname, member.gname) == (0, 0, 0, "", "")


def test_short_ascii_names_need_no_pax_record() -> None:
    data = _packed(Entry("usr/lib/" + "n" * 90, data=b"x"), Entry("/".join(["d" * 50, "e" * 50, "f" * 90]), data=b"y"))

    assert b"PaxHeader" not in data


@pytest.mark.parametrize("length", [99, 100, 101, 155, 156, 255, 256, 257, 4000])
def test_names_and_folders_of_every_length_survive(length: int) -> None:
    name = "a" * length

    assert [member.name for member in _read(_packed(Entry(f"{name}/{name}", data=b"")))] == [name, f"{name}/{name}"]


@pytest.mark.parametrize("size", [8 << 30, (8 << 30) + 1, 1 << 40])
def test_a_size_ustar_has_no_room_for_goes_into_a_pax_record(size: int) -> None:
    from corten.builder.tar import _header

    header = _header("models/large.safetensors", EntryKind.FILE, 0o644, size, "")
    with tarfile.open(fileobj=_Endless(header)) as archive:
        member = archive.next()

    assert member is not None
    assert (member.name, member.size) == ("models/large.safetensors", size)


def test_the_largest_size_ustar_has_room_for_needs_none() -> None:
    from corten.builder.tar import _header

    header = _header("f", EntryKind.FILE, 0o644, (8 << 30) - 1, "")

    assert len(header) == 512
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == (8 << 30) - 1


class _Endless(io.RawIOBase):
    """A tar's first bytes and then as many zeros as anybody wants."""

    def __init__(self, head: bytes) -> None:
        self._head, self._at = head, 0

    def read(self, size: int = -1) -> bytes:
        piece = self._head[self._at : self._at + size].ljust(size, b"\0")
        self._at += size
        return piece

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset
        return offset

    def seekable(self) -> bool:
        return True


def test_files_are_streamed_from_disk(tmp_path) -> None:
    (tmp_path / "w").write_bytes(b"weights" * 500_000)

    data = _packed(Entry("models/w", data=tmp_path / "w"))

    assert data == _packed(Entry("models/w", data=b"weights" * 500_000))


@pytest.mark.parametrize(
    "name", ["../x", "a/../b", "/etc/passwd", "a//b", "./a", "a/.", "a\0b", "", "a/", ".wh.x", "a/.wh..wh..opq"]
)
def test_names_that_could_land_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        _packed(Entry(name, data=b""))
    assert caught.value.code == "layer.unsafe_name"


def test_duplicates_are_refused() -> None:
    with pytest.raises(UsageError, match="twice") as caught:
        _packed(Entry("a", data=b"1"), Entry("a", data=b"2"))
    assert caught.value.code == "layer.unsorted"


@pytest.mark.parametrize("kind", [EntryKind.FILE, EntryKind.SYMLINK])
def test_nothing_may_lie_below_a_file_or_a_link(kind: EntryKind) -> None:
    with pytest.raises(UsageError, match="not a folder"):
        _packed(Entry("a", kind, target="/etc"), Entry("a/b", data=b""))


def test_a_name_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        _packed(Entry("a\udcff", data=b""))


def test_a_file_that_grows_or_shrinks_meanwhile_is_an_error(tmp_path) -> None:
    path = tmp_path / "w"
    for change in (b"x" * 10, b"x" * 3_000_000):
        path.write_bytes(b"y" * 2_000_000)
        pieces = tar([Entry("w", data=path)])
        next(pieces)
        path.write_bytes(change)
        with pytest.raises(UsageError) as caught:
            b"".join(pieces)
        assert caught.value.code == "source.changed"


def test_merging_keeps_order_and_lets_the_last_source_win() -> None:
    one = [Entry("a", data=b"1"), Entry("c", data=b"1")]
    two = [Entry("b", data=b"2"), Entry("c", data=b"2")]

    assert [(entry.name, entry.data) for entry in merged([one, two])] == [("a", b"1"), ("b", b"2"), ("c", b"2")]


def test_a_whiteout_is_an_empty_file_of_the_name_that_hides() -> None:
    data = b"".join(tar([Entry("a/gone", EntryKind.WHITEOUT), Entry("a/here", data=b"x")]))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [(one.name, one.size, one.isfile()) for one in archive] == [
            ("a", 0, False), ("a/.wh.gone", 0, True), ("a/here", 1, True),
        ]  # fmt: skip
