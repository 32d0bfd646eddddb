"""Who may remove content, and when: never while somebody makes or uses what no name leads to yet.

A build takes layers from the cache and names them only at its end; in between nothing but this lock says that they are
wanted. Users share it, the one who removes has it alone. The kernel lets go of it when a process dies.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from corten.errors import CortenError
from corten.store.writing import translated

_FILE: Final = ".guard"
_LOOK_EVERY_S: Final = 0.05
# Removing takes seconds, building at most some minutes.
USER_WAIT_S: Final = 600.0
COLLECTOR_WAIT_S: Final = 120.0


@contextmanager
def using(store: Path, *, wait_s: float = USER_WAIT_S) -> Iterator[None]:
    """Keep content from being removed while the block runs; any number of users at once. `wait_s`: for `collecting`.

    Raises CortenError `store.busy`.
    """
    with _held(store, fcntl.LOCK_SH, wait_s, "content is being removed from it"):
        yield


@contextmanager
def collecting(store: Path, *, wait_s: float = COLLECTOR_WAIT_S) -> Iterator[None]:
    """Be the only one: nobody builds, imports or deploys while the block runs. Raises CortenError `store.busy`."""
    with _held(store, fcntl.LOCK_EX, wait_s, "something is built, imported or deployed all the time"):
        yield


@contextmanager
def _held(store: Path, how: int, wait_s: float, why: str) -> Iterator[None]:
    path = store / _FILE
    with translated(path, "lock the store"):
        store.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, how, wait_s, path, why)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, how: int, wait_s: float, path: Path, why: str) -> None:
    until_s = time.monotonic() + wait_s
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
            return
        if time.monotonic() > until_s:
            raise CortenError(
                "store.busy",
                "the store is in use",
                where=str(path),
                why=f"{why}; waited {wait_s:.0f} s",
                hint="look for a `corten` process that hangs, or try again later",
            )
        time.sleep(_LOOK_EVERY_S)
