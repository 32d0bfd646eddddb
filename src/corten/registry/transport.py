"""HTTP to registries: one kept connection a thread and origin, TLS, and what may never happen.

Never: a credential to another origin than it is for, from https to something less, to this machine's own services
because a far registry said so. Headers and queries are never part of an error: both carry secrets.
"""

from __future__ import annotations

import http.client
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from corten.core.proxy import proxy_for
from corten.errors import CortenError, PolicyError, RemoteError, UsageError
from corten.registry.ask import Ask, Trust
from corten.registry.credentials import Credential
from corten.registry.retry import AgainError

_TIMEOUT_S = 30.0
# A registry answers the end of an upload when it has moved the blob to its place; in object stores that is a copy.
_ANSWER_TIMEOUT_S = 300.0
_PROBE_TIMEOUT_S = 10.0
# A body may take a minute, and longer while at least this much of it comes.
_PATIENCE_S = 60.0
_SLOWEST_BYTES_S = 4096
_REDIRECTS = 5
_SHOWN = 200
# Read, hashed and written while it is in the processor's cache: with four times as much a pull took twice as long.
PIECE_BYTES = 1 << 18


class Answer:
    """An answer whose body is still to be read."""

    def __init__(self, response: http.client.HTTPResponse, url: str, clock: Callable[[], float]) -> None:
        self._response = response
        self._clock = clock
        self._began_s = clock()
        self._read_bytes = 0
        self.url = url
        self.status = response.status

    def header(self, name: str) -> str:
        """A header's value, empty when it is not there; several are joined by `, `."""
        return ", ".join(self._response.headers.get_all(name, []))

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer as far as the body goes; 0 at its end. Raises AgainError when it breaks off or drips."""
        try:
            count = self._response.readinto(buffer)
        except (OSError, http.client.HTTPException) as error:
            raise AgainError(unreachable(self.url, error)) from error
        self._read_bytes += count
        # http.client takes a connection that breaks off for the end.
        if count < len(buffer) and self._response.length:
            raise AgainError(unreachable(self.url, f"the answer broke off {self._response.length} bytes early"))
        took_s = self._clock() - self._began_s
        if took_s > _PATIENCE_S + self._read_bytes / _SLOWEST_BYTES_S:
            raise AgainError(unreachable(self.url, f"only {self._read_bytes} bytes in {took_s:.0f} s"))
        return count

    def read(self, limit_bytes: int) -> bytes:
        """The whole body. Raises RemoteError `registry.malformed` when it is larger than the limit."""
        buffer, found = memoryview(bytearray(64 << 10)), bytearray()
        while count := self.readinto(buffer):
            found += buffer[:count]
            if len(found) > limit_bytes:
                raise RemoteError(
                    "registry.malformed",
                    "an answer is too large for what was asked",
                    where=shown(self.url),
                    why=f"more than {limit_bytes} bytes",
                )
        return bytes(found)

    @property
    def complete(self) -> bool:
        """Whether all of it was read, so that the connection can be used again."""
        return self._response.isclosed() and not self._response.will_close


class _AnsweredEarlyError(Exception):
    """The answer is there before the body is."""


class _Guarded(http.client.HTTPConnection):
    """Looks at where it is connected to before it says a word."""

    check: Callable[[str], None] | None = None

    def connect(self) -> None:
        super().connect()
        try:
            if self.check is not None:
                self.check(self.sock.getpeername()[0])
        except BaseException:
            self.close()
            raise


class _GuardedTls(http.client.HTTPSConnection, _Guarded):
    """The same; the check comes before the handshake, by the order of the bases."""


class Transport:
    """Connections to one registry and to where it sends us. Use as a context manager: leaving it closes them.

    `clock` gives monotonic seconds. Safe for several threads; each has connections of its own.
    """

    def __init__(self, registry: str, trust: Trust, clock: Callable[[], float]) -> None:
        self.registry = registry
        self._trust = trust
        self._clock = clock
        self._local = threading.local()
        self._lock = threading.Lock()
        self._all: list[http.client.HTTPConnection] = []
        self._near = is_loopback(registry)
        self._tls: ssl.SSLContext | None = None
        self._base = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for connection in self._all:
            with suppress(OSError):
                connection.close()

    @property
    def base(self) -> str:
        """`https://registry`; `http://` when asked for, or when a registry on this machine speaks no TLS."""
        with self._lock:
            if not self._base:
                self._base = f"{self._scheme()}://{_api_host(self.registry)}"
            return self._base

    @contextmanager
    def exchange(self, ask: Ask) -> Iterator[Answer]:
        """Ask and give the answer, whatever its status. What is left of its body costs the connection.

        Raises AgainError for a network that fails, CortenError for a server that must not be trusted.
        """
        split = self._allowed(ask.url)
        key = origin(split)
        connection = self._taken(split, key)
        try:
            response, whole = self._send(connection, ask, split)
            answer = Answer(response, ask.url, self._clock)
        except BaseException:
            self._close(connection)
            raise
        try:
            yield answer
        finally:
            if whole and answer.complete and key not in self._kept():
                self._kept()[key] = connection
            else:
                self._close(connection)

    @contextmanager
    def follow(self, ask: Ask) -> Iterator[Answer]:
        """As `exchange`, through redirects (for GET and HEAD). Another origin gets no credential."""
        url, authorization = ask.url, ask.authorization
        for _ in range(_REDIRECTS):
            with self.exchange(Ask(ask.method, url, ask.headers, authorization)) as answer:
                if answer.status not in {301, 302, 303, 307, 308}:
                    yield answer
                    return
                answer.read(1 << 20)
                target = self.target(url, answer.header("Location"))
            if origin(urlsplit(target)) != origin(urlsplit(url)):
                authorization = ""
            url = target
        raise _bad_redirect(ask.url, f"more than {_REDIRECTS} redirects")

    def target(self, url: str, location: str) -> str:
        """The URL a Location header means. Raises PolicyError `registry.bad_redirect`."""
        try:
            split = urlsplit(urljoin(url, location))
            bad = split.scheme not in {"http", "https"} or not split.hostname or split.port == 0
        except ValueError:
            raise _bad_redirect(url, "the Location is no URL") from None
        if not location or bad:
            raise _bad_redirect(url, "the Location is missing or no URL")
        if url.startswith("https:") and split.scheme != "https":
            raise _bad_redirect(url, f"from https to {split.scheme}")
        # Without what a URL may carry of names and passwords: they would become headers of ours.
        return split._replace(netloc=_netloc(split), fragment="").geturl()

    def cut(self) -> None:
        """Break every connection, so that whoever waits on one wakes up. From any thread."""
        with self._lock:
            connected = [connection.sock for connection in self._all if connection.sock is not None]
        for each in connected:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    # Inside

    def _scheme(self) -> str:
        if self._trust.plain_http:
            return "http"
        if not self._near or self._trust.ca is not None:
            return "https"
        host, port = _host_port(urlsplit(f"https://{self.registry}"))
        try:
            with socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S) as plain:
                self._context().wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLCertVerificationError:
            return "https"  # which the first request then says properly
        except (ssl.SSLError, ConnectionResetError):
            return "http"
        except OSError as error:
            raise unreachable(f"https://{self.registry}/v2/", error) from error
        return "https"

    def _allowed(self, url: str) -> SplitResult:
        split = urlsplit(url)
        if split.scheme == "http" and not (self._trust.plain_http or is_loopback(split.netloc)):
            raise UsageError(
                "registry.not_secure",
                f"`{_netloc(split)}` would be asked without TLS",
                where=shown(url),
                hint="pass --plain-http if that network is yours alone",
            )
        return split

    def _send(
        self, connection: http.client.HTTPConnection, ask: Ask, split: SplitResult
    ) -> tuple[http.client.HTTPResponse, bool]:
        path = (split.path or "/") + (f"?{split.query}" if split.query else "")
        headers: dict[str, str] = {}
        if split.scheme == "http" and (proxy := self._proxy(split)):
            path, headers = ask.url, _proxy_headers(proxy)
        try:
            connection.putrequest(ask.method, path, skip_accept_encoding=True)
            connection.putheader("User-Agent", "corten")
            for name, value in headers.items():
                connection.putheader(name, value)
            for name, value in ask.headers.items():
                connection.putheader(name, value)
            if ask.authorization:
                connection.putheader("Authorization", ask.authorization)
            if ask.method not in {"GET", "HEAD"}:
                connection.putheader("Content-Length", str(ask.body.size_bytes))
            connection.endheaders()
            whole = self._send_body(connection, ask)
            connection.sock.settimeout(_TIMEOUT_S if ask.method in {"GET", "HEAD"} else _ANSWER_TIMEOUT_S)
            response = connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise _untrusted(ask.url, error) from error
        except ValueError as error:
            # http.client's word for control characters; the text itself came from a server.
            raise _bad_redirect(ask.url, "a URL or token with control characters") from error
        except (OSError, http.client.HTTPException) as error:
            raise AgainError(unreachable(ask.url, error)) from error
        if connection.sock is not None:
            connection.sock.settimeout(_TIMEOUT_S)
        return response, whole

    def _send_body(self, connection: http.client.HTTPConnection, ask: Ask) -> bool:
        """Whether all of it went out: a registry that refuses (401, 413, 429) may answer, and close, before."""
        plain = not isinstance(connection.sock, ssl.SSLSocket)

        def write(piece: memoryview) -> None:
            # With TLS there is always something to read: tickets. There the broken connection has to tell.
            if plain and _readable(connection):
                raise _AnsweredEarlyError
            connection.send(piece)

        try:
            ask.body.send(write)
        except _AnsweredEarlyError:
            return False
        except OSError:
            if plain and _readable(connection):
                return False
            raise
        return True

    def _taken(self, split: SplitResult, key: str) -> http.client.HTTPConnection:
        """This thread's connection, its own until it is put back: the body of a request may be another's answer."""
        kept = self._kept().pop(key, None)
        if kept is not None:
            if not _stale(kept):
                return kept
            self._close(kept)
        connection = self._connect(split)
        with self._lock:
            self._all.append(connection)
        return connection

    def _connect(self, split: SplitResult) -> http.client.HTTPConnection:
        proxy = self._proxy(split)
        host, port = _host_port(urlsplit(proxy) if proxy else split)
        connection: _Guarded
        if split.scheme == "https":
            connection = _GuardedTls(host, port, timeout=_TIMEOUT_S, context=self._locked_context())
            if proxy:
                connection.set_tunnel(*_host_port(split), headers=_proxy_headers(proxy))
        else:
            connection = _Guarded(host, port, timeout=_TIMEOUT_S)
        # What a proxy connects to is decided there.
        if not proxy and not self._near and f"{split.scheme}://{_netloc(split)}" != self._base:
            connection.check = Outside(shown(split.geturl()))
        return connection

    def _proxy(self, split: SplitResult) -> str:
        if is_loopback(split.netloc):
            return ""
        return proxy_for(self._trust.proxies, split.scheme, split.hostname or "")

    def _locked_context(self) -> ssl.SSLContext:
        with self._lock:
            return self._context()

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if self._trust.ca is not None:
                try:
                    self._tls.load_verify_locations(self._trust.ca)
                except (OSError, ssl.SSLError) as error:
                    raise UsageError(
                        "registry.bad_ca",
                        "the file of certificate authorities cannot be used",
                        where=str(self._trust.ca),
                        why=str(error.strerror or error),
                        hint="--ca takes a PEM file with one or more certificates",
                    ) from error
        return self._tls

    def _kept(self) -> dict[str, http.client.HTTPConnection]:
        kept: dict[str, http.client.HTTPConnection] | None = getattr(self._local, "kept", None)
        if kept is None:
            kept = self._local.kept = {}
        return kept

    def _close(self, connection: http.client.HTTPConnection) -> None:
        with suppress(OSError):
            connection.close()
        with self._lock, suppress(ValueError):
            self._all.remove(connection)


@dataclass(frozen=True, slots=True)
class Outside:
    """Refuses addresses only this machine can reach: a registry out there has no business with them (SSRF)."""

    where: str

    def __call__(self, address: str) -> None:
        """Raise PolicyError `registry.bad_redirect` for such an address."""
        found = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped
        if found.is_loopback or found.is_link_local or found.is_unspecified:
            raise _bad_redirect(self.where, f"it leads to {found}, which is this machine's own")


def is_loopback(registry: str) -> bool:
    """Whether a `host[:port]` is this machine by its name or number."""
    try:
        host = urlsplit(f"//{registry}").hostname or ""
        return host == "localhost" or host.endswith(".localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin(split: SplitResult) -> str:
    """Scheme, host and port: what a credential is for."""
    host, port = _host_port(split)
    return f"{split.scheme}://{host}:{port}"


def shown(url: str) -> str:
    """A URL as it may be shown: no user, no query, nothing a terminal would obey."""
    split = urlsplit(url)
    return printable(split._replace(netloc=_netloc(split), query="", fragment="").geturl())


def printable(text: str) -> str:
    """What a server said, cut and without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_SHOWN])


