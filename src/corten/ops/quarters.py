"""A place of its own for replicas of a build: beside the daemon's, so that neither takes the other's for a stray."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.core.home import Home
from corten.engine.base import Engine
from corten.store.writing import translated


@dataclass(frozen=True, slots=True)
class Quarters(Home):
    """A home with the store and trees of another, whose replicas and sockets are below `place`."""

    place: Path

    @property
    def replicas(self) -> Path:  # noqa: D102 - as in Home
        return self.place / "replicas"

    @property
    def run(self) -> Path:  # noqa: D102 - as in Home
        return self.place / "run"


@contextmanager
def quarters(home: Home, kind: Any, prefix: str) -> Iterator[Quarters]:
    """A folder `PREFIX...` for the replicas of one build, held by a lock as long as we live.

    Those of killed ones are cleared away first.
    """
    with translated(home.run, "make a folder for a replica"):
        for left in home.run.glob(f"{prefix}*"):
            with _locked(left) as gained:
                if gained:
                    _clear(Quarters(home.root, left), kind)
        folder = home.run / f".{prefix}{secrets.token_hex(4)}"
        folder.mkdir()
        folder.chmod(0o711)  # replicas of another user pass through
    try:
        with _locked(folder):
            # Only a folder that is held gets a name others look for.
            folder = folder.rename(folder.with_name(folder.name[1:]))
            yield Quarters(home.root, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        gained = False
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gained = True
        yield gained
    finally:
        os.close(descriptor)


def _clear(left: Quarters, kind: Any) -> None:
    engine: Engine = kind(left)
    if left.replicas.is_dir():
        for one in engine.list():
            engine.remove(one.id)
    shutil.rmtree(left.place, ignore_errors=True)
