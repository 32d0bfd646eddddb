"""Files of the cache that are named by their digest, and writing files so that they are whole or not there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from corten.core.digest import Digest
from corten.errors import PolicyError
from corten.store.writing import atomic_write, translated

_DOING: Final = "write to the cache"


@contextmanager
def replacing(path: Path) -> Iterator[Callable[[bytes], None]]:
    """A function that writes to a file beside `path`, which takes its place when the block ends well.

    When it does not, the file is deleted. Raises CortenError (`store.disk_full`, `store.write_failed`): told apart from
    a failing network, whose errors are OSErrors as well and pass through here.
    """
    with translated(path, _DOING):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:24]}.")
    stream = os.fdopen(handle, "wb")

    def write_piece(data: bytes) -> None:
        with translated(path, _DOING):
            stream.write(data)

    try:
        yield write_piece
        with translated(path, _DOING):
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
            Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    finally:
        with translated(path, _DOING):
            stream.close()


def write(path: Path, data: bytes) -> None:
    """Put bytes in a file, whole or not at all."""
    with translated(path, _DOING):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, data)


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
