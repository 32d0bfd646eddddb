"""One tree of errors. Each family owns an exit code; each error says what, where, why and how to mend it.

::

    CortenError            1   failed
    ├── UsageError         2   wrong use or configuration
    ├── NotFoundError      3   nothing matched
    ├── RemoteError        4   registry, network, authentication
    ├── EngineError        5   engine missing or refused
    ├── UnhealthyError     6   not healthy, rolled back
    └── PolicyError        7   signature, digest or policy refused
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CortenError",
    "EngineError",
    "NotFoundError",
    "PolicyError",
    "RemoteError",
    "UnhealthyError",
    "UsageError",
]


class CortenError(Exception):
    """Something Corten could not do, said in the parts a reader needs.

    `code` is stable (`build.lock_failed`) and has a page in docs/errors; `what` is one line with the subject in
    backticks; `where` a file, image, replica or URL (no secrets); `why` the cause with the values seen and
    expected; `hint` one command or action that mends it.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, code: str, what: str, *, where: str = "", why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.hint = hint

    def as_dict(self) -> dict[str, str]:
        """The error as it stands in `--json` output; empty parts are left out."""
        parts = {"code": self.code, "what": self.what, "where": self.where, "why": self.why, "hint": self.hint}
        return {key: text for key, text in parts.items() if text}

    def __str__(self) -> str:
        return "; ".join(part for part in (self.what, self.where, self.why) if part)


class UsageError(CortenError):
    """The command, the configuration or the source is not what Corten accepts."""

    exit_code: ClassVar[int] = 2


class NotFoundError(CortenError):
    """Nothing goes by that name."""

    exit_code: ClassVar[int] = 3


class RemoteError(CortenError):
    """A registry, mirror or index did not answer, or refused."""

    exit_code: ClassVar[int] = 4


class EngineError(CortenError):
    """What runs replicas or the gateway is missing, refused or broke."""

    exit_code: ClassVar[int] = 5


class UnhealthyError(CortenError):
    """A replica did not become ready or stay so; the revision before it still serves."""

    exit_code: ClassVar[int] = 6


class PolicyError(CortenError):
    """A signature, digest or policy says no."""

    exit_code: ClassVar[int] = 7
