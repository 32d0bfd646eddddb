"""Writing files so that they are whole or not there: beside, synced, renamed."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from corten.core.digest import Digest
from corten.errors import CortenError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# How many pieces hashing may be behind, and how large one has to be to be worth handing over.
_BEHIND = 4
_ASIDE_BYTES = 1 << 19
_BUFFER_BYTES = 1 << 19
_AHEAD_BYTES = 1 << 24


class BlobWriter:
    """A blob on its way into the store. Use it through `Layout.writer`."""

    def __init__(self, temporary: Path) -> None:
        self.size_bytes = 0
        self._temporary = temporary
        self._hash = hashlib.sha256()
        self._file = temporary.open("xb", buffering=0)
        self._aside: _Aside | None = None
        self._begun_bytes = 0  # on their way to the disk

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append and hash, a large piece by another thread. Raises CortenError `store.disk_full` and the like."""
        self._append(data)
        if isinstance(data, bytes) and len(data) >= _ASIDE_BYTES:  # bytes: nobody writes over them meanwhile
            self._beside().update(data)
            return
        if self._aside:
            self._aside.wait()
        self._hash.update(data)

    def fill(self, read: Callable[[memoryview], int]) -> int:
        """Append what `read` puts into a buffer, hashed by another thread while more is read; how many bytes, 0: none.

        Raises what `read` raises and what `write` does.
        """
        aside = self._beside()
        buffer = aside.buffer()
        piece = buffer[: read(buffer)]
        self._append(piece)
        aside.update(piece)
        return len(piece)

    def _beside(self) -> _Aside:
        if self._aside is None:
            self._aside = _Aside(self._hash)
        return self._aside

    def _append(self, data: bytes | bytearray | memoryview) -> None:
        with translated(self._temporary, "write a blob"):
            _write_all(self._file.fileno(), data)
        self.size_bytes += len(data)
        if self.size_bytes - self._begun_bytes >= _AHEAD_BYTES:
            self._begin_to_sync()

    def _begin_to_sync(self) -> None:
        """Let the disk work while more comes: left to `finish`, all of a large blob would be waited for there.

        Said of pages that are not on the disk yet, this advice begins to write them and returns (Linux,
        mm/fadvise.c); an error of that is fsync's to tell.
        """
        length = self.size_bytes - self._begun_bytes
        with suppress(OSError):  # a file system without such
            os.posix_fadvise(self._file.fileno(), self._begun_bytes, length, os.POSIX_FADV_DONTNEED)
        self._begun_bytes = self.size_bytes

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        if self._aside:
            self._aside.wait()
        return Digest(self._hash.hexdigest())

    def finish(self) -> None:
        """Make it durable, readable whatever the umask, and close."""
        os.fchmod(self._file.fileno(), 0o644)
        os.fsync(self._file.fileno())
        self._file.close()
        if self._aside:
            self._aside.close()

    def abandon(self) -> None:
        """Close and remove; nothing if it is gone."""
        if self._aside:
            self._aside.close()
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink()


class _Aside:
    """Hashing by a thread of its own, a few pieces behind: half of the time of a pull is sha256."""

    def __init__(self, state: hashlib._Hash) -> None:
        from concurrent.futures import Future, ThreadPoolExecutor  # 10 ms, which a cached build does without

        self._state = state
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="corten-hash")
        self._next = 0
        self._buffers: list[memoryview] = []
        self._hashed: list[Future[None] | None] = [None] * _BEHIND

    def buffer(self) -> memoryview:
        """One of some that go round, whose content is hashed already."""
        if not self._buffers:
            self._buffers = [memoryview(bytearray(_BUFFER_BYTES)) for _ in range(_BEHIND)]
        self._let_go()
        return self._buffers[self._next]

    def update(self, piece: bytes | memoryview) -> None:
        """Hash a part of the buffer given out last, or what does not change."""
        self._let_go()
        self._hashed[self._next] = self._pool.submit(self._state.update, piece)
        self._next = (self._next + 1) % _BEHIND

    def _let_go(self) -> None:
        """Wait for the piece whose turn has come again: no more than a few are held."""
        if hashed := self._hashed[self._next]:
            hashed.result()

    def wait(self) -> None:
        """Until all is hashed."""
        for hashed in self._hashed:
            if hashed:
                hashed.result()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=True)


def atomic_write(path: Path, data: bytes, beside: Path | None = None, *, mode: int = 0o644) -> None:
    """Replace a file's content in one step. `beside` is a folder on the same file system for the unfinished file.

    Raises OSError; wrap in `translated` where it reaches a user.
    """
    temporary = (beside or path.parent) / f".{path.name}.{secrets.token_hex(6)}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            os.fchmod(descriptor, mode)
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.rename(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut (fsync(2): the folder is a file of its own)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel lets go of it when the process dies, however it dies.

    Waits without a deadline of its own: holders do a few milliseconds of work and cannot leave it behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock on a file that is there. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def translated(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError into what the reader needs: `store.disk_full` when that is it, else `store.write_failed`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise CortenError(
                "store.disk_full",
                f"no space left to {doing}",
                where=str(path),
                why=f"{_free_megabytes(path.parent)} MB free: {error.strerror}",
                hint="free some space or set CORTEN_HOME to a larger disk, then run the same command again",
            ) from error
        raise CortenError(
            "store.write_failed",
            f"could not {doing}",
            where=str(error.filename or path),
            why=str(error.strerror or error),
            hint="check that the folder belongs to you and is writable (CORTEN_HOME)",
        ) from error


def _write_all(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    # write(2) may take less than it is given: at most 2 GiB at a time, and less when the disk runs full.
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _free_megabytes(folder: Path) -> str:
    try:
        return str(shutil.disk_usage(folder).free // 1_000_000)
    except OSError:
        return "unknown"
