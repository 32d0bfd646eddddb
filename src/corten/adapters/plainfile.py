"""Open a model file that may be compressed, told by its first bytes and never by its name.

The magic numbers are those joblib knows (joblib/compressor.py); each has a decoder in the standard library.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from corten.errors import UsageError

# What a decoder raises for bytes that are not its own.
BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)


class _ZlibFile(io.RawIOBase):
    """Reads a zlib stream (RFC 1950) in pieces; the standard library has no file object for it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # typeshed has no ReadableBuffer here
        while not self._decoder.eof:
            data = self._decoder.unconsumed_tail or self._stream.read(1 << 16)
            if not data:
                raise EOFError("the compressed stream ends early")
            # The limit keeps a bomb from growing in memory: at most what the reader asked for.
            if plain := self._decoder.decompress(data, len(view)):
                view[: len(plain)] = plain
                return len(plain)
        return 0


def _open_zlib(stream: BinaryIO) -> BinaryIO:
    return io.BufferedReader(_ZlibFile(stream), 1 << 16)


def _open_gzip(stream: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", gzip.GzipFile(fileobj=stream, mode="rb"))


def _open_bz2(stream: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", bz2.BZ2File(stream))


def _open_lzma(stream: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", lzma.LZMAFile(stream))


_DECODERS: tuple[tuple[bytes, str, Callable[[BinaryIO], BinaryIO]], ...] = (
    (b"\x1f\x8b", "gzip", _open_gzip),
    (b"BZh", "bzip2", _open_bz2),
    (b"\xfd7zXZ", "xz", _open_lzma),
    (b"\x5d\x00", "lzma", _open_lzma),
    # zlib's second byte makes the first two a multiple of 31 (RFC 1950 §2.2): checked, since `x` alone is common.
    (b"\x78\x01", "zlib", _open_zlib),
    (b"\x78\x5e", "zlib", _open_zlib),
    (b"\x78\x9c", "zlib", _open_zlib),
    (b"\x78\xda", "zlib", _open_zlib),
)
_UNREADABLE = {b"\x04\x22\x4d\x18": "LZ4", b"\x28\xb5\x2f\xfd": "Zstandard"}


def compression_of(head: bytes) -> str:
    """The name of the compression these first bytes belong to, or an empty string."""
    return next((name for magic, name, _ in _DECODERS if head.startswith(magic)), "")


@contextmanager
def open_plain(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Open a file for reading without its compression; give the stream and the compression's name ("" for none).

    Raises UsageError for a compression that cannot be read. What is read later may raise one of `BROKEN`.
    """
    with path.open("rb") as stored:
        head = stored.read(8)
        stored.seek(0)
        name, decode = _decoder_of(head, path)
        if decode is None:
            yield stored, ""
        else:
            with decode(stored) as plain:
                yield plain, name


def _decoder_of(head: bytes, path: Path) -> tuple[str, Callable[[BinaryIO], BinaryIO] | None]:
    for magic, name, decode in _DECODERS:
        if head.startswith(magic):
            return name, decode
    for magic, name in _UNREADABLE.items():
        if head.startswith(magic):
            raise UsageError(
                "adapter.compression",
                f"`{path.name}` is compressed with {name}",
                where=str(path),
                why="Corten reads zlib, gzip, bzip2, xz and lzma",
                hint="save it again with `joblib.dump(model, path, compress=3)`",
            )
    return "", None
