"""GET over HTTP for whatever a build fetches: few connections, kept alive, with deadlines and retries.

A connection a request costs a handshake each: 32 small files took 5 s one by one and 0.03 s over four kept ones
(docs/decisions/0006). Errors here are about addresses and answers alone; who asks says what they mean.
"""

from __future__ import annotations

import http.client
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast
from urllib.parse import SplitResult, urljoin, urlsplit

from corten.builder.remote import basic, host_of, without_credentials
from corten.core.proxy import proxy_for
from corten.errors import CortenError

if TYPE_CHECKING:
    from io import BufferedReader

_T = TypeVar("_T")
_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_TEMPORARY = {408, 425, 429}
_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait: `idle_s` for the next bytes, `total_s` for one file, `attempts` with growing pauses between."""

    idle_s: float = 20.0
    total_s: float = 600.0
    attempts: int = 4
    pause_s: float = 0.4


class ClientError(Exception):
    """Why there is no file: at `url` (without credentials), because of `why`."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url}: {why}")
        self.url = url
        self.why = why


class AddressError(ClientError):
    """An address that is none, or one a redirect must not lead to."""


class ProxyError(ClientError):
    """A proxy of a kind that cannot be used; `url` is the proxy's."""


class RefusedError(ClientError):
    """An answer that will not change: `status`, 0 for redirects without end."""

    def __init__(self, url: str, why: str, status: int) -> None:
        super().__init__(url, why)
        self.status = status


class UnreachableError(ClientError):
    """No answer, or none that was whole, each time it was tried."""


class TryAgainError(Exception):
    """What came may be another thing in a moment. Whoever receives a body may raise it too."""


class Body:
    """What a server answers, in pieces. Reading ends with an error rather than with part of the file."""

    def __init__(self, response: http.client.HTTPResponse, deadline_s: float, closed: threading.Event) -> None:
        """Made by `Client`; `deadline_s` on the monotonic clock, `closed` ends it as well."""
        self.ended = False  # whole, and the connection is free for the next request
        self._response = response
        self._closed = closed
        self._deadline_s = deadline_s

    def __iter__(self) -> Iterator[bytes]:
        # Only what has arrived is asked for: read(n) would wait for all n bytes, however slowly they drip, and would
        # take a connection that broke off for the end.
        # (Asked for at the end of a body of known length, it would wait for the next answer.)
        while self._response.length != 0 and (there := self._response.peek()):
            yield self._response.read(len(there))
            if time.monotonic() > self._deadline_s:
                raise TimeoutError("the transfer took too long")
            if self._closed.is_set():
                raise ConnectionAbortedError("broken off")
        rest = self._response.read()  # raises IncompleteRead when bytes are missing
        self.ended = not self._response.will_close
        yield rest


