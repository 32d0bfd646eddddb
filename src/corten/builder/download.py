"""Fetch files by digest, several at once. Nothing appears under its name before its size and sha256 are checked."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

from corten.builder.remote import Access, Download, without_credentials
from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.meter import Meter
from corten.errors import CortenError, PolicyError, RemoteError, UsageError
from corten.store.writing import BlobWriter, translated

if TYPE_CHECKING:
    # Imported when something is to be fetched: 20 ms that a cached build need not spend.
    from concurrent.futures import Future, ThreadPoolExecutor

    from corten.builder.http_client import Client, Patience

_CHUNK_BYTES = 1 << 18
_TOTAL_S = 6 * 3600.0  # a build of PyTorch for GPUs is gigabytes, and lines are slow
_STEP = "download"


class Downloader:
    """Four threads over kept connections. Use as a context manager: leaving it breaks off and joins the threads."""

    def __init__(
        self,
        access: Access,
        *,
        offline: bool = False,
        threads: int = 4,
        patience: Patience | None = None,
        listen: Listener = nobody,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._access = access
        self._offline = offline
        self._threads = threads
        self._patience = patience
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._stopped = False
        self._submitted: dict[Digest, Future[Path]] = {}
        self._tally = _Tally(listen, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.give_up()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def give_up(self) -> None:
        """Break off what is being fetched; whoever waits for it gets an error."""
        with self._lock:
            self._stopped = True
            if self._client:
                self._client.close()

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
        from corten.builder.http_client import ClientError, TryAgainError

        with translated(download.path, "keep a download"):
            download.path.parent.mkdir(parents=True, exist_ok=True)
        split = urlsplit(download.url)
        try:
            if split.scheme == "file":
                with Path(unquote(split.path)).open("rb") as stream:
                    return self._kept(download, iter(lambda: stream.read(_CHUNK_BYTES), b""))
            return self._asked().get(download.url, partial(self._kept, download))
        except (OSError, ClientError, TryAgainError) as error:
            raise _failed(download, error) from error

    def _kept(self, download: Download, pieces: Iterable[bytes]) -> Path:
        temporary = download.path.with_name(f".{download.path.name[:100]}.{secrets.token_hex(6)}")
        with translated(temporary, "keep a download"):
            blob = BlobWriter(temporary)
        try:
            for piece in pieces:
                blob.write(piece)
                self._tally.moved(len(piece))
            _check(download, blob)
            with translated(temporary, "keep a download"):
                blob.finish()
                temporary.rename(download.path)
        except BaseException:
            blob.abandon()
            raise
        return download.path

    def _asked(self) -> Client:
        from corten.builder.http_client import Client, Patience

        with self._lock:
            if self._client is None:
                self._client = Client(
                    proxies=self._access.proxies,
                    patience=self._patience or Patience(total_s=_TOTAL_S),
                    authorization=self._access.authorization_for,
                )
                if self._stopped:
                    self._client.close()
            return self._client


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
                self._listen(
                    Event(
                        _STEP,
                        Phase.DONE,
                        f"{self._files} wheel{'' if self._files == 1 else 's'}, {size_bytes / 1e6:.1f} MB",
                        figures,
                    )
                )


def _check(download: Download, blob: BlobWriter) -> None:
    from corten.builder.http_client import TryAgainError

    if download.size_bytes and blob.size_bytes < download.size_bytes:
        raise TryAgainError(f"cut short after {blob.size_bytes} of {download.size_bytes} bytes")
    if blob.digest != download.digest:
        raise PolicyError(
            "build.hash_mismatch",
            f"`{download.path.name}` is not the file that was locked",
            where=without_credentials(download.url),
            why=f"expected {download.digest}, got {blob.digest} ({blob.size_bytes} bytes)",
            hint="if the file was replaced on purpose, delete corten.lock (or the cache's locks) to lock anew",
        )


def _failed(download: Download, error: Exception) -> CortenError:
    from corten.builder.http_client import ClientError, UnreachableError

    lost = isinstance(error, UnreachableError)
    return RemoteError(
        "build.download_failed",
        f"could not download `{download.path.name}`",
        where=without_credentials(download.url),
        why=error.why if isinstance(error, ClientError) else str(error) or type(error).__name__,
        hint="check the network (HTTPS_PROXY, SSL_CERT_FILE), then run the same command again"
        if lost
        else "check the index and its credentials (docs/how-to/use-a-private-index.md)",
    )
