"""What goes over the daemon's socket: JSON in, JSON out, errors as they are everywhere."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import replace
from typing import Any

import msgspec

from corten.control.records import ALL
from corten.core.access import EVERY_DEPLOYMENT, MOST_PER_S, Auth
from corten.core.canary import parse_sticky
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.front import Front
from corten.core.name import parse_name
from corten.core.resources import LEAST_CPUS, LEAST_MEMORY_BYTES, MOST_CPUS, MOST_GPUS, parse_device
from corten.core.scale import MOST_REPLICAS
from corten.core.secret import check_secrets
from corten.errors import (
    CortenError,
    EngineError,
    NotFoundError,
    PolicyError,
    RemoteError,
    UnhealthyError,
    UsageError,
)

MOST_CONCURRENCY = 4096
MOST_HELD = 50_000
_LONGEST_S = 30 * 86_400.0
_MOST_ENV_BYTES = 64 << 10
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_MOST_DAYS = 3650
_FAMILIES: dict[int, type[CortenError]] = {
    family.exit_code: family
    for family in (CortenError, UsageError, NotFoundError, RemoteError, EngineError, UnhealthyError, PolicyError)
}
_HTTP_STATUS: dict[int, int] = {1: 500, 2: 400, 3: 404, 4: 502, 5: 503, 6: 500, 7: 403}


class Change(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PUT /v1/deployments/NAME. `generation`: the one this change was made for (0: none existed).

    `secrets` are their values, in base64; `settings` know them by ids that only the daemon gives.
    """

    image: str
    settings: Settings = msgspec.field(default_factory=Settings)
    generation: int | None = None
    secrets: dict[str, bytes] = msgspec.field(default_factory=dict)


