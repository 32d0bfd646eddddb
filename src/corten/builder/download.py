"""Fetch files by digest over a few persistent connections.

A connection a request costs a handshake each (32 small files took 5 s one by one and 0.03 s over four kept ones).
Nothing appears under its name before its size and sha256 are checked.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from corten.builder.remote import Access, Download, basic, host_of, without_credentials
from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.meter import Meter
from corten.core.proxy import proxy_for
from corten.errors import CortenError, PolicyError, RemoteError, UsageError
from corten.store.writing import BlobWriter, translated

if TYPE_CHECKING:
    # Imported when something is to be fetched: 20 ms that a cached build need not spend.
    import http.client
    import ssl
    from concurrent.futures import Future, ThreadPoolExecutor

_CHUNK_BYTES = 1 << 18
_TIMEOUT_S = 30.0
_REDIRECTS = 5
_RETRY_AFTER_S = (0.2, 1.0, 3.0)
_AGENT = "corten"
_STEP = "download"


class Downloader:
    """Four threads, each with a connection a host. Use as a context manager: leaving it joins the threads."""

    def __init__(
        self,
        access: Access,
        *,
        offline: bool = False,
        threads: int = 4,
        listen: Listener = nobody,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._access = access
        self._offline = offline
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[http.client.HTTPConnection] = []
        self._stopped = threading.Event()
        self._tls: ssl.SSLContext | None = None
        self._submitted: dict[Digest, Future[Path]] = {}
        self._tally = _Tally(listen, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
        for connection in self._open:
            connection.close()

    def give_up(self) -> None:
        """Break off what is being fetched; whoever waits for it gets an error."""
        self._stopped.set()

    def submit(self, download: Download) -> Future[Path]:
        """Fetch in the background what is not there yet; asking again for the same digest gives the same future.

        The future's errors: RemoteError `build.download_failed`, PolicyError `build.hash_mismatch`, UsageError
        `build.offline`, CortenError `store.disk_full`.
        """
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="corten-download")
            if download.digest not in self._submitted:
                self._submitted[download.digest] = self._pool.submit(self._fetch, download)
            return self._submitted[download.digest]

    def _fetch(self, download: Download) -> Path:
        # A file that was damaged on disk is fetched again, never used.
        with suppress(OSError):
            if Digest.of_file(download.path) == download.digest:
                return download.path
        if self._offline:
            raise UsageError(
                "build.offline",
                f"`{download.path.name}` is not in the cache",
                where=download.url,
                why="it would have to be downloaded, and --offline forbids it",
                hint="build once without --offline",
            )
        self._tally.begin(download.size_bytes)
        path = self._from_network(download)
        self._tally.end()
        return path

    def _from_network(self, download: Download) -> Path:
        import http.client
        import ssl

        with translated(download.path, "keep a download"):
            download.path.parent.mkdir(parents=True, exist_ok=True)
        for delay_s in (*_RETRY_AFTER_S, None):
            try:
                return self._once(download)
            except (http.client.HTTPException, OSError, _TryAgainError) as error:
                self._forget_connections()
                if delay_s is None or isinstance(error, (ssl.SSLCertVerificationError, FileNotFoundError)):
                    raise _failed(download, error) from error
                self._stopped.wait(delay_s)
            if self._stopped.is_set():
                break
        raise RemoteError("build.download_failed", f"the download of `{download.path.name}` was given up")

    def _once(self, download: Download) -> Path:
        temporary = download.path.with_name(f".{download.path.name[:100]}.{secrets.token_hex(6)}")
        with self._opened(download.url) as body:
            with translated(temporary, "keep a download"):
                blob = BlobWriter(temporary)
            try:
                for piece in body:
                    blob.write(piece)
                    self._tally.moved(len(piece))
                    self._check_stopped()
                _check(download, blob)
                with translated(temporary, "keep a download"):
                    blob.finish()
                    temporary.rename(download.path)
            except BaseException:
                blob.abandon()
                raise
        return download.path

    @contextmanager
    def _opened(self, url: str) -> Iterator[Iterator[bytes]]:
        split = urlsplit(url)
        if split.scheme == "file":
            with Path(unquote(split.path)).open("rb") as stream:
                yield _pieces(stream)
            return
        for _ in range(_REDIRECTS):
            response = self._request(split)
            if response.status in {301, 302, 303, 307, 308}:
                response.read()
                target = urlsplit(urljoin(split.geturl(), response.headers.get("Location", "")))
                if split.scheme == "https" and target.scheme != "https":
                    raise _refused(url, "a redirect from https to something less")
                split = target
                continue
            if response.status >= 500 or response.status == 429:
                response.read()
                raise _TryAgainError(f"HTTP {response.status}")
            if response.status != 200:
                response.read()
                raise _refused(url, f"HTTP {response.status} {response.reason}")
            yield _whole(response)
            return
        raise _refused(url, "too many redirects")

    def _request(self, split: SplitResult) -> http.client.HTTPResponse:
        connection = self._connection(split)
        headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
        if authorization := self._authorization(split):
            headers["Authorization"] = authorization
        path = (split.path or "/") + (f"?{split.query}" if split.query else "")
        proxied = split.scheme == "http" and self._proxy(split)
        connection.request("GET", split._replace(fragment="").geturl() if proxied else path, headers=headers)
        return connection.getresponse()

    def _authorization(self, split: SplitResult) -> str:
        if split.username:
            return basic(split)
        known = self._access.authorization
        return known.get(host_of(split)) or known.get(split.hostname or "", "")  # netrc knows no ports

    def _connection(self, split: SplitResult) -> http.client.HTTPConnection:
        kept: dict[str, http.client.HTTPConnection] | None = getattr(self._local, "connections", None)
        if kept is None:
            kept = self._local.connections = {}
        key = f"{split.scheme}://{host_of(split)}"
        if key not in kept:
            kept[key] = self._connect(split)
            with self._lock:
                self._open.append(kept[key])
        return kept[key]

    def _connect(self, split: SplitResult) -> http.client.HTTPConnection:
        import http.client

        if split.scheme not in {"http", "https"} or not split.hostname:
            raise _refused(split.geturl(), "expected an http, https or file URL")
        proxy = self._proxy(split)
        via = urlsplit(proxy) if proxy else split
        host, port = via.hostname or "", via.port
        if split.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        connection = http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=self._context())
        if proxy:
            headers = {"Proxy-Authorization": basic(via)} if via.username else {}
            connection.set_tunnel(split.hostname, split.port or 443, headers=headers)
        return connection

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                import ssl

                self._tls = ssl.create_default_context()
            return self._tls

    def _proxy(self, split: SplitResult) -> str:
        return proxy_for(self._access.proxies, split.scheme, split.hostname or "")

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise _TryAgainError("stopped")

    def _forget_connections(self) -> None:
        for connection in getattr(self._local, "connections", {}).values():
            with suppress(OSError):
                connection.close()
        self._local.connections = {}


class _TryAgainError(Exception):
    """The server has a bad moment, or the answer was cut short."""


class _Tally:
    """What is said of downloads: that they began, how far they are, and that all asked for so far are here."""

    def __init__(self, listen: Listener, clock: Callable[[], float]) -> None:
        self._listen = listen
        self._clock = clock
        self._lock = threading.Lock()
        self._meter = Meter(_STEP, 0, listen)
        self._files = self._left = 0
        self._began_s = 0.0

    def begin(self, size_bytes: int) -> None:
        """A file is to come; 0 when nobody knows how large it is."""
        with self._lock:
            if not self._left:
                self._began_s, self._files = self._clock(), 0
                self._meter = Meter(_STEP, 0, self._listen)
                self._listen(Event(_STEP, Phase.STARTED, "wheels"))
            self._files += 1
            self._left += 1
            self._meter.expect(size_bytes)

    def moved(self, count_bytes: int) -> None:
        """Bytes of one of them arrived."""
        self._meter.add(count_bytes)

    def end(self) -> None:
        """One of them is whole."""
        with self._lock:
            self._left -= 1
            if not self._left:
                size_bytes, seconds = self._meter.moved_bytes, self._clock() - self._began_s
                figures = {"files": self._files, "bytes": size_bytes, "seconds": seconds}
                self._listen(Event(_STEP, Phase.DONE, f"{self._files} wheels, {size_bytes / 1e6:.1f} MB", figures))


def _pieces(stream: BinaryIO | http.client.HTTPResponse) -> Iterator[bytes]:
    read: Callable[[int], bytes] = stream.read
    while piece := read(_CHUNK_BYTES):
        yield piece


def _whole(response: http.client.HTTPResponse) -> Iterator[bytes]:
    import http.client

    yield from _pieces(response)
    # http.client takes a connection that breaks off for the end when it is read by pieces.
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)


def _check(download: Download, blob: BlobWriter) -> None:
    if download.size_bytes and blob.size_bytes < download.size_bytes:
        raise _TryAgainError(f"cut short after {blob.size_bytes} of {download.size_bytes} bytes")
    if blob.digest != download.digest:
        raise PolicyError(
            "build.hash_mismatch",
            f"`{download.path.name}` is not the file that was locked",
            where=without_credentials(download.url),
            why=f"expected {download.digest}, got {blob.digest} ({blob.size_bytes} bytes)",
            hint="if the file was replaced on purpose, delete corten.lock (or the cache's locks) to lock anew",
        )


def _refused(url: str, why: str) -> CortenError:
    return RemoteError(
        "build.download_failed",
        f"could not download `{os.path.basename(urlsplit(url).path)}`",  # noqa: PTH119 - a URL's path, not a file's
        where=without_credentials(url),
        why=why,
        hint="check the index and its credentials (UV_DEFAULT_INDEX)",
    )


def _failed(download: Download, error: Exception) -> CortenError:
    return RemoteError(
        "build.download_failed",
        f"could not download `{download.path.name}`",
        where=without_credentials(download.url),
        why=f"{type(error).__name__}: {error}" if str(error) else type(error).__name__,
        hint="check the network (HTTPS_PROXY, SSL_CERT_FILE), then run the same command again",
    )
