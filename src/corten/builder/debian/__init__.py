"""Debian without dpkg: which package files make a base, proven by Debian's signatures, and those files.

`resolve` answers with a tuple of `Deb` that a lock can keep; `fetch` brings the files; `build.base` makes a tree
of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from corten.builder.debian.release import (
    DEFAULT_MIRROR,
    RELEASES,
    Deb,
    Release,
    Suite,
    release_for_python,
)

if TYPE_CHECKING:
    from corten.builder.debian.fetcher import fetch
    from corten.builder.debian.resolver import resolve

__all__ = [
    "DEFAULT_MIRROR",
    "RELEASES",
    "Deb",
    "Release",
    "Suite",
    "fetch",
    "release_for_python",
    "resolve",
]

# Imported when first used (PEP 562): http.client and the resolver cost 45 ms, and a build that is locked and cached
# needs neither. The modules have other names than the functions: importing one sets its name on this package.
_LAZY = {"fetch": "fetcher", "resolve": "resolver"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
