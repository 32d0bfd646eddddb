"""Debian without dpkg: which package files make a base, proven by Debian's signatures, and those files.

`resolve` answers with a tuple of `Deb` that a lock can keep; `fetch` brings the files; `build.base` makes a tree
of them.
"""

from corten.build.debian.fetch import fetch
from corten.build.debian.mirror import Patience
from corten.build.debian.release import (
    DEFAULT_MIRROR,
    RELEASES,
    Deb,
    Release,
    Suite,
    release_for_python,
)
from corten.build.debian.resolve import resolve

__all__ = [
    "DEFAULT_MIRROR",
    "RELEASES",
    "Deb",
    "Patience",
    "Release",
    "Suite",
    "fetch",
    "release_for_python",
    "resolve",
]
