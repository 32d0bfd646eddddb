"""What to put into `Authorization`: Basic, or a bearer token from the server a challenge names.

The protocol is docker's token authentication (distribution, docs/spec/auth/{token,oauth}.md).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from corten.errors import CortenError, RemoteError
from corten.registry.ask import Ask, Bytes
from corten.registry.challenge import Challenge, parse_challenges
from corten.registry.credentials import Credential
from corten.registry.retry import AgainError, retry_after_s
from corten.registry.transport import Transport, shown

_TOKEN_LIMIT_BYTES = 1 << 20
# token.md: a token without `expires_in` lives this long.
_TOKEN_LIFE_S = 60.0
# Not to the last second: clocks differ and requests take time.
_LIFE_USED = 0.8


@dataclass(frozen=True, slots=True)
class _Pass:
    header: str = field(repr=False)
    until_s: float


class Authorizer:
    """The Authorization header for one repository; asked for when the registry first wants one.

    `scopes` say what we are going to do (`repository:team/iris:pull,push`); `find` looks a credential up.
    """

    def __init__(
        self,
        transport: Transport,
        scopes: Sequence[str],
        find: Callable[[], Credential | None],
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._scopes = tuple(scopes)
        self._find = find
        self._clock = clock
        self._lock = threading.Lock()
        self._pass: _Pass | None = None
        self._challenge: Challenge | None = None

    def header(self) -> str:
        """What is known to work, renewed when it is about to expire; empty as long as nobody asked."""
        with self._lock:
            if self._pass is None:
                return ""
            if self._clock() > self._pass.until_s and self._challenge is not None:
                self._pass = self._obtain(self._challenge)
            return self._pass.header

    def obtain(self, challenge_header: str, refused: str, url: str) -> str:
        """Answer a 401. `refused` is the header that was not good enough (another thread may have a newer one).

        Raises RemoteError `registry.denied` when there is nothing to answer with.
        """
        with self._lock:
            if self._pass is not None and self._pass.header != refused:
                return self._pass.header
            known = [one for one in parse_challenges(challenge_header) if one.scheme in {"bearer", "basic"}]
            if not known:
                raise denied(url, self._transport.registry, "it asks for no authentication we know")
            self._challenge = known[0]
            self._pass = self._obtain(known[0])
            return self._pass.header

    def _obtain(self, challenge: Challenge) -> _Pass:
        if challenge.scheme == "basic":
            credential = self._find()
            if credential is None or not credential.user:
                raise denied(self._transport.base, self._transport.registry, "there is no credential for it")
            return _Pass(credential.basic(), float("inf"))
        began_s = self._clock()
        token, life_s = self._token(challenge, self._find())
        return _Pass(f"Bearer {token}", began_s + life_s * _LIFE_USED)

    def _token(self, challenge: Challenge, credential: Credential | None) -> tuple[str, float]:
        # The realm may be another host by design of the protocol; it must be no less secure than the registry.
        realm = self._transport.target(self._transport.base, challenge.parameters.get("realm", ""))
        with self._transport.exchange(self._question(realm, challenge, credential)) as answer:
            body = answer.read(_TOKEN_LIMIT_BYTES)
            if answer.status == 429 or answer.status >= 500:
                final = denied(realm, self._transport.registry, f"its token server answers HTTP {answer.status}")
                raise AgainError(final, retry_after_s(answer.header("Retry-After")))
            if answer.status != 200:
                why = f"its token server answers HTTP {answer.status}"
                raise denied(realm, self._transport.registry, why if credential else f"{why}; we have no credential")
        try:
            document = json.loads(body)
            token = _header_text(document.get("token") or document["access_token"])
            life_s = max(float(document.get("expires_in") or _TOKEN_LIFE_S), 1.0)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise denied(realm, self._transport.registry, "its token server's answer holds no token") from None
        return token, life_s

    def _question(self, realm: str, challenge: Challenge, credential: Credential | None) -> Ask:
        service = challenge.parameters.get("service", "")
        if credential and credential.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": "corten",
                "scope": " ".join(self._scopes),
                "refresh_token": credential.identity_token,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return Ask("POST", realm, headers, body=Bytes(urlencode(form).encode()))
        query = [*([("service", service)] if service else []), *(("scope", scope) for scope in self._scopes)]
        url = f"{realm}{'&' if urlsplit(realm).query else '?'}{urlencode(query)}"
        return Ask("GET", url, authorization=credential.basic() if credential else "")


def _header_text(token: object) -> str:
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise TypeError
    return token


def denied(url: str, registry: str, why: str) -> CortenError:
    """We may not, or nobody knows who we are."""
    return RemoteError(
        "registry.denied",
        f"the registry `{registry}` does not let us",
        where=shown(url),
        why=why,
        hint=f"podman login {registry}  (or docker login; the credential is read from their files)",
    )
