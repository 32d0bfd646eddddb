"""One home has one engine."""

from __future__ import annotations

from corten.errors import UsageError


def other_engine(kept: str, wanted: str) -> UsageError:
    """What to raise when something is deployed on `kept` and another one is asked for."""
    return UsageError(
        "control.other_engine",
        f"what is deployed runs on engine `{kept}`",
        why=f"one home has one engine; `{wanted}` was asked for",
        hint="`corten stop --all` first, or another CORTEN_HOME",
    )
