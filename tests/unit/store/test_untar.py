import gzip
import io
import os
import tarfile

import pytest
from backports import zstd
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corten.core.digest import Digest
from corten.core.image import Compression, Layer, LayerKind
from corten.errors import PolicyError
from corten.store.untar import LayerTar, Member, MemberKind, opened

part = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",)), min_size=1, max_size=40).filter(
    lambda text: text not in (".", "..") and not text.startswith(".wh.")
)
names = st.lists(part, min_size=1, max_size=6).map("/".join)
members = st.lists(
    st.tuples(names, st.sampled_from("fdls"), st.binary(max_size=2000), st.booleans()),
    max_size=12,
    unique_by=lambda one: one[0],
)


def written(entries, form):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=form) as tar:
        for name, kind, content, executable in entries:
            info = tarfile.TarInfo(name)
            info.mode = 0o700 if executable else 0o600
            info.uname = "somebody"
            info.mtime = 1234.5 if form == tarfile.PAX_FORMAT else 1234
            if kind == "f":
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                continue
            info.type = {"d": tarfile.DIRTYPE, "l": tarfile.LNKTYPE, "s": tarfile.SYMTYPE}[kind]
            info.linkname = "/" + name if kind == "s" else name
            tar.addfile(info)
    return data.getvalue()


def read(data):
    tar = LayerTar(io.BytesIO(data), "test")
    found = []
    for member in tar.members():
        content = b""
        if member.kind is MemberKind.FILE:
            reading, writing = os.pipe()
            with os.fdopen(reading, "rb") as got:
                tar.copy(member.size_bytes, writing)
                os.close(writing)
                content = got.read()
        found.append((member, content))
    return found, tar.finish()


@settings(deadline=None)
@given(members, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
@example([("a" * 40 + "/" + "é" * 40 + "/" + "x" * 200, "f", b"1", True)], tarfile.PAX_FORMAT)
@example([("n" * 100, "f", b"1", True), ("p/" * 60 + "x" * 100, "s", b"", False)], tarfile.GNU_FORMAT)
def test_what_tarfile_writes_is_read_as_tarfile_reads_it(entries, form):
    data = written(entries, form)
    found, digest = read(data)
    assert digest == Digest.of(data)
    kinds = {"f": MemberKind.FILE, "d": MemberKind.FOLDER, "l": MemberKind.HARDLINK, "s": MemberKind.SYMLINK}
    assert [(m.name, m.kind) for m, _ in found] == [(name, kinds[kind]) for name, kind, _, _ in entries]
    for (member, content), (name, kind, expected, executable) in zip(found, entries, strict=True):
        assert content == (expected if kind == "f" else b"")
        assert member.executable is executable
        assert member.target == {"l": name, "s": "/" + name}.get(kind, "")


@settings(deadline=None)
@given(names.filter(lambda name: len(name.encode()) < 100), st.binary(max_size=600))
def test_ustar_is_read_too(name, content):
    ((member, got),), _ = read(written([(name, "f", content, False)], tarfile.USTAR_FORMAT))
    assert (member.name, got) == (name, content)


def test_a_ustar_prefix_is_part_of_the_name():
    name = "d" * 120 + "/" + "f" * 90
    ((member, _),), _ = read(written([(name, "f", b"", False)], tarfile.USTAR_FORMAT))
    assert member.name == name


@settings(deadline=None)
@given(st.binary(max_size=3000) | st.builds(bytes.join, st.just(b""), st.lists(st.binary(min_size=512, max_size=512))))
def test_any_bytes_are_read_or_refused_with_a_reason(data):
    try:
        _, digest = read(data)
    except PolicyError:
        return  # anything else fails the test
    assert digest == Digest.of(data)


@settings(deadline=None)
@given(members, st.data())
def test_a_damaged_tar_is_noticed_by_its_digest_at_the_latest(entries, data):
    good = written(entries, tarfile.PAX_FORMAT)
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        _, digest = read(bad)
    except PolicyError:
        return
    assert digest != Digest.of(good)


def one(name="file", kind=tarfile.REGTYPE, link="", **more):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.linkname = link
    info.pax_headers = more.pop("pax", {})
    for key, value in more.items():
        setattr(info, key, value)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    return data.getvalue()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (one("../out"), "../out"),
        (one("a/../../out"), "a/../../out"),
        (one("/etc/passwd"), "/etc/passwd"),
        (one("x", pax={"path": "/etc/passwd"}), "/etc/passwd"),
        (one("x", pax={"path": "../../x"}), "../../x"),
        (one("disk", tarfile.BLKTYPE), "disk"),
        (one("null", tarfile.CHRTYPE), "null"),
        (one("pipe", tarfile.FIFOTYPE), "pipe"),
        (one("odd", b"Z"), "odd"),
        (one("link", tarfile.LNKTYPE, "../../etc/shadow"), "link"),
        (one("link", tarfile.LNKTYPE, "/etc/shadow"), "link"),
        (one("link", tarfile.SYMTYPE, ""), "link"),
        (one("link", tarfile.SYMTYPE, "t" * 5000), "link"),
        (one("x" * 300), "x" * 100),
        (one("/".join("d" * 101)), "d/d"),
        (one("a/" * 2100 + "x"), "a/a"),
        (one("a/.wh..."), "a/.wh..."),
        (one("a/.wh..", mode=0o644), "a/.wh.."),
        (one(".wh."), ".wh."),
        (one("."), "."),
        (one("x", pax={"path": "a\0b"}), "a"),
    ],
)
def test_a_member_that_leads_elsewhere_is_refused_by_name(data, named):
    with pytest.raises(PolicyError) as raised:
        read(data)
    assert raised.value.code == "layer.unsafe_member"
    assert named in raised.value.what


