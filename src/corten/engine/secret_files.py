"""Secrets as files in this machine's memory, for engines that cannot hand them over in any other way."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corten.core.digest import Digest
from corten.core.home import Home
from corten.engine.folders import make_passable
from corten.engine.sandbox import GID, UID
from corten.errors import EngineError

_SHM: Final = Path("/dev/shm")  # noqa: S108 -- a folder there belongs to us, or is refused


@dataclass(frozen=True, slots=True)
class SecretFiles:
    """One folder a replica, below one of the home's that only its owner may list. `base` is a tmpfs."""

    home: Home
    base: Path = _SHM
    # The folder above goes with the last of them; it must not while another is being made.
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def _own(self) -> Path:
        # A home may have others' replicas besides the daemon's (`ops.quarters`).
        return self.base / f"corten-secrets-{Digest.of(str(self.home.replicas).encode()).hex[:16]}"

    def folder(self, replica_id: str) -> Path:
        """Where a replica's secrets are."""
        return self._own / replica_id

    def make(self, replica_id: str, secrets: Mapping[str, bytes], *, nobodys: bool, foreign: bool = False) -> None:
        """Write a replica's secrets anew; nothing where there are none. `nobodys`: they are for uid 65532.

        `foreign`: for somebody whom files cannot be given to; who keeps all others out then is the folder above.
        Raises EngineError `engine.no_memory_folder`, `engine.foreign_folder`, and OSError.
        """
        self.remove(replica_id)
        if not secrets:
            return
        if not self.base.is_mount():
            raise EngineError(
                "engine.no_memory_folder",
                "secrets have no place in memory",
                where=str(self.base),
                why="it is not a file system of its own",
                hint=f"mount -t tmpfs tmpfs {self.base}",
            )
        folder = self.folder(replica_id)
        with self.lock:
            make_passable(self._own)
            folder.mkdir(mode=0o700)
        for name, value in secrets.items():
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(value)
            _give(folder / name, 0o444 if foreign else 0o400, nobodys=nobodys)
        _give(folder, 0o555 if foreign else 0o500, nobodys=nobodys)

    def remove(self, replica_id: str) -> None:
        """Remove them, and the home's folder with the last."""
        folder = self.folder(replica_id)
        with suppress(OSError):
            folder.chmod(0o700)
        shutil.rmtree(folder, ignore_errors=True)
        with self.lock, suppress(OSError):  # not empty, or never made
            self._own.rmdir()


def _give(path: Path, mode: int, *, nobodys: bool) -> None:
    path.chmod(mode)
    if nobodys:
        os.chown(path, UID, GID)
