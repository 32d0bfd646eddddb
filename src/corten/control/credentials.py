"""The keys that sign tokens, the tokens that were issued, and whose else's count. No token is ever kept."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

import msgspec

from corten.control.database import Statements
from corten.core.access import Issuer, Trust
from corten.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token that was issued: not the token. Times in seconds since the epoch.

    `deployments` are those it is for, or `*`; `revoked_s` is None while it counts.
    """

    id: str
    name: str
    deployments: tuple[str, ...]
    kid: str
    created_s: float
    expires_s: float
    revoked_s: float | None = None


class Credentials(Statements):
    """The part of the state that says whose tokens are valid."""

    def trust(self, *, now_s: float) -> Trust:
        """What the gateway has to know: nothing that has expired."""
        return Trust(
            keys=tuple(row["jwk"] for row in self._all(_KEYS, now_s)),
            revoked=tuple(
                row["id"]
                for row in self._all(
                    "SELECT id FROM tokens WHERE revoked_s IS NOT NULL AND expires_s > ? ORDER BY id", now_s
                )
            ),
            issuers=self.issuers(),
        )

    def signing_key(self) -> str:
        """The `kid` of the key that signs now; empty when there is none yet."""
        row = self._one("SELECT kid FROM keys WHERE retired_s IS NULL ORDER BY created_s DESC LIMIT 1")
        return str(row["kid"]) if row else ""

    def add_key(self, kid: str, jwk: str, *, now_s: float, at_once: bool = False) -> None:
        """Sign with another key from now on. What the ones before signed counts until it expires, or ends `at_once`."""
        with self._transaction():
            self._run("UPDATE keys SET retired_s = ? WHERE retired_s IS NULL", now_s)
            if at_once:
                self._run("UPDATE tokens SET revoked_s = coalesce(revoked_s, ?)", now_s)
            self._run("INSERT INTO keys (kid, jwk, created_s) VALUES (?, ?, ?)", kid, jwk, now_s)

    def add(self, token: Token) -> None:
        """Remember that a token was issued."""
        self._run(
            "INSERT INTO tokens (id, name, deployments, kid, created_s, expires_s) VALUES (?, ?, ?, ?, ?, ?)",
            *(token.id, token.name, msgspec.json.encode(token.deployments).decode(), token.kid),
            *(token.created_s, token.expires_s),
        )

    def tokens(self) -> tuple[Token, ...]:
        """All that were issued, newest last."""
        return tuple(map(_token, self._all("SELECT * FROM tokens ORDER BY created_s, id")))

    def revoke(self, name: str, *, now_s: float) -> tuple[Token, ...]:
        """End the token of that id, or all of that name; those that counted until now.

        Raises NotFoundError `token.unknown` when there never was one.
        """
        with self._transaction():
            found = [token for token in self.tokens() if name in (token.id, token.name)]
            if not found:
                raise NotFoundError("token.unknown", f"no token called `{name}`", hint="see `corten token list`")
            counted = tuple(token for token in found if token.revoked_s is None and token.expires_s > now_s)
            for token in counted:
                self._run("UPDATE tokens SET revoked_s = ? WHERE id = ?", now_s, token.id)
            return counted

    def issuers(self) -> tuple[Issuer, ...]:
        """Whose tokens count besides ours."""
        rows = self._all("SELECT name, audience, jwks FROM issuers ORDER BY name")
        return tuple(Issuer(row["name"], row["audience"], row["jwks"]) for row in rows)

    def trust_issuer(self, issuer: Issuer) -> None:
        """Let another issuer's tokens count, by these keys from now on."""
        self._run(
            "INSERT INTO issuers VALUES (?, ?, ?)"
            " ON CONFLICT (name) DO UPDATE SET audience = excluded.audience, jwks = excluded.jwks",
            *(issuer.name, issuer.audience, issuer.jwks),
        )

    def distrust(self, name: str) -> None:
        """Let them count no more. Raises NotFoundError `token.unknown_issuer`."""
        if not self._run("DELETE FROM issuers WHERE name = ?", name).rowcount:
            raise NotFoundError(
                "token.unknown_issuer", f"`{name}` is no issuer that is trusted", hint="see `corten token list`"
            )


# The key that signs, and those whose tokens still count.
_KEYS = (
    "SELECT jwk FROM keys WHERE retired_s IS NULL OR EXISTS"
    " (SELECT 1 FROM tokens WHERE tokens.kid = keys.kid AND revoked_s IS NULL AND expires_s > ?)"
    " ORDER BY created_s, kid"
)


def _token(row: sqlite3.Row) -> Token:
    deployments = msgspec.json.decode(row["deployments"], type=tuple[str, ...])
    return Token(row["id"], row["name"], deployments, row["kid"], row["created_s"], row["expires_s"], row["revoked_s"])