@pytest.mark.parametrize(
    "data",
    [
        one(pax={"GNU.sparse.major": "1"}),
        one(pax={"comment": "x" * 100_000}),
        one(pax={"size": "-5"}),
        one(pax={"size": "99999999999999999999999"}),
        one("file", size=700)[:1024],
        one()[:300],
        b"\xff" * 512,
    ],
)
def test_a_header_that_means_harm_is_refused(data):
    with pytest.raises(PolicyError) as raised:
        read(data)
    assert raised.value.code in ("layer.malformed", "layer.unsafe_member")


def test_sizes_beyond_eight_gibibytes_are_understood():
    header = bytearray(tarfile.TarInfo("big").tobuf())
    header[124:136] = b"\x80" + (9 << 30).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    member = next(LayerTar(io.BytesIO(bytes(header)), "test").members())
    assert member == Member(("big",), MemberKind.FILE, executable=False, size_bytes=9 << 30)


@pytest.mark.parametrize("form", list(Compression))
def test_every_compression_is_read_and_the_plain_bytes_are_hashed(tmp_path, form):
    plain = written([("a", "f", b"x" * 100_000, False)], tarfile.PAX_FORMAT)
    stored = {
        Compression.NONE: plain,
        # Two members and two frames: what parallel compressors write.
        Compression.GZIP: gzip.compress(plain[:5000]) + gzip.compress(plain[5000:]),
        Compression.ZSTD: zstd.compress(plain[:5000]) + zstd.compress(plain[5000:]),
    }[form]
    (tmp_path / "blob").write_bytes(stored)
    layer = Layer(LayerKind.BASE, "t", Digest.of(stored), Digest.of(plain), len(stored), len(plain), form)
    with opened(tmp_path / "blob", layer) as tar:
        assert [member.name for member in tar.members()] == ["a"]
        assert tar.finish() == layer.diff_id


@pytest.mark.parametrize("form", [Compression.GZIP, Compression.ZSTD])
def test_what_does_not_decompress_is_refused(tmp_path, form):
    stored = b"garbage, not compressed at all"
    (tmp_path / "blob").write_bytes(stored)
    layer = Layer(LayerKind.BASE, "t", Digest.of(stored), Digest.of(b"x"), len(stored), 1, form)
    with opened(tmp_path / "blob", layer) as tar, pytest.raises(PolicyError) as raised:
        next(tar.members())
    assert raised.value.code == "layer.malformed"


@pytest.mark.parametrize("form", [Compression.GZIP, Compression.ZSTD])
def test_a_cut_off_stream_is_refused(tmp_path, form):
    plain = written([("a", "f", os.urandom(50_000), False)], tarfile.PAX_FORMAT)
    stored = gzip.compress(plain) if form is Compression.GZIP else zstd.compress(plain)
    (tmp_path / "blob").write_bytes(stored[: len(stored) // 2])
    layer = Layer(LayerKind.BASE, "t", Digest.of(stored), Digest.of(plain), len(stored), len(plain), form)
    with opened(tmp_path / "blob", layer) as tar, pytest.raises(PolicyError):
        for _ in tar.members():
            pass
