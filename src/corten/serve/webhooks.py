"""Tell an address given by a caller how a job went, without becoming a way into the network for them (SSRF).

Only https, and only to addresses of the public internet, unless the image's settings name the host. A name is resolved
once, every address of it checked, and the connection made to the very address that was checked, so that a name cannot
change its meaning in between. Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from corten.serve.job import RequestError, invalid

_log = logging.getLogger(__name__)

_TRY_S = 10.0
# Before the second try, the third ...
_PAUSES_S = (1.0, 5.0, 25.0)
_LONGEST_URL = 2048
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Hook:
    """An address that may be told. `trusted`: the settings name its host, so it may be anywhere, and speak http."""

    secure: bool
    host: str
    port: int
    target: str
    trusted: bool


class UnsafeError(Exception):
    """The host's name leads to where callers must not lead us."""


def parse_hook(url: str, trusted: Collection[str], path: str) -> Hook:
    """Check what can be told of the text; raises RequestError with `path`.

    `trusted` are hosts, `host` or `host:port`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise invalid(f"not a URL: {error}", path) from error
    host = (parts.hostname or "").rstrip(".").lower()
    if len(url) > _LONGEST_URL or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise invalid("not a URL", path)
    if parts.username is not None or parts.password is not None:
        raise invalid("a webhook's URL may hold no user and no password", path)
    secure = parts.scheme == "https"
    if parts.scheme not in {"https", "http"}:
        raise invalid("webhooks are https", path)
    port = port or (443 if secure else 80)
    known = {host, f"{host}:{port}"} & {one.lower() for one in trusted}
    if not known and not secure:
        raise invalid("webhooks are https, but for hosts the model's settings name in `webhook_hosts`", path)
    if not known and not _is_public_name(host):
        raise invalid(f"`{host}` is not an address of the public internet; `webhook_hosts` may name it", path)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Hook(secure, host, port, target, trusted=bool(known))


def require_network() -> None:
    """Raises RequestError where this process can reach nobody: replicas have no network unless egress is declared."""
    if all(name == "lo" for _, name in socket.if_nameindex()):
        message = "this replica has no network, so it can call nobody; deploy it with `egress = true`"
        raise RequestError(422, "webhook.no_network", message, path="webhook")


def _is_public_name(host: str) -> bool:
    try:
        return is_public(host)
    except ValueError:
        return host != "localhost" and not host.endswith((".localhost", ".internal", ".local"))


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; raises ValueError for what is none.

    Addresses that hold another one (IPv4 mapped, 6to4, Teredo, NAT64) are as that one is.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if found.teredo is not None:
            inner = found.teredo[1]
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


async def deliver(hook: Hook, body: bytes, *, pauses_s: Sequence[float] = _PAUSES_S) -> bool:
    """Send a JSON body, and again later when it is not taken; whether it was taken in the end. Never raises."""
    for pause_s in (0.0, *pauses_s):
        await asyncio.sleep(pause_s)
        try:
            async with asyncio.timeout(_TRY_S):
                status = await _post(hook, body)
        except UnsafeError as error:
            _log.warning("a webhook leads where it must not", extra={"host": hook.host, "reason": str(error)})
            return False
        except (OSError, TimeoutError, ValueError, EOFError) as error:
            _log.info("a webhook was not reached", extra={"host": hook.host, "reason": str(error) or repr(error)})
            continue
        if 200 <= status < 300:
            return True
        if status != 429 and status < 500:
            break
    _log.warning("a webhook was given up", extra={"host": hook.host})
    return False


async def _post(hook: Hook, body: bytes) -> int:
    reader, writer = await _connect(hook)
    try:
        default = 443 if hook.secure else 80
        host = f"[{hook.host}]" if ":" in hook.host else hook.host
        authority = host if hook.port == default else f"{host}:{hook.port}"
        head = (
            f"POST {hook.target} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nUser-Agent: corten\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode("ascii") + body)
        await writer.drain()
        words = (await reader.readline()).split(maxsplit=2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
            raise ValueError("the answer is not HTTP/1.1")
        return int(words[1])
    finally:
        writer.close()


async def _connect(hook: Hook) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(hook.host, hook.port, type=socket.SOCK_STREAM)
    addresses = [str(one[4][0]) for one in found]
    check_addresses(addresses, hook)
    context = ssl.create_default_context() if hook.secure else None
    # To the address that was checked, not to the name, which may mean another one by now.
    return await asyncio.open_connection(
        addresses[0], hook.port, ssl=context, server_hostname=hook.host if hook.secure else None
    )


def check_addresses(addresses: Sequence[str], hook: Hook, *, public: Callable[[str], bool] = is_public) -> None:
    """Raises UnsafeError when any address of an untrusted host is not public."""
    for address in addresses:
        if not hook.trusted and not public(address):
            raise UnsafeError(f"`{hook.host}` has the address {address}")
