"""Layers: digests of what is really stored, the same bytes every time, a cache that never lies."""

from __future__ import annotations

import gzip
import tarfile
import zlib

import pytest

from corten.builder.entry import Entry, Slice
from corten.builder.layer import LayerCache, cache_key, write_layer
from corten.builder.tar import tar
from corten.core.digest import Digest
from corten.core.image import Compression, LayerKind
from corten.errors import UsageError
from corten.store.layout import Layout

_ENTRIES = [Entry(f"app/{number:04}.py", data=b"print(%d)\n" % number * number) for number in range(300)]


def _write(layout: Layout, compression: Compression, entries=_ENTRIES):
    return write_layer(entries, layout, kind=LayerKind.CODE, title="code", compression=compression)


def _plain(data: bytes, compression: Compression) -> bytes:
    from backports import zstd

    match compression:
        case Compression.NONE:
            return data
        case Compression.GZIP:
            return gzip.decompress(data)
        case Compression.ZSTD:
            return zstd.decompress(data)


@pytest.mark.parametrize("compression", Compression)
def test_both_digests_and_sizes_are_those_of_the_stored_bytes(tmp_path, compression) -> None:
    layout = Layout(tmp_path)

    layer = _write(layout, compression)

    stored = layout.path(layer.digest).read_bytes()
    plain = _plain(stored, compression)
    assert (Digest.of(stored), len(stored)) == (layer.digest, layer.size_bytes)
    assert (Digest.of(plain), len(plain)) == (layer.diff_id, layer.tar_bytes)
    assert plain == b"".join(tar(_ENTRIES))


@pytest.mark.parametrize("compression", Compression)
def test_the_same_entries_give_the_same_digest(tmp_path, compression) -> None:
    assert _write(Layout(tmp_path / "a"), compression) == _write(Layout(tmp_path / "b"), compression)


def test_zstd_bytes_do_not_depend_on_how_the_content_arrives(tmp_path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "w").write_bytes(data)

    in_memory = _write(Layout(tmp_path / "a"), Compression.ZSTD, [Entry("w", data=data)])
    streamed = _write(Layout(tmp_path / "b"), Compression.ZSTD, [Entry("w", data=tmp_path / "w")])

    assert in_memory == streamed


def _deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def test_what_wheels_bring_deflated_is_stored_as_it_is(tmp_path) -> None:
    (tmp_path / "wheel").write_bytes(b"before" + _deflated(b"large" * 500) + b"behind")
    (tmp_path / "spooled").write_bytes(b"large" * 500)
    large = Slice(tmp_path / "wheel", 6, len(_deflated(b"large" * 500)))
    entries = [
        Entry("a.py", data=b"x = 1\n" * 900, deflated=_deflated(b"x = 1\n" * 900)),
        Entry("b.so", data=tmp_path / "spooled", deflated=large),
        Entry("c", data=b"nobody compressed it"),
    ]
    layout = Layout(tmp_path / "store")

    layer = write_layer(entries, layout, kind=LayerKind.WHEELS, title="demo", compression=Compression.GZIP)

    stored = layout.path(layer.digest).read_bytes()
    assert gzip.decompress(stored) == b"".join(tar(entries))
    assert layer.diff_id == Digest.of(b"".join(tar(entries)))
    assert layer.tar_bytes == len(b"".join(tar(entries)))
    assert _deflated(b"x = 1\n" * 900) in stored
    assert _deflated(b"large" * 500) in stored


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.ZSTD])
def test_other_layers_do_not_care_whether_content_was_deflated(tmp_path, compression) -> None:
    bare, brought = Entry("a", data=b"x" * 900), Entry("a", data=b"x" * 900, deflated=_deflated(b"x" * 900))

    assert _write(Layout(tmp_path / "a"), compression, [bare]) == _write(Layout(tmp_path / "b"), compression, [brought])


def test_a_layer_that_fails_leaves_nothing(tmp_path) -> None:
    layout = Layout(tmp_path)

    with pytest.raises(UsageError) as caught:
        _write(layout, Compression.ZSTD, [*_ENTRIES, Entry("zzz", data=tmp_path / "missing")])

    assert caught.value.code == "source.unreadable"

    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name in {"sha256", ".incoming"}]


def test_an_uncompressed_layer_is_a_plain_tar(tmp_path) -> None:
    layer = _write(Layout(tmp_path), Compression.NONE)

    assert layer.digest == layer.diff_id
    with tarfile.open(Layout(tmp_path).path(layer.digest)) as archive:
        assert len(archive.getnames()) == len(_ENTRIES) + 1


def test_the_cache_gives_back_what_was_put(tmp_path) -> None:
    layout = Layout(tmp_path / "store")
    cache = LayerCache(tmp_path / "cache", layout)
    layer = _write(layout, Compression.ZSTD)

    cache.put(cache_key("x"), layer)

    assert cache.get(cache_key("x")) == layer
    assert cache.get(cache_key("y")) is None


@pytest.mark.parametrize("harm", ["deleted", "truncated", "garbage"])
def test_the_cache_forgets_what_the_store_or_the_disk_lost(tmp_path, harm) -> None:
    layout = Layout(tmp_path / "store")
    cache = LayerCache(tmp_path / "cache", layout)
    layer = _write(layout, Compression.ZSTD)
    cache.put("k", layer)

    match harm:
        case "deleted":
            layout.path(layer.digest).unlink()
        case "truncated":
            layout.path(layer.digest).write_bytes(b"")
        case "garbage":
            (tmp_path / "cache" / "k.json").write_bytes(b'{"kind":')

    assert cache.get("k") is None


def test_keys_tell_parts_apart() -> None:
    assert len({cache_key("ab", "c"), cache_key("a", "bc"), cache_key("abc"), cache_key("abc", "")}) == 4
