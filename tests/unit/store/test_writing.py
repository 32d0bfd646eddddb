"""Writing: whole or not at all, hashed on the way."""

from __future__ import annotations

import errno
import os
import threading
from itertools import accumulate

import pytest

from corten.core.digest import Digest
from corten.store.layout import Layout
from corten.store.writing import BlobWriter


def _reader(data: bytes, piece_bytes: int):
    """Give out data by pieces, as a socket does."""
    left = [data]

    def read(buffer) -> int:
        count = min(len(buffer), len(left[0]), piece_bytes)
        buffer[:count] = left[0][:count]
        left[0] = left[0][count:]
        return count

    return read


@pytest.mark.parametrize("piece_bytes", [1000, 300_000, 10_000_000])
def test_what_is_hashed_aside_has_the_digest_of_what_was_written(tmp_path, piece_bytes) -> None:
    data = bytes(range(256)) * 12_000
    read = _reader(data, piece_bytes)
    layout = Layout(tmp_path)

    with layout.writer() as blob:
        blob.write(b"before")
        while blob.fill(read):
            pass
        blob.write(b"behind")

    assert blob.digest == Digest.of(b"before" + data + b"behind")
    assert layout.path(blob.digest).read_bytes() == b"before" + data + b"behind"


def test_large_and_small_pieces_are_hashed_in_the_order_they_came(tmp_path) -> None:
    large = [bytes([number]) * 600_000 for number in range(7)]
    pieces = [piece for one in large for piece in (one, one[:9])]
    layout = Layout(tmp_path)

    with layout.writer() as blob:
        for piece in pieces:
            blob.write(piece)

    assert blob.digest == Digest.of(b"".join(pieces))
    assert layout.path(blob.digest).read_bytes() == b"".join(pieces)


def test_a_buffer_may_be_written_over_as_soon_as_it_was_taken(tmp_path) -> None:
    buffer = bytearray(b"first" * 200_000)
    whole = bytes(buffer)
    layout = Layout(tmp_path)

    with layout.writer() as blob:
        blob.write(buffer)
        buffer[:] = bytes(len(buffer))

    assert blob.digest == Digest.of(whole)


def _filled(layout: Layout, *readers) -> None:
    with layout.writer() as blob:
        for read in readers:
            blob.fill(read)


def test_a_reader_that_fails_leaves_neither_a_file_nor_a_thread(tmp_path) -> None:
    def fail(buffer) -> int:
        raise ConnectionResetError

    before = threading.active_count()
    layout = Layout(tmp_path)
    read = _reader(b"x" * 3_000_000, 1 << 20)
    with pytest.raises(ConnectionResetError):
        _filled(layout, read, fail)

    assert threading.active_count() == before
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name in {"sha256", ".incoming"}]


@pytest.mark.parametrize("refused", [False, True])
def test_a_large_blob_is_on_its_way_to_the_disk_while_it_is_written(tmp_path, monkeypatch, refused):
    """Each byte once: said again of what is there, the same advice would drop it from memory."""
    told = []

    def advise(descriptor, at, length, advice):
        told.append((at, length))
        assert advice == os.POSIX_FADV_DONTNEED
        if refused:
            raise OSError(errno.EINVAL, "no such advice here")

    monkeypatch.setattr(os, "posix_fadvise", advise)
    writer, piece = BlobWriter(tmp_path / "b"), b"x" * (3 << 20)
    for _ in range(15):
        writer.write(piece)
    writer.finish()
    assert [at for at, _ in told] == [0, *accumulate(length for _, length in told)][:-1]
    assert 0 <= writer.size_bytes - sum(length for _, length in told) < 16 << 20
    assert len(told) == 2
    assert writer.digest == Digest.of(piece * 15)
