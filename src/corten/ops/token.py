"""Tokens: what clients show to deployments that ask for one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from corten.control.client import Client, connect, connect_if_deployed
from corten.core.access import EVERY_DEPLOYMENT
from corten.core.home import Home
from corten.errors import UsageError

_LARGEST_JWKS_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token as it is remembered. `state` is valid, expired or revoked; times in seconds since the epoch."""

    id: str
    name: str
    deployments: tuple[str, ...]
    created_s: float
    expires_s: float
    state: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What was issued here, and by whom else tokens count: pairs of issuer and audience."""

    issued: tuple[IssuedToken, ...]
    issuers: tuple[tuple[str, str], ...]

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "tokens": [
                {
                    "id": one.id,
                    "name": one.name,
                    "deployments": list(one.deployments),
                    "created_s": one.created_s,
                    "expires_s": one.expires_s,
                    "state": one.state,
                }
                for one in self.issued
            ],
            "issuers": [{"issuer": name, "audience": audience} for name, audience in self.issuers],
        }


def create_token(
    name: str, deployments: Iterable[str] = (), *, days: float = 90.0, home: Home | None = None
) -> Mapping[str, Any]:
    """Issue a token for these deployments, or for all: `token` is told this once and kept nowhere.

    Raises UsageError `control.bad_request`, `name.malformed`.
    """
    body = {"name": name, "deployments": tuple(deployments) or (EVERY_DEPLOYMENT,), "days": days}
    found: Mapping[str, Any] = _client(home).post("/v1/tokens", body)
    return found


def tokens(*, home: Home | None = None) -> Tokens:
    """All that were issued, newest last, and whose else's count."""
    found = _client(home).get("/v1/tokens")
    return Tokens(
        tuple(_issued(each, found["now_s"]) for each in found["tokens"]),
        tuple((each["issuer"], each["audience"]) for each in found["issuers"]),
    )


def revoke_token(name: str, *, home: Home | None = None) -> tuple[str, ...]:
    """End the token of that id, or all of that name: ids of those that counted until now.

    The gateway refuses them when this returns. Raises NotFoundError `token.unknown`.
    """
    found = _client(home).delete(f"/v1/tokens/{quote(name, safe='')}")
    return tuple(each["id"] for each in found["revoked"])


def rotate_keys(*, at_once: bool = False, home: Home | None = None) -> str:
    """Sign with a new key; its id. Tokens there are count until they expire, or end now with `at_once`."""
    return str(_client(home).post("/v1/keys", {"at_once": at_once})["kid"])


def trust_issuer(issuer: str, audience: str, keys: str | Path, *, home: Home | None = None) -> None:
    """Let another issuer's tokens for an audience count, checked by the keys (JWKS) in a file.

    Raises UsageError `token.bad_keys`.
    """
    try:
        with Path(keys).open("rb") as stream:
            text = stream.read(_LARGEST_JWKS_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "token.bad_keys", f"cannot read `{keys}`", why=str(error), hint="give the issuer's JWKS as a file"
        ) from error
    _client(home).post("/v1/issuers", {"issuer": issuer, "audience": audience, "jwks": text})


def distrust_issuer(issuer: str, *, home: Home | None = None) -> None:
    """Let them count no more. Raises NotFoundError `token.unknown_issuer`."""
    _client(home).post("/v1/issuers", {"issuer": issuer})


def _client(home: Home | None) -> Client:
    home = home or Home.from_env(os.environ, uid=os.getuid())
    return connect_if_deployed(home) or connect(home)


def _issued(each: Mapping[str, Any], now_s: float) -> IssuedToken:
    state = "revoked" if each["revoked_s"] is not None else "expired" if each["expires_s"] <= now_s else "valid"
    return IssuedToken(
        each["id"], each["name"], tuple(each["deployments"]), each["created_s"], each["expires_s"], state
    )