def unreachable(url: str, error: Exception | str) -> CortenError:
    """The network failed, or who answers there does not speak HTTP."""
    why = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
    return RemoteError(
        "registry.unreachable",
        f"the registry `{urlsplit(shown(url)).netloc}` did not answer as it should",
        where=shown(url),
        why=printable(why),
        hint="check the address and the network, then run the same command again: finished blobs are not sent twice",
    )


def _stale(connection: http.client.HTTPConnection) -> bool:
    """Whether the server closed a kept connection, or says something nobody asked for."""
    return connection.sock is None or _readable(connection)


def _readable(connection: http.client.HTTPConnection) -> bool:
    try:
        poll = select.poll()
        poll.register(connection.sock, select.POLLIN)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True


def _host_port(split: SplitResult) -> tuple[str, int]:
    return split.hostname or "", split.port or (443 if split.scheme == "https" else 80)


def _proxy_headers(proxy: str) -> dict[str, str]:
    split = urlsplit(proxy)
    if not split.username:
        return {}
    return {"Proxy-Authorization": Credential(unquote(split.username), unquote(split.password or "")).basic()}


def _netloc(split: SplitResult) -> str:
    return split.netloc.rpartition("@")[2]


def _api_host(registry: str) -> str:
    # Docker Hub's API does not live under its name.
    return "registry-1.docker.io" if registry == "docker.io" else registry


def _bad_redirect(url: str, why: str) -> PolicyError:
    return PolicyError(
        "registry.bad_redirect",
        "the registry sends us where we do not go",
        where=shown(url),
        why=why,
        hint="if the registry is yours, let it send https URLs that others can reach",
    )


def _untrusted(url: str, error: ssl.SSLCertVerificationError) -> PolicyError:
    return PolicyError(
        "registry.untrusted",
        f"the certificate of `{urlsplit(shown(url)).netloc}` is not trusted",
        where=shown(url),
        why=printable(error.verify_message or str(error)),
        hint="pass its authority's certificate: --ca FILE",
    )
