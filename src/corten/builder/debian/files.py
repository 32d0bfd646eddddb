"""Files of the cache that are named by their digest, and writing files so that they are whole or not there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from corten.core.digest import Digest
from corten.errors import CortenError, PolicyError


@contextmanager
def replacing(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A function that writes to a file beside `path`, which takes its place when the block ends well.

    When it does not, the file is deleted. Raises CortenError (`cache.write`): told apart from a failing network, whose
    errors are OSErrors as well and pass through here.
    """
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:24]}.")
    stream = os.fdopen(handle, "wb")

    def write_piece(data: bytes) -> None:
        with _translated(path):
            stream.write(data)

    try:
        yield write_piece
        with _translated(path):
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
            Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    finally:
        with _translated(path):
            stream.close()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CortenError(
            "cache.write",
            "cannot write to the cache",
            where=str(path.parent),
            why=str(error),
            hint="free space there or make it writable; all of the cache may be deleted",
        ) from error


def write(path: Path, data: bytes) -> None:
    """Put bytes in a file, whole or not at all."""
    with replacing(path) as write_piece:
        write_piece(data)


def is_intact(path: Path, digest: Digest, size_bytes: int) -> bool:
    """Whether a file is there with this size and digest."""
    try:
        return path.stat().st_size == size_bytes and Digest.of_file(path) == digest
    except OSError:
        return False


class MismatchError(PolicyError):
    """Bytes that are not those a signed list promised."""


def checked(
    pieces: Iterable[bytes], digest: Digest, size_bytes: int, mismatch: Callable[[str], MismatchError]
) -> Iterator[bytes]:
    """The same pieces; at the end `mismatch` is raised unless they were what was promised, earlier if they are more."""
    state, seen_bytes = hashlib.sha256(), 0
    for piece in pieces:
        state.update(piece)
        seen_bytes += len(piece)
        if seen_bytes > size_bytes:
            raise mismatch(f"more than the expected {size_bytes} bytes")
        yield piece
    if seen_bytes != size_bytes or state.hexdigest() != digest.hex:
        raise mismatch(
            f"got {seen_bytes} bytes, sha256 {state.hexdigest()}; expected {size_bytes} bytes, sha256 {digest.hex}"
        )
