"""Package files: from the mirror into the cache, checked on the way in and again whenever they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from corten.builder.debian.files import MismatchError, checked, is_intact, replacing
from corten.builder.debian.mirror import Mirror, each
from corten.builder.debian.release import Deb
from corten.builder.http_client import Body, Patience
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.meter import Meter

_CONNECTIONS = 4
_STEP = "debs"


def deb_path(cache: Path, deb: Deb) -> Path:
    """Where the cache keeps a package."""
    return cache / "debs" / deb.digest.hex


def fetch(
    debs: Sequence[Deb],
    cache: Path,
    listen: Listener = nobody,
    *,
    arrived: Callable[[Deb], object] = lambda _: None,
    proxies: Mapping[str, str] | None = None,
    patience: Patience | None = None,
) -> tuple[Path, ...]:
    """The files of the packages, in their order, downloading what the cache lacks or holds damaged.

    `cache` is the installation's cache folder; `arrived` is told of each package whose file is there and checked, by
    several threads. No connection is opened when all are there. Raises PolicyError
    (`debian.package_mismatch`), RemoteError (`debian.unreachable`, `debian.gone`, `debian.refused`) and CortenError
    (`store.disk_full`, `store.write_failed`).
    """
    wanted = {deb.digest: deb for deb in debs}  # a package may be named twice; two threads must not write one file
    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        intact = threads.map(lambda deb: is_intact(deb_path(cache, deb), deb.digest, deb.size_bytes), wanted.values())
        whole = dict(zip(wanted.values(), intact, strict=True))
    missing = [deb for deb, there in whole.items() if not there]
    for deb in sorted((deb for deb, there in whole.items() if there), key=lambda deb: -deb.size_bytes):
        arrived(deb)
    for deb in missing:
        if deb_path(cache, deb).exists():
            listen(Event(_STEP, Phase.WARNING, f"the cached file of {deb.name} is damaged; fetching it again"))
    if missing:
        _download(missing, cache, listen, Mirror(proxies=proxies, patience=patience), arrived)
    return tuple(deb_path(cache, deb) for deb in debs)


def _download(
    debs: Sequence[Deb], cache: Path, listen: Listener, mirror: Mirror, arrived: Callable[[Deb], object]
) -> None:
    figures = {"files": len(debs), "bytes": sum(deb.size_bytes for deb in debs)}
    listen(Event(_STEP, Phase.STARTED, f"fetching {len(debs)} Debian packages", figures))
    # The largest first: the last connection to finish decides.
    meter = Meter(_STEP, figures["bytes"], listen)
    largest_first = sorted(debs, key=lambda deb: (-deb.size_bytes, deb.name))

    def one(deb: Deb) -> None:
        fetch_one(mirror, deb, cache, meter)
        arrived(deb)

    with mirror:
        each(mirror, one, largest_first, at_once=_CONNECTIONS)
    listen(Event(_STEP, Phase.DONE, f"fetched {len(debs)} Debian packages", figures))


def fetch_one(mirror: Mirror, deb: Deb, cache: Path, meter: Meter) -> Path:
    """Download one package into the cache, telling the meter; the cache never holds part of a file."""
    path = deb_path(cache, deb)

    def mismatch(why: str) -> MismatchError:
        return MismatchError(
            "debian.package_mismatch",
            f"the mirror sent another file for `{deb.name}` {deb.version}",
            where=deb.url,
            why=why,
            hint="do not build from this mirror; try https://deb.debian.org",
        )

    def receive(body: Body) -> None:
        with replacing(path) as write_piece:
            for piece in checked(body, deb.digest, deb.size_bytes, mismatch):
                write_piece(piece)
                meter.add(len(piece))

    mirror.get(deb.url, receive)
    return path