class Back(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/deployments/NAME/rollback. `to`: a revision's number; None: the one before."""

    to: int | None = None
    generation: int | None = None


class Restart(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/deployments/NAME/restart."""

    generation: int | None = None


class Promotion(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/deployments/NAME/promote. `share`: in percent, 100 ends the canary."""

    share: int = ALL
    generation: int | None = None


class FrontChange(msgspec.Struct, forbid_unknown_fields=True):
    """The body of PUT /v1/gateway: what is not given stays. Paths are absolute, empty ones end TLS."""

    host: str | None = None
    port: int | None = None
    certificate: str | None = None
    key: str | None = None
    http_port: int | None = None

    def of(self, front: Front) -> Front:
        """The front after the change. Raises UsageError `control.bad_request` for one nothing can listen on."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        changed = replace(front, **given)
        check_front(changed)
        return changed


class Ending(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/shutdown: whether replicas go on (`keep`) or are drained and ended first (`stop`)."""

    replicas: str = "keep"


class GatewayRestart(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/gateway/restart: whether connections may be refused in between."""

    cold: bool = False


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/tokens: whose it is, for which deployments (`*`: all), for how many days."""

    name: str
    deployments: tuple[str, ...]
    days: float


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/keys: whether all tokens there are end now."""

    at_once: bool = False


class TrustChange(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/issuers: let an issuer's tokens count by its `jwks`, or, when that is empty, no more."""

    issuer: str
    audience: str = ""
    jwks: str = ""


Body = Change | GatewayRestart | Back | Restart | Promotion | FrontChange | NewToken | Rotation | TrustChange | Ending


def read(body: bytes | bytearray, kind: type[Any]) -> Any:
    """Decode and check a request's body; raises UsageError `control.bad_request`."""
    try:
        value = msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError("control.bad_request", "the request is not what the daemon accepts", why=str(error)) from error
    if isinstance(value, Change):
        Digest.parse(value.image)
        check_settings(value.settings)
        check_secrets(value.secrets, value.settings.env)
    if isinstance(value, Promotion) and not 1 <= value.share <= ALL:
        raise UsageError("control.bad_request", f"not a share: `{value.share}`", why="expected 1 to 100 percent")
    if isinstance(value, NewToken):
        _check_token(value)
    if isinstance(value, TrustChange) and not (value.issuer and (value.audience or not value.jwks)):
        raise UsageError("control.bad_request", "an issuer has a name and an audience", why="one of them is empty")
    if isinstance(value, Ending) and value.replicas not in ("keep", "stop"):
        raise UsageError("control.bad_request", f"not a way to end: `{value.replicas}`", why="expected keep or stop")
    return value


def _check_token(token: NewToken) -> None:
    if not _TOKEN_NAME.fullmatch(token.name):
        raise UsageError(
            "control.bad_request",
            f"not a token's name: `{token.name[:64]}`",
            why="expected 1 to 64 of letters, digits and `.`, `_`, `@`, `-`",
        )
    if not 0 < token.days <= _MOST_DAYS:
        raise UsageError("control.bad_request", f"not a time: `{token.days} days`", why=f"expected up to {_MOST_DAYS}")
    if not token.deployments:
        raise UsageError("control.bad_request", "the token is for no deployment", why="expected names, or `*` for all")
    for name in token.deployments:
        if name != EVERY_DEPLOYMENT:
            parse_name(name)


def check_front(front: Front) -> None:
    """Raise UsageError `control.bad_request` for a front nothing can listen on."""
    if not 1 <= front.port <= 65535 or not 0 <= front.http_port <= 65535:
        port = front.http_port if 1 <= front.port <= 65535 else front.port
        raise UsageError("control.bad_request", f"not a port: `{port}`", why="expected 1 to 65535")
    try:
        ipaddress.ip_address(front.host)
    except ValueError as error:
        raise UsageError("control.bad_request", f"not an IP address: `{front.host[:60]}`", why=str(error)) from error
    if bool(front.certificate) != bool(front.key):
        raise UsageError("control.bad_request", "a certificate and its key go together", why="only one was given")
    if front.http_port and not front.tls:
        raise UsageError(
            "control.bad_request", "without TLS there is nowhere to send others on to", why="`http_port` is for TLS"
        )
    if front.http_port == front.port:
        raise UsageError(
            "control.bad_request", f"port `{front.port}` is given twice", why="one is with TLS, one without"
        )


def check_settings(settings: Settings) -> None:
    """Raise UsageError `control.bad_settings` for settings nothing can run under."""
    if not 0 <= settings.replicas <= MOST_REPLICAS or not max(settings.replicas, settings.most_replicas):
        raise _bad("replicas", settings.replicas, f"1 to {MOST_REPLICAS}, or 0 with `most_replicas` above it")
    if settings.most_replicas and not settings.replicas <= settings.most_replicas <= MOST_REPLICAS:
        raise _bad("most_replicas", settings.most_replicas, f"{settings.replicas} to {MOST_REPLICAS}")
    if not 1 <= settings.concurrency <= MOST_CONCURRENCY:
        raise _bad("concurrency", settings.concurrency, f"1 to {MOST_CONCURRENCY}")
    for name in ("ready_timeout_s", "request_timeout_s"):
        if not 0 < getattr(settings, name) <= 86_400:
            raise _bad(name, getattr(settings, name), "seconds above 0, at most a day")
    if not 0 <= settings.drain_s <= 86_400 or math.isnan(settings.drain_s):
        raise _bad("drain_s", settings.drain_s, "seconds from 0 to a day")
    if not 1 <= settings.max_body_bytes <= 1 << 40:
        raise _bad("max_body_bytes", settings.max_body_bytes, "at least 1")
    resources = settings.resources
    if resources.memory_bytes and not LEAST_MEMORY_BYTES <= resources.memory_bytes <= 1 << 50:
        raise _bad("memory_bytes", resources.memory_bytes, f"0 (no limit) or at least {LEAST_MEMORY_BYTES}")
    if resources.cpus and not LEAST_CPUS <= resources.cpus <= MOST_CPUS:
        raise _bad("cpus", resources.cpus, f"0 (no limit) or {LEAST_CPUS} to {MOST_CPUS:g}")
    if not 0 <= resources.gpus <= MOST_GPUS:
        raise _bad("gpus", resources.gpus, f"0 to {MOST_GPUS}")
    for device in resources.devices:
        parse_device(device)
    if settings.auth and settings.auth not in {each.value for each in Auth}:
        raise _bad("auth", settings.auth, "none or token")
    for name in ("rate_per_s", "burst"):
        if not 0 <= getattr(settings, name) <= MOST_PER_S:
            raise _bad(name, getattr(settings, name), f"0 (no limit) to {MOST_PER_S}")
    if settings.burst and not settings.rate_per_s:
        raise _bad("burst", settings.burst, "a rate it goes with")
    for name in ("freeze_after_s", "stop_after_s", "hold_s", "keep_previous_s"):
        if not 0 <= getattr(settings.rest, name) <= _LONGEST_S:
            raise _bad(name, getattr(settings.rest, name), "seconds from 0 to 30 days")
    if not 0 <= settings.rest.hold_requests <= MOST_HELD:
        raise _bad("hold_requests", settings.rest.hold_requests, f"0 to {MOST_HELD}")
    parse_sticky(settings.canary.sticky)
    if not 0 <= settings.canary.mirror <= ALL or (settings.canary.mirror and settings.canary.steps):
        raise _bad("mirror", settings.canary.mirror, "1 to 100 percent, and no shares of requests beside it")
    shares = settings.canary.steps
    if list(shares) != sorted({share for share in shares if 0 < share < ALL}):
        raise _bad("canary", list(shares), "rising shares from 1 to 99 percent")
    if settings.secret_ids:
        raise _bad("secret_ids", ", ".join(settings.secret_ids), "their values, beside the settings")
    for name, value in settings.env.items():
        if not _ENV_NAME.fullmatch(name) or "\0" in value:
            raise _bad("env", name, "names of letters, digits and `_`, values without NUL")
        if name.startswith("CORTEN_"):
            raise _bad("env", name, "names that do not begin with CORTEN_, which the engine sets itself")
    if sum(len(name) + len(value) for name, value in settings.env.items()) > _MOST_ENV_BYTES:
        raise _bad("env", f"{len(settings.env)} variables", f"at most {_MOST_ENV_BYTES} characters in all")


def error_body(error: CortenError) -> dict[str, Any]:
    """An error as the daemon tells it."""
    return {"error": {**error.as_dict(), "exit_code": error.exit_code}}


def http_status(error: CortenError) -> int:
    """The HTTP status that fits an error."""
    return 409 if error.code == "control.conflict" else _HTTP_STATUS[error.exit_code]


def rebuild(parts: Any) -> CortenError:
    """The error the daemon told of, as its own class again. Anything may stand in `parts`."""
    if not isinstance(parts, dict):
        return EngineError("control.bad_answer", "the daemon's answer makes no sense", why=str(parts)[:200])
    code = parts.get("exit_code")
    family = _FAMILIES.get(code, CortenError) if isinstance(code, int) else CortenError
    text = {key: str(parts.get(key, "")) for key in ("code", "what", "where", "why", "hint")}
    return family(
        text["code"] or "control.failed",
        text["what"] or text.pop("message", "failed"),
        **{key: text[key] for key in ("where", "why", "hint")},
    )


def _bad(key: str, value: object, expected: str) -> UsageError:
    return UsageError("control.bad_settings", f"`{key}` cannot be `{value}`", why=f"expected {expected}")
