"""Files of the cache that are named by their digest, and writing files so that they are whole or not there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from corten.core.digest import Digest
from corten.errors import PolicyError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream to a file beside `path` that takes its place when the block ends well, and is deleted otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:24]}.", delete=False) as stream:
        try:
            yield stream.file  # type: ignore[misc]
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
            Path(stream.name).replace(path)
        except BaseException:
            Path(stream.name).unlink(missing_ok=True)
            raise


def write(path: Path, data: bytes) -> None:
    """Put bytes in a file, whole or not at all."""
    with replacing(path) as stream:
        stream.write(data)


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
