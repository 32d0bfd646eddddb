"""The Debian mirror: what asking it may end with, in Debian's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Self, TypeVar
from urllib.parse import SplitResult, urlsplit

from corten.builder.http_client import (
    AddressError,
    Body,
    Client,
    ClientError,
    Patience,
    ProxyError,
    RefusedError,
)
from corten.errors import CortenError, RemoteError, UsageError

_I = TypeVar("_I")
_T = TypeVar("_T")
_GONE = (404, 410)


class Mirror:
    """Asks for files; safe for several threads. Close it (or use it with `with`)."""

    def __init__(self, *, proxies: Mapping[str, str] | None = None, patience: Patience | None = None) -> None:
        """`proxies` as urllib.request.getproxies() returns them: {"https": "http://proxy:3128", "no": "..."}."""
        self._client = Client(proxies=proxies, patience=patience)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Break off what is being fetched: whoever waits for it gets an error at once."""
        self._client.close()

    def get(self, url: str, receive: Callable[[Body], _T]) -> _T:
        """GET a URL and return what `receive` makes of its body; `receive` is called anew for each attempt.

        Raises RemoteError: `debian.gone` (404 and 410), `debian.refused` (other refusals), `debian.unreachable`;
        UsageError `debian.mirror`, `debian.proxy`.
        """
        split_url(url)
        try:
            return self._client.get(url, receive)
        except ClientError as error:
            raise _explained(error) from error


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
        raise _no_mirror(f"{split.scheme}://{split.hostname or ''}{split.path}")
    return split


def _no_mirror(url: str, why: str = "expected http://host or https://host, without user name") -> UsageError:
    return UsageError(
        "debian.mirror",
        "not a Debian mirror's address",
        where=url,
        why=why,
        hint="set CORTEN_DEBIAN_MIRROR=https://deb.debian.org",
    )


def _explained(error: ClientError) -> CortenError:
    match error:
        case AddressError():
            return _no_mirror(error.url, error.why)
        case ProxyError():
            return UsageError(
                "debian.proxy",
                "not a proxy Corten can use for the Debian mirror",
                where=error.url,
                why=error.why,
                hint="set https_proxy to an HTTP proxy, or no_proxy for the mirror's host",
            )
        case RefusedError() if error.status in _GONE:
            return RemoteError(
                "debian.gone",
                "the mirror does not have a file",
                where=error.url,
                why=f"HTTP {error.status}; mirrors drop old package versions when new ones are out",
                hint="lock again to take the versions the mirror has now",
            )
        case RefusedError():
            return RemoteError("debian.refused", "the mirror refused a file", where=error.url, why=error.why)
        case _:
            return RemoteError(
                "debian.unreachable",
                "the Debian mirror does not answer",
                where=error.url,
                why=error.why,
                hint="set CORTEN_DEBIAN_MIRROR to a mirror in reach, or build with a lock whose packages are cached",
            )
