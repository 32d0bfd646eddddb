"""Running Python as another user: which interpreter and packages somebody else may read."""

import stat
import sys
from pathlib import Path

import pytest


def python_for_others():
    """An interpreter of this version that any user may run, and the PYTHONPATH of Corten for it; skips if none is."""
    packages = [entry for entry in sys.path if "site-packages" in entry or entry.endswith("/src")]
    closed = [entry for entry in packages if not _open(Path(entry))]
    if closed:
        pytest.skip(f"other users may not pass {closed[0]}")
    for path in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        if Path(path).exists() and _open(Path(path)) and _open(Path(path).resolve()):
            return path, ":".join(packages)
    pytest.skip("no Python of this version that another user may run")


def _open(path):
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (path, *path.parents))
