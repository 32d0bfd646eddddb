"""The folders client and daemon meet in, made and checked."""

from __future__ import annotations

import os
import stat

from corten.core.home import Home
from corten.errors import EngineError, PolicyError


def make_folders(home: Home) -> None:
    """Make `state` (the owner's alone) and `run` (which replicas pass through). Raises what `check_run` does."""
    try:
        home.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.run.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise EngineError(
            "control.home_unusable",
            "Corten's folder cannot be written",
            where=str(error.filename or home.root),
            why=error.strerror or str(error),
            hint="set CORTEN_HOME to a folder of yours",
        ) from error
    check_run(home)


def check_run(home: Home) -> None:
    """Raise PolicyError `control.foreign_folder` when somebody else could put their socket in the place of ours.

    `run` may lie in /tmp under a name anybody can work out, so another user might have made it first.
    """
    try:
        found = home.run.lstat()
    except OSError:
        return
    ours = found.st_uid == os.getuid() and stat.S_ISDIR(found.st_mode)
    if ours and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return
    raise PolicyError(
        "control.foreign_folder",
        "the folder for Corten's sockets is not ours alone",
        where=str(home.run),
        why=f"owner uid {found.st_uid}, mode {stat.filemode(found.st_mode)}; expected uid {os.getuid()}, a folder"
        " nobody else can write to",
        hint="remove it, or set CORTEN_HOME to another folder",
    )
