"""Folders replicas must pass through: for uid 65532 when Corten is root, for nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from corten.engine.sandbox import GID, UID
from corten.errors import EngineError


def passable(path: Path) -> bool:
    """Whether uid 65532 may walk down to `path`, by the mode bits of every folder on the way that exists."""
    return all(_passable(folder.stat()) for folder in (path, *path.parents) if folder.is_dir())


def make_passable(path: Path) -> None:
    """Make a folder; as root, let group 65532 walk through it (not look into it). Raises OSError and EngineError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        # In /tmp anybody may have been first; sockets in somebody else's folder are somebody else's.
        raise EngineError(
            "engine.foreign_folder",
            f"`{path}` does not belong to you",
            why=f"it is a link, no folder, or owned by uid {found.st_uid}",
            hint="remove it, or set CORTEN_HOME to another folder",
        )
    if os.geteuid() == 0 and not _passable(found):
        os.chown(path, -1, GID)
        path.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXGRP)


def make_private(path: Path) -> None:
    """Make a folder only its owner can enter. Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _passable(found: os.stat_result) -> bool:
    if found.st_uid == UID:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == GID:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)
