"""What is known of asynchronous jobs, in a folder that replicas of a deployment may share.

A job is `ID.job` (a Record) and, when it has an answer, `ID.out` (the answer's body). Whoever starts it makes the first
by a link, which only one can do: an id is worked on once, whatever the number of processes. Each process holds a lock
on a file of its own: a job whose owner's lock is free was lost with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import msgspec

_JOB, _OUT, _CANCEL, _OWNER = ".job", ".out", ".cancel", ".owner"


class Status(Enum):
    """Where a job is; the words are Cog's."""

    STARTING = "starting"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def is_over(self) -> bool:
        """Whether nothing changes any more."""
        return self in {Status.SUCCEEDED, Status.FAILED, Status.CANCELED}


class Record(msgspec.Struct):
    """A job. Times are unix times; `digest` is that of the request; `code` and `content_type` are the answer's."""

    id: str
    digest: str
    owner: str
    replica: str
    created_s: float
    status: Status = Status.STARTING
    started_s: float | None = None
    ended_s: float | None = None
    code: int = 0
    content_type: str = ""
    size_bytes: int = 0


class LaterStore:
    """The jobs in a folder, as one process sees its own and the others'. Raises OSError for what the disk refuses."""

    def __init__(self, folder: Path, *, most: int, most_bytes: int, keep_s: float) -> None:
        self._folder = folder
        self._most = most
        self._most_bytes = most_bytes
        self._keep_s = keep_s
        self.owner = secrets.token_hex(8)
        self._lock = os.open(folder / (self.owner + _OWNER), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def create(self, record: Record) -> bool:
        """Claim an id; False when it is taken."""
        fresh = self._written(record)
        try:
            os.link(fresh, self._path(record.id, _JOB))
        except FileExistsError:
            return False
        finally:
            fresh.unlink()
        return True

    def update(self, record: Record, body: bytes | None = None) -> None:
        """Write down where a job of ours is, its answer first."""
        if body is not None:
            beside = self._folder / f".{self.owner}{_OUT}"
            beside.write_bytes(body)
            beside.replace(self._path(record.id, _OUT))
            record.size_bytes = len(body)
        self._written(record).replace(self._path(record.id, _JOB))

    def read(self, id_: str) -> Record | None:
        """A job, None when it is not known (any more)."""
        try:
            return msgspec.json.decode(self._path(id_, _JOB).read_bytes(), type=Record)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def body(self, id_: str) -> bytes | None:
        """The body of its answer; None when there is none."""
        try:
            return self._path(id_, _OUT).read_bytes()
        except FileNotFoundError:
            return None

    def is_lost(self, record: Record) -> bool:
        """Whether nobody works any more on what is not over."""
        return not record.status.is_over and not self._lives(record.owner)

    def ask_to_cancel(self, id_: str) -> None:
        """Tell its owner, who looks."""
        self._path(id_, _CANCEL).touch(mode=0o600)

    def is_to_cancel(self, id_: str) -> bool:
        """Whether somebody asked."""
        return self._path(id_, _CANCEL).exists()

    def remove(self, id_: str) -> None:
        """Forget a job."""
        for kind in (_JOB, _OUT, _CANCEL):
            self._path(id_, kind).unlink(missing_ok=True)

    def sweep(self, now_s: float) -> None:
        """Forget what ended long ago, then the oldest beyond the bounds. Any process may, several at once too."""
        over: list[tuple[float, Record]] = []
        for record in self._records():
            lost = self.is_lost(record)
            if record.status.is_over or lost:
                over.append((record.ended_s or record.created_s, record))
        over.sort(key=lambda one: one[0])
        total_bytes = sum(record.size_bytes for _, record in over)
        for index, (ended_s, record) in enumerate(over):
            crowded = len(over) - index > self._most or total_bytes > self._most_bytes
            if not crowded and ended_s > now_s - self._keep_s:
                break
            total_bytes -= record.size_bytes
            self.remove(record.id)
        for path in self._folder.glob(f"*{_OWNER}"):
            owner = path.name.removesuffix(_OWNER)
            if owner != self.owner and not self._lives(owner):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Give up the lock: what is not over is lost."""
        with contextlib.suppress(OSError):
            (self._folder / (self.owner + _OWNER)).unlink(missing_ok=True)
        os.close(self._lock)

    def _records(self) -> Iterator[Record]:
        for path in self._folder.glob(f"j*{_JOB}"):
            if (record := self.read(path.name[1:].removesuffix(_JOB))) is not None:
                yield record

    def _lives(self, owner: str) -> bool:
        if owner == self.owner:
            return True
        try:
            handle = os.open(self._folder / (owner + _OWNER), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(handle)
        return False

    def _written(self, record: Record) -> Path:
        beside = self._folder / f".{self.owner}{_JOB}"
        beside.write_bytes(msgspec.json.encode(record))
        return beside

    def _path(self, id_: str, kind: str) -> Path:
        # Ids are letters, digits and `._~-`: with a letter before them no name is hidden, or `..`.
        return self._folder / f"j{id_}{kind}"


def new_id() -> str:
    """An id nobody guesses, in the order of time."""
    return f"{int(time.time() * 1e3):012x}{secrets.token_hex(10)}"
