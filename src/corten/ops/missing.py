"""The error for a name nobody has, where no daemon is needed to know that."""

from __future__ import annotations

from corten.errors import NotFoundError


def no_deployment(name: str) -> NotFoundError:
    """Nothing is deployed under this name."""
    return NotFoundError("control.unknown_deployment", f"no deployment called `{name}`", hint="see `corten status`")