class _Response(http.client.HTTPResponse):
    """With a buffer of a size that suits files; the library's 8 KiB are thirty times as many steps."""

    def __init__(
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp.close()
        self.fp = cast("BufferedReader", sock.makefile("rb", _BUFFER_BYTES))


class _Secure(http.client.HTTPSConnection):
    """Closes what a proxy said when it refused a tunnel; the library leaves that to the garbage collector."""

    def connect(self) -> None:
        kind, said = self.response_class, list[http.client.HTTPResponse]()

        def made(*words: Any, **named: Any) -> http.client.HTTPResponse:
            said.append(kind(*words, **named))
            return said[-1]

        self.response_class = made  # type: ignore[assignment] # called, and no more
        try:
            super().connect()
        except BaseException:
            for response in said:
                response.close()
            raise
        finally:
            self.response_class = kind


def no_authorization(url: SplitResult) -> str:  # noqa: ARG001 - one of a kind
    """Tell nobody who asks."""
    return ""


class Client:
    """Keeps its connections; safe for several threads. Close it (or use it with `with`).

    `proxies` as `core.proxy.proxies_from` returns them; `authorization` is the header's value for an address, asked
    anew after each redirect, so that no other host is told it.
    """

    def __init__(
        self,
        *,
        proxies: Mapping[str, str] | None = None,
        patience: Patience | None = None,
        authorization: Callable[[SplitResult], str] = no_authorization,
    ) -> None:
        self._proxies = dict(proxies or {})
        self._patience = patience or Patience()
        self._authorization = authorization
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._busy: set[http.client.HTTPConnection] = set()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections and break off busy ones: whoever waits for them gets an error at once."""
        self._closed.set()
        with self._lock:
            idle, self._idle = self._idle, {}
            for connection in self._busy:
                if connection.sock is not None:
                    with suppress(OSError):  # it may be closed by now
                        connection.sock.shutdown(socket.SHUT_RDWR)
        for connection in (one for many in idle.values() for one in many):
            connection.close()

    def get(self, url: str, receive: Callable[[Body], _T]) -> _T:
        """GET a URL and return what `receive` makes of its body; `receive` is called anew for each attempt.

        Raises AddressError, ProxyError, RefusedError, UnreachableError, and the CortenErrors of `receive`.
        """
        failure: Exception | None = None
        for attempt in range(self._patience.attempts):
            # Jitter keeps the threads of a build from knocking all at once.
            pause_s = self._patience.pause_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311
            if self._closed.wait(pause_s if attempt else 0):
                break
            try:
                return self._follow(url, receive)
            except (CortenError, ClientError):
                raise
            except ssl.SSLCertVerificationError as error:
                raise UnreachableError(without_credentials(url), _told(error)) from error
            except (OSError, http.client.HTTPException, TryAgainError) as error:
                failure = error
        why = "broken off" if failure is None else _told(failure)
        raise UnreachableError(without_credentials(url), why) from failure

    def _follow(self, url: str, receive: Callable[[Body], _T]) -> _T:
        deadline_s = time.monotonic() + self._patience.total_s
        here = parsed(url)
        for _ in range(_MOST_REDIRECTS + 1):
            connection, path, headers = self._connection(here)
            body: Body | None = None
            try:
                connection.request("GET", path, headers=headers)
                # Closed whatever happens: broken off, a response would keep the socket its connection has closed.
                with connection.getresponse() as response:
                    body = Body(response, deadline_s, self._closed)
                    if response.status not in _REDIRECTS:
                        _check_status(here, response)
                        return receive(body)
                    target = response.headers.get("Location", "")
                    for _piece in body:
                        pass
            finally:
                self._put_back(here, connection, whole=body is not None and body.ended)
            here = _redirected(here, target)
        raise RefusedError(without_credentials(url), "it redirects without end", 0)

    def _connection(self, url: SplitResult) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {"User-Agent": "corten", "Accept-Encoding": "identity"}
        if authorization := self._authorization(url):
            headers["Authorization"] = authorization
        proxy = self._proxy_of(url)
        if proxy is not None and url.scheme == "http":
            path = f"http://{host_of(url)}{path}"
            headers |= _proxy_authorization(proxy)
        with self._lock:
            idle = self._idle.get((url.scheme, host_of(url)))
            connection = idle.pop() if idle else None
        connection = connection or self._open(url, proxy)
        with self._lock:
            self._busy.add(connection)
        return connection, path, headers

    def _open(self, url: SplitResult, proxy: SplitResult | None) -> http.client.HTTPConnection:
        through = proxy or url
        host, port, timeout_s = through.hostname or "", through.port, self._patience.idle_s
        connection: http.client.HTTPConnection
        if url.scheme == "http":
            connection = http.client.HTTPConnection(host, port or 80, timeout=timeout_s)
        else:
            port = port or (443 if proxy is None else 80)
            connection = _Secure(host, port, timeout=timeout_s, context=self._tls_context())
            if proxy is not None:
                connection.set_tunnel(url.hostname or "", url.port or 443, headers=_proxy_authorization(proxy))
        connection.response_class = _Response
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()  # reads the CA file: 20 ms, once
            return self._tls

    def _proxy_of(self, url: SplitResult) -> SplitResult | None:
        proxy = proxy_for(self._proxies, url.scheme, url.hostname or "")
        if not proxy:
            return None
        split = urlsplit(proxy)
        if split.scheme != "http" or not split.hostname:
            raise ProxyError(f"{split.scheme}://{host_of(split)}", "expected http://host:port")
        return split

    def _put_back(self, url: SplitResult, connection: http.client.HTTPConnection, *, whole: bool) -> None:
        """Keep a connection for the next who asks, unless it stands in the middle of an answer."""
        with self._lock:
            self._busy.discard(connection)
            if whole and not self._closed.is_set():
                self._idle.setdefault((url.scheme, host_of(url)), []).append(connection)
                return
        connection.close()


def parsed(url: str) -> SplitResult:
    """The parts of an http(s) URL. Raises AddressError."""
    try:
        split = urlsplit(url)
        sound = split.scheme in {"http", "https"} and bool(split.hostname) and split.port != 0
    except ValueError as error:  # a port that is none, half an IPv6 address
        raise AddressError(url.rpartition("@")[2], str(error)) from error
    if not sound:
        raise AddressError(without_credentials(url), "expected http://host or https://host")
    return split


def _redirected(here: SplitResult, target: str) -> SplitResult:
    there = parsed(urljoin(here.geturl(), target))
    if there.username is not None:
        raise AddressError(without_credentials(there.geturl()), "a redirect that brings a user name")
    if here.scheme == "https" and there.scheme != "https":
        raise AddressError(without_credentials(there.geturl()), "a redirect from https to something less")
    return there


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    return {} if proxy.username is None else {"Proxy-Authorization": basic(proxy)}


def _check_status(url: SplitResult, response: http.client.HTTPResponse) -> None:
    status = response.status
    if status == 200:
        return
    why = f"HTTP {status} {response.reason}"
    if status in _TEMPORARY or status >= 500:
        raise TryAgainError(why)
    raise RefusedError(without_credentials(url.geturl()), why, status)


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
