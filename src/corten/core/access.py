"""Who may ask a deployment, and how often: pure values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MOST_PER_S = 1_000_000
EVERY_DEPLOYMENT = "*"


class Auth(Enum):
    """What a request must show."""

    NONE = "none"
    TOKEN = "token"  # noqa: S105 -- the word, not one


@dataclass(frozen=True, slots=True)
class Access:
    """`rate_per_s` requests a second over time and `burst` at once (0: as many as a second's); a rate of 0 is no limit.

    `pinnable` lets clients choose a revision by the header `x-corten-revision`.
    """

    auth: Auth = Auth.NONE
    rate_per_s: int = 0
    burst: int = 0
    pinnable: bool = False


@dataclass(frozen=True, slots=True, order=True)
class Issuer:
    """Somebody else whose tokens count: those that name this issuer and audience, signed by one of `jwks` (JSON)."""

    name: str
    audience: str
    jwks: str


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose tokens the gateway takes: those signed by our `keys` (JWKs as JSON) and not `revoked`, and of `issuers`."""

    keys: tuple[str, ...] = ()
    revoked: tuple[str, ...] = ()
    issuers: tuple[Issuer, ...] = ()

    @property
    def anybody(self) -> bool:
        """Whether any token could count."""
        return bool(self.keys or self.issuers)
