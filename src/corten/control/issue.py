"""Issuing tokens: the private halves of keys are files of the owner's alone, the rest is in the state."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corten.control.credentials import Credentials, Token
from corten.control.signing import new_key, sign
from corten.errors import CortenError
from corten.gateway.access import ISSUER
from corten.store.writing import atomic_write

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Issuance:
    """Makes tokens. `folder` holds the keys, `clock` gives seconds since the epoch."""

    credentials: Credentials
    folder: Path
    clock: Callable[[], float]

    def issue(self, name: str, deployments: tuple[str, ...], days: float) -> tuple[Token, str]:
        """A new token, and what is remembered of it. Raises CortenError `token.key_lost`."""
        kid = self.credentials.signing_key() or self.rotate(at_once=False)
        now_s = int(self.clock())
        token = Token(secrets.token_hex(8), name, deployments, kid, now_s, now_s + round(days * DAY_S))
        claims = {"iss": ISSUER, "sub": name, "aud": list(deployments), "jti": token.id}
        text = sign(self._pem(kid), kid, {**claims, "iat": now_s, "exp": int(token.expires_s)})
        self.credentials.add(token)
        return token, text

    def rotate(self, *, at_once: bool) -> str:
        """Sign with a new key from now on; its `kid`. `at_once` ends all tokens there are."""
        key = new_key()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        # The file first: a key that is known but lost could sign nothing.
        atomic_write(self._file(key.kid), key.pem, mode=0o600)
        self.credentials.add_key(key.kid, key.jwk, now_s=self.clock(), at_once=at_once)
        for other in self.folder.glob("*.pem"):
            if other != self._file(key.kid):
                other.unlink(missing_ok=True)
        return key.kid

    def _pem(self, kid: str) -> bytes:
        try:
            return self._file(kid).read_bytes()
        except OSError as error:
            raise CortenError(
                "token.key_lost",
                "the key that signs tokens cannot be read",
                where=str(self._file(kid)),
                why=error.strerror or str(error),
                hint="`corten token rotate` makes another; tokens there are stay valid",
            ) from error

    def _file(self, kid: str) -> Path:
        return self.folder / f"{kid}.pem"
