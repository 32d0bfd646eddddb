"""HTTP to the Debian mirror: few connections, kept alive, with deadlines and retries.

One connection a request cost a cold build five seconds where four kept ones need a fraction of one
(docs/decisions/0006).
"""

from __future__ import annotations

import base64
import http.client
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined] # typeshed has it for macOS only

from corten.errors import CortenError, RemoteError, UsageError

_I = TypeVar("_I")
_T = TypeVar("_T")
_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait: `idle_s` for the next bytes, `total_s` for one file, `attempts` with growing pauses between."""

    idle_s: float = 20.0
    total_s: float = 600.0
    attempts: int = 3
    pause_s: float = 0.4


class _TemporaryError(Exception):
    """An answer that may be another one in a moment."""


class Body:
    """What a mirror answers, in pieces. Reading ends with an error rather than with part of the file."""

    def __init__(self, response: http.client.HTTPResponse, deadline_s: float, closed: threading.Event) -> None:
        """Made by `Mirror`; `deadline_s` on the monotonic clock, `closed` ends it as well."""
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
        yield self._response.read()  # raises IncompleteRead when bytes are missing


class Mirror:
    """A client that keeps its connections; safe for several threads. Close it (or use it with `with`)."""

    def __init__(self, *, proxies: Mapping[str, str] | None = None, patience: Patience | None = None) -> None:
        """`proxies` as urllib.request.getproxies() returns them: {"https": "http://proxy:3128", "no": "..."}."""
        self._proxies = dict(proxies or {})
        self._patience = patience or Patience()
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._busy: set[http.client.HTTPConnection] = set()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

        Raises RemoteError: `debian.gone` (404 and 410), `debian.refused` (other refusals), `debian.unreachable`.
        """
        failure: Exception | None = None
        for attempt in range(self._patience.attempts):
            # Jitter keeps the threads of a build from knocking all at once.
            pause_s = self._patience.pause_s * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311
            if self._closed.wait(pause_s if attempt else 0):
                break
            try:
                return self._follow(url, receive)
            except CortenError:
                raise
            except ssl.SSLCertVerificationError as error:
                raise _unreachable(url, error) from error
            except (OSError, http.client.HTTPException, _TemporaryError) as error:
                failure = error
        raise _unreachable(url, failure) from failure

    def _follow(self, url: str, receive: Callable[[Body], _T]) -> _T:
        deadline_s = time.monotonic() + self._patience.total_s
        here = url
        for _ in range(_MOST_REDIRECTS + 1):
            split = split_url(here)
            connection, path, headers = self._connection(split)
            try:
                connection.request("GET", path, headers=headers)
                # Closed whatever happens: broken off, a response would keep the socket its connection has closed.
                with connection.getresponse() as response:
                    if response.status not in _REDIRECTS:
                        _check_status(here, response)
                        result = receive(Body(response, deadline_s, self._closed))
                        self._keep(split, connection, response)
                        return result
                    here = urljoin(here, response.headers.get("Location", ""))
                    response.read()
                    self._keep(split, connection, response)
            except BaseException:
                self._drop(connection)
                raise
        raise RemoteError("debian.refused", "the mirror redirects without end", where=url)

    def _connection(self, url: SplitResult) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        path = url.path + (f"?{url.query}" if url.query else "")
        headers = {"User-Agent": "corten", "Accept-Encoding": "identity"}
        proxy = self._proxy_of(url)
        if proxy is not None and url.scheme == "http":
            path = f"http://{url.netloc}{path}"
            headers |= _proxy_authorization(proxy)
        with self._lock:
            idle = self._idle.get((url.scheme, url.netloc))
            connection = idle.pop() if idle else None
        connection = connection or self._open(url, proxy)
        with self._lock:
            self._busy.add(connection)
        return connection, path, headers

    def _open(self, url: SplitResult, proxy: SplitResult | None) -> http.client.HTTPConnection:
        through = proxy or url
        host, port, timeout_s = through.hostname or "", through.port, self._patience.idle_s
        if url.scheme == "http":
            return http.client.HTTPConnection(host, port or 80, timeout=timeout_s)
        connection = http.client.HTTPSConnection(
            host, port or (443 if proxy is None else 80), timeout=timeout_s, context=self._tls_context()
        )
        if proxy is not None:
            connection.set_tunnel(url.hostname or "", url.port or 443, headers=_proxy_authorization(proxy))
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                self._tls = ssl.create_default_context()  # reads the CA file: 20 ms, once
            return self._tls

    def _proxy_of(self, url: SplitResult) -> SplitResult | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if not proxy or proxy_bypass_environment(url.hostname or "", self._proxies):
            return None
        split = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        if split.scheme != "http" or not split.hostname:
            raise UsageError(
                "debian.proxy",
                "not a proxy Corten can use for the Debian mirror",
                where=f"{split.scheme}://{split.hostname or ''}",
                why="expected http://host:port",
                hint="set https_proxy to an HTTP proxy, or no_proxy for the mirror's host",
            )
        return split

    def _keep(
        self, url: SplitResult, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        if response.will_close or not response.isclosed() or self._closed.is_set():
            self._drop(connection)
            return
        with self._lock:
            self._busy.discard(connection)
            self._idle.setdefault((url.scheme, url.netloc), []).append(connection)

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()


def each(mirror: Mirror, work: Callable[[_I], _T], items: Sequence[_I], *, at_once: int) -> list[_T]:
    """`work` on every item, so many at once; the first failure is raised and breaks off what the others transfer."""
    with ThreadPoolExecutor(at_once) as threads:
        jobs = [threads.submit(work, item) for item in items]
        try:
            ended, _ = wait(jobs, return_when=FIRST_EXCEPTION)
            for job in jobs:
                if job in ended:
                    job.result()
            return [job.result() for job in jobs]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            mirror.close()
            raise


def split_url(url: str) -> SplitResult:
    """The parts of an http(s) URL without credentials; raises UsageError (`debian.mirror`) for others."""
    split = urlsplit(url)
    if split.scheme not in {"http", "https"} or not split.hostname or split.username is not None:
        raise UsageError(
            "debian.mirror",
            "not a Debian mirror's address",
            where=f"{split.scheme}://{split.hostname or ''}{split.path}",
            why="expected http://host or https://host, without user name",
            hint="set CORTEN_DEBIAN_MIRROR=https://deb.debian.org",
        )
    return split


def _proxy_authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode("ascii")}


def _check_status(url: str, response: http.client.HTTPResponse) -> None:
    status = response.status
    if status == 200:
        return
    if status in {404, 410}:
        raise RemoteError(
            "debian.gone",
            "the mirror does not have a file",
            where=url,
            why=f"HTTP {status}; mirrors drop old package versions when new ones are out",
            hint="lock again to take the versions the mirror has now",
        )
    if status in {408, 425, 429} or status >= 500:
        raise _TemporaryError(f"HTTP {status} {response.reason}")
    raise RemoteError("debian.refused", "the mirror refused a file", where=url, why=f"HTTP {status} {response.reason}")


def _unreachable(url: str, failure: Exception | None) -> RemoteError:
    return RemoteError(
        "debian.unreachable",
        "the Debian mirror does not answer",
        where=url,
        why="broken off" if failure is None else str(failure) or type(failure).__name__,
        hint="set CORTEN_DEBIAN_MIRROR to a mirror in reach, or build with a lock whose packages are in the cache",
    )
