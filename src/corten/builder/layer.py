"""Entries to a stored layer, in one pass: tar, hash (diff_id), compress, hash (digest), write."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from corten.builder.entry import Entry, Slice
from corten.builder.tar import Content, parts, tar
from corten.core.digest import Digest
from corten.core.image import Compression, Layer, LayerKind
from corten.store.layout import Layout
from corten.store.writing import atomic_write, translated

# Changes whenever the bytes made from the same inputs change; part of every cache key.
FORMAT = 2
_CHUNK_BYTES = 1 << 20
_JOINED_BYTES = 1 << 16
# Level 3 with 2 workers: 16 times as fast as gzip -6 and smaller. The number of workers above 0 does not change the
# bytes, but 0 gives other bytes than 1, so it is fixed here and not taken from the machine.
_ZSTD_LEVEL = 3
_ZSTD_WORKERS = 2
_GZIP_LEVEL = 6


def write_layer(
    entries: Iterable[Entry],
    layout: Layout,
    *,
    kind: LayerKind,
    title: str,
    compression: Compression,
    packed: Callable[[int], None] = lambda _: None,
) -> Layer:
    """Write a layer of sorted entries into the store; `packed` is told of the tar's bytes as they pass.

    Memory stays at a few MB however large the layer. Raises what `tar` and `Layout.writer` raise.
    """
    # Stored as it is, the tar is the blob, and hashed by the blob's writer.
    plain = hashlib.sha256() if compression is not Compression.NONE else None
    tar_bytes = 0
    # What nobody has compressed yet compresses better as one stream than file by file.
    as_it_came = compression is Compression.GZIP and kind is LayerKind.WHEELS
    with layout.writer() as blob:
        for piece, data in _large(_members(entries)) if as_it_came else _compressed(entries, compression):
            if plain:
                plain.update(piece)
            tar_bytes += len(piece)
            if data:
                blob.write(data)
            packed(len(piece))
    return Layer(
        kind=kind,
        title=title,
        digest=blob.digest,
        diff_id=Digest(plain.hexdigest()) if plain else blob.digest,
        size_bytes=blob.size_bytes,
        tar_bytes=tar_bytes,
        compression=compression,
    )


@dataclass(frozen=True, slots=True)
class LayerCache:
    """Remembers which layer came out of which inputs. May be deleted at any time.

    An entry counts only while its blob is in the store, in the size it had.
    """

    folder: Path
    layout: Layout

    def get(self, key: str) -> Layer | None:
        """The layer made from the inputs of this key (64 hex digits), if it is still there."""
        try:
            layer = msgspec.json.decode((self.folder / f"{key}.json").read_bytes(), type=Layer)
            if self.layout.path(layer.digest).stat().st_size == layer.size_bytes:
                return layer
        except (OSError, msgspec.DecodeError):
            pass  # not there, or half a file of a broken disk: made again
        return None

    def put(self, key: str, layer: Layer) -> None:
        """Remember a layer."""
        with translated(self.folder, "write the layer cache"):
            self.folder.mkdir(parents=True, exist_ok=True)
            atomic_write(self.folder / f"{key}.json", msgspec.json.encode(layer))


def cache_key(*parts: str) -> str:
    """A key over parts that no other list of parts gives (lengths are hashed too), and over the format of layers."""
    state = hashlib.sha256(b"corten layer %d" % FORMAT)
    for part in parts:
        raw = part.encode("utf-8", "surrogateescape")
        state.update(b"\0%d:" % len(raw) + raw)
    return state.hexdigest()


_Pair = tuple[bytes, bytes]
"""Plain bytes of a tar, and what is stored for them (or for some before them)."""


def _compressed(entries: Iterable[Entry], compression: Compression) -> Iterator[_Pair]:
    compressor = _compressor(compression)
    for piece in _large_pieces(tar(entries)):
        yield piece, compressor.compress(piece)
    yield b"", compressor.flush()


def _members(entries: Iterable[Entry]) -> Iterator[_Pair]:
    """Gzip members: those that wheels bring along as they are, and one for what lies between two of them."""
    from corten.builder.gzip_members import begin, end, member  # with ISA-L, which a cached build does without
    from corten.store.inflate import checksum

    between: list[bytes] = []
    for part in parts(entries):
        if isinstance(part, Content):
            plain = b"".join(between)
            yield plain, member(plain)
            between.clear()
            crc = size_bytes = 0
            yield b"", begin()
            for piece in part.plain:
                crc = checksum(piece, crc)
                size_bytes += len(piece)
                yield piece, b""
            for data in _stream(part.deflated):
                yield b"", data
            yield b"", end(crc, size_bytes)
        else:
            between.append(part)
    plain = b"".join(between)
    yield plain, member(plain)


def _stream(deflated: bytes | Slice) -> Iterator[bytes]:
    if isinstance(deflated, bytes):
        yield deflated
        return
    with deflated.path.open("rb") as stream:
        stream.seek(deflated.offset)
        left = deflated.size_bytes
        while left and (data := stream.read(min(_CHUNK_BYTES, left))):
            left -= len(data)
            yield data


def _large(pairs: Iterable[_Pair]) -> Iterator[_Pair]:
    """The same in larger pieces: hashing and writing let go of the interpreter's lock, and a call is dear."""
    plain: list[bytes] = []
    stored: list[bytes] = []
    size_bytes = 0
    for piece, data in pairs:
        plain.append(piece)
        stored.append(data)
        size_bytes += len(piece) + len(data)
        if size_bytes >= _JOINED_BYTES:
            yield b"".join(plain), b"".join(stored)
            plain.clear()
            stored.clear()
            size_bytes = 0
    yield b"".join(plain), b"".join(stored)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _compressor(compression: Compression) -> _Compressor:
    match compression:
        case Compression.NONE:
            return _Plain()
        case Compression.GZIP:
            # 16 + window bits: a gzip header, in which zlib writes time 0 and no name. The OS byte says Unix.
            return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        case Compression.ZSTD:
            return _zstd()


def _zstd() -> _Compressor:
    from backports import zstd

    option = zstd.CompressionParameter
    compressor: _Compressor = zstd.ZstdCompressor(
        options={option.compression_level: _ZSTD_LEVEL, option.nb_workers: _ZSTD_WORKERS}
    )
    return compressor


def _large_pieces(pieces: Iterable[bytes]) -> Iterator[bytes]:
    # Hashing and compressing let go of the interpreter's lock only for larger pieces, and a call is dear.
    small: list[bytes] = []
    size = 0
    for piece in pieces:
        if len(piece) >= _CHUNK_BYTES:
            if small:
                yield b"".join(small)
                small, size = [], 0
            yield piece
            continue
        small.append(piece)
        size += len(piece)
        if size >= _CHUNK_BYTES:
            yield b"".join(small)
            small, size = [], 0
    if small:
        yield b"".join(small)
