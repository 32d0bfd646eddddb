"""Fakes and contract suites for tests of your own: real things, made small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corten.testing.kubernetes import FakeApiServer, Fault

__all__ = ["FakeApiServer", "Fault"]


def __getattr__(name: str) -> Any:
    """What is named above, once somebody asks for it: the other fakes need no cluster's parts."""
    if name in __all__:
        from corten.testing import kubernetes

        return getattr(kubernetes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
