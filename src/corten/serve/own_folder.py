"""A folder for what the processes of one replica share, in memory where that is to be had; gone when they are.

Whoever is killed cannot remove it, so each maker holds a lock on its folder, and removes those nobody holds any more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

_PREFIX = "corten-jobs-"
_NEW_S = 60.0  # a younger one may be about to be locked


class OwnFolder:
    """A new folder. Many containers can write to /dev/shm alone. Raises OSError where nothing can be written."""

    def __init__(self, memory: Path = Path("/dev/shm")) -> None:  # noqa: S108 - a new one is made in it
        base = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
        _sweep(base, time.time())
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def _sweep(base: Path, now_s: float) -> None:
    """Remove folders whose makers ended without a chance to; others' are not ours to touch, nor to complain of."""
    for folder in base.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            about = folder.lstat()
            if about.st_uid != os.geteuid() or now_s - about.st_mtime < _NEW_S:
                continue
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
