"""A plan to layers: what is cached is taken, the rest is downloaded and made, as much at once as helps."""

from __future__ import annotations

import hashlib
import heapq
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

import corten
from corten.adapters.base import SourceFile
from corten.adapters.distributions import distribution
from corten.builder import contents, oci_base, runtime
from corten.builder.debian.release import Deb, Release
from corten.builder.download import Downloader
from corten.builder.entry import Entry
from corten.builder.interpreter import Interpreter
from corten.builder.layer import LayerCache, cache_key, write_layer
from corten.builder.oci_base import OciBase
from corten.builder.plan import MOST_LAYERS, Plan, WeightGroup, WheelGroup
from corten.builder.pylock import Locked
from corten.builder.remote import Access, Download
from corten.builder.tar import in_order, merged
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.image import Compression, Layer, LayerKind, Packing
from corten.core.meter import Meter
from corten.core.model import SPEC_FILE, ModelSpec
from corten.core.platform import Platform
from corten.errors import NotFoundError, UsageError
from corten.store.layout import Layout

if TYPE_CHECKING:
    # Imported when a layer has to be made, as wheels' and Debian's readers are: 20 ms a cached build need not spend.
    from concurrent.futures import Future, ThreadPoolExecutor

# Three at once keep two processors busy while one waits for a download or the disk; zstd has threads of its own.
_AT_ONCE = 3


@dataclass(frozen=True, slots=True)
class Made:
    """A layer, whether the cache had it, and how long it took to make."""

    layer: Layer
    cached: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Workshop:
    """What layers are made with. `clock` counts seconds; `listen` must bear calls from several threads."""

    layout: Layout
    cache: Path
    access: Access
    downloads: Downloader
    offline: bool
    clock: Callable[[], float]
    listen: Listener


@dataclass(frozen=True, slots=True)
class _Job:
    """A layer to be: the key of its inputs, the `wheels` that are downloaded first, how its entries are made."""

    kind: LayerKind
    title: str
    key: str
    compression: Compression
    entries: Callable[[], Iterable[Entry]]
    wheels: tuple[Locked, ...] = ()
    step: str = ""
    size_bytes: int = 0


def make_layers(plan: Plan, shop: Workshop) -> tuple[Made, ...]:
    """The layers of a plan, lowest first, all in the store. The first error ends the rest and is raised.

    Those of another image as the base must be there.
    """
    with Making(shop) as making:
        return making.layers(plan)


def make_base(
    debs: Sequence[Deb], release: Release, platform: Platform, compression: Compression, shop: Workshop
) -> Made:
    """The base layer of these packages alone, in the store."""
    with Making(shop) as making:
        return making.all([_debian(debs, release, platform, compression, shop)])[0]


def make_accounts(base: OciBase, distributions: Iterable[str], compression: Compression, shop: Workshop) -> Made:
    """The layer over a base that lets these distributions be installed above it, in the store."""
    with Making(shop) as making:
        return making.all([_accounts(base, distributions, compression)])[0]


class Making:
    """Layers on their way into the store, each made once however often it is asked for.

    Use as a context manager: leaving it joins the threads; on an error what has not begun is forgotten and what is
    being fetched is given up.
    """

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._cache = LayerCache(shop.cache / "layers", shop.layout)
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[str, Future[Made]] = {}
        self._lock = threading.Lock()
        # A layer each may wait for its downloads; what has all it needs takes turns.
        self._turns = _Turns(_AT_ONCE)
        self._given_up = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._given_up = True
            self._shop.downloads.give_up()
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def layers(self, plan: Plan) -> tuple[Made, ...]:
        """The layers of a plan, lowest first. The first error is raised."""
        beneath = plan.base.layers if isinstance(plan.base, OciBase) else ()
        there = (Made(layer, cached=True, seconds=0.0) for layer in beneath)
        return (*there, *self.all(_jobs(plan, self._shop)))

    def begin_base(self, debs: Sequence[Deb], release: Release, platform: Platform, packing: Packing) -> None:
        """Begin with the layer of these packages, which a plan will ask for later."""
        job = _debian(debs, release, platform, packing.of(LayerKind.BASE), self._shop)
        if not self._cache.get(job.key):
            self._begin([job])

    def begin_weights(self, groups: Sequence[WeightGroup]) -> None:
        """Begin with the layers of these model files, which a plan will ask for later: they wait for no lock."""
        jobs = [_weights(group) for group in groups]
        self._begin([job for job in jobs if not self._cache.get(job.key)])

    def begin_wheels(self, groups: Sequence[WheelGroup], python: Interpreter, packing: Packing) -> None:
        """Begin with the layers of these wheels, which a plan will ask for later."""
        jobs = [_wheels(group, python, packing, self._shop) for group in groups]
        self._begin([job for job in jobs if not self._cache.get(job.key)])

    def all(self, jobs: Sequence[_Job]) -> tuple[Made, ...]:
        """The layers of these jobs, in their order. The first error is raised."""
        made: dict[str, Made] = {}
        for job in jobs:
            if job.key not in self._begun and (layer := self._cache.get(job.key)):
                made[job.key] = Made(layer, cached=True, seconds=0.0)
                figures = {"cached": True, "bytes": layer.size_bytes}
                self._shop.listen(Event(job.step, Phase.DONE, job.title, figures))
        missing = [job for job in jobs if job.key not in made]
        if missing:
            self._begin(missing)
            made |= self._ended({job.key for job in missing})
        return tuple(made[job.key] for job in jobs)

    def _begin(self, jobs: Sequence[_Job]) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(MOST_LAYERS, thread_name_prefix="corten-layer")
            # The largest first: what ends last decides, and large layers overlap with the downloads of the others.
            for job in sorted(jobs, key=lambda job: -job.size_bytes):
                if job.key not in self._begun:
                    wheels = [self._shop.downloads.submit(wheel_download(one, self._shop.cache)) for one in job.wheels]
                    self._begun[job.key] = self._pool.submit(self._made, job, wheels)

    def _made(self, job: _Job, downloads: Sequence[Future[Path]]) -> Made:
        wheels = [download.result() for download in downloads]
        # The base begins last, when its packages are known, and would end last if it waited for its turn as well.
        with nullcontext() if job.kind is LayerKind.BASE else self._turns.one(job.size_bytes):
            if self._given_up:
                raise InterruptedError(job.title)  # nobody asks for it any more
            return _make(job, wheels, self._cache, self._shop, self._go_on)

    def _go_on(self) -> None:
        """Asked with every piece of a layer: what nobody waits for any more need not be finished."""
        if self._given_up:
            raise InterruptedError

    def _ended(self, keys: Collection[str]) -> dict[str, Made]:
        from concurrent.futures import FIRST_EXCEPTION, wait

        done, _ = wait([self._begun[key] for key in keys], return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        return {key: self._begun[key].result() for key in keys}


class _Turns:
    """So many at once; of those that wait, the one with most to do is next: what ends last decides."""

    def __init__(self, at_once: int) -> None:
        self._left = at_once
        self._waiting: list[tuple[int, int]] = []
        self._asked = count()
        self._changed = threading.Condition()

    @contextmanager
    def one(self, size_bytes: int) -> Iterator[None]:
        with self._changed:
            mine = (-size_bytes, next(self._asked))
            heapq.heappush(self._waiting, mine)
            self._changed.wait_for(lambda: self._left > 0 and self._waiting[0] == mine)
            heapq.heappop(self._waiting)
            self._left -= 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._left += 1
                self._changed.notify_all()


def wheel_download(locked: Locked, folder: Path) -> Download:
    """Where a wheel is kept in the cache: below its digest, under its own name (it tells what is inside)."""
    return Download(
        locked.url, locked.digest, locked.size_bytes, folder / "wheels" / locked.digest.hex / locked.filename
    )


@cache
def fingerprint() -> str:
    """A digest of the builder's own source: a cached layer of another builder may have other bytes."""
    folder = Path(__file__).parent
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        state.update(path.read_bytes())
    return state.hexdigest()


def _make(job: _Job, wheels: Sequence[Path], cache: LayerCache, shop: Workshop, go_on: Callable[[], object]) -> Made:
    from corten.builder.layer_facts import (
        FileHashes,
    )  # with what reads tars and zips, which a cached build does without

    started_s = shop.clock()
    shop.listen(Event(job.step, Phase.STARTED, job.title))
    # Weights may be many gigabytes, and what they unpack to is known before.
    meter = Meter(job.step, job.size_bytes, shop.listen if job.kind is LayerKind.WEIGHTS else nobody)
    entries = job.entries()
    if job.kind is LayerKind.BASE:
        entries = tuple(entries)  # a Debian base is in memory as a whole anyway, that of another image is small

    def packed(count_bytes: int) -> None:
        go_on()
        meter.add(count_bytes)

    hashes = FileHashes() if job.kind in (LayerKind.WEIGHTS, LayerKind.CODE) else None
    layer = write_layer(
        hashes.watched(entries) if hashes else entries,
        shop.layout,
        kind=job.kind,
        title=job.title,
        compression=job.compression,
        packed=packed,
    )
    cache.put(job.key, layer)
    # Looked at here, beside the other layers, instead of one after the other when the SBOM asks.
    base = entries if isinstance(entries, tuple) else ()
    known = hashes.contents() if hashes else None
    contents.read(shop.layout, layer, cache=shop.cache, wheels=wheels, base=base, known=known)
    seconds = shop.clock() - started_s
    figures = {"seconds": seconds, "bytes": layer.size_bytes, "tar_bytes": layer.tar_bytes}
    shop.listen(Event(job.step, Phase.DONE, job.title, figures))
    return Made(layer, cached=False, seconds=seconds)


def _jobs(plan: Plan, shop: Workshop) -> list[_Job]:
    return [
        _base(plan, shop),
        *(_wheels(group, plan.python, plan.packing, shop) for group in plan.wheels),
        _runtime(plan),
        *(_weights(group) for group in plan.weights),
        _code(plan),
    ]


def _base(plan: Plan, shop: Workshop) -> _Job:
    match plan.base:
        case Release():
            return _debian(plan.lock.debs, plan.base, plan.platform, plan.packing.of(LayerKind.BASE), shop)
        case OciBase():
            return _accounts(plan.base, [wheel.name for wheel in plan.lock.wheels], plan.packing.of(LayerKind.BASE))


def _accounts(base: OciBase, distributions: Iterable[str], compression: Compression) -> _Job:
    entries = oci_base.accounts(base, map(distribution, distributions))
    described = (text for entry in entries for text in (entry.name, entry.kind.value, content_digest(entry)))
    return _Job(
        LayerKind.BASE,
        oci_base.ACCOUNTS_TITLE,
        cache_key(fingerprint(), "accounts", compression.name, *described),
        compression,
        lambda: entries,
        step="base",
    )


def _debian(
    debs: Sequence[Deb], release: Release, platform: Platform, compression: Compression, shop: Workshop
) -> _Job:
    digests = (str(deb.digest) for deb in debs)

    def entries() -> Iterator[Entry]:
        from corten.builder import base
        from corten.builder.debian.fetcher import deb_path

        paths = {deb: deb_path(shop.cache, deb) for deb in debs}
        with base.Unpacking() as unpacking:
            _fetch(debs, shop, lambda deb: unpacking.begin(paths[deb]))
            yield from base.entries(list(paths.items()), release, platform, unpacking)

    return _Job(
        LayerKind.BASE,
        f"Debian {release.version_id}, Python {release.python}",
        cache_key(fingerprint(), "base", release.codename, str(platform), compression.name, *digests),
        compression,
        entries,
        step="base",
        size_bytes=3 * sum(deb.size_bytes for deb in debs),  # xz: three times the work of a wheel of that size
    )


def _fetch(debs: Sequence[Deb], shop: Workshop, arrived: Callable[[Deb], object]) -> None:
    from corten.builder.debian.fetcher import deb_path, fetch

    if shop.offline and (missing := [deb for deb in debs if not deb_path(shop.cache, deb).is_file()]):
        raise UsageError(
            "build.offline",
            f"`{missing[0].name}` and {len(missing) - 1} more Debian packages are not in the cache",
            where=str((shop.cache / "debs").resolve()),  # a rebuild's cache is a scratch folder that leads there
            why="they would have to be downloaded, and --offline forbids it",
            hint="build once without --offline",
        )
    fetch(debs, shop.cache, shop.listen, arrived=arrived, proxies=shop.access.proxies)


def _wheels(group: WheelGroup, python: Interpreter, packing: Packing, shop: Workshop) -> _Job:
    compression = packing.of(LayerKind.WHEELS)
    paths = [wheel_download(locked, shop.cache).path for locked in group.wheels]
    digests = (str(locked.digest) for locked in group.wheels)
    return _Job(
        LayerKind.WHEELS,
        group.title,
        cache_key(fingerprint(), "wheels", *python.parts, compression.name, group.title, *digests),
        compression,
        lambda: _unpacked(paths, python),
        step="wheels",
        wheels=group.wheels,
        size_bytes=sum(locked.size_bytes for locked in group.wheels),
    )


def _unpacked(wheels: Sequence[Path], python: Interpreter) -> Iterator[Entry]:
    from corten.builder import wheel

    return merged(wheel.entries(path, python) for path in wheels)


def _runtime(plan: Plan) -> _Job:
    compression = plan.packing.of(LayerKind.RUNTIME)
    entries = list(runtime.entries(Path(corten.__file__).parent, plan.python))
    described = (text for entry in entries for text in (entry.name, content_digest(entry)))
    return _Job(
        LayerKind.RUNTIME,
        "server",
        cache_key(fingerprint(), "runtime", compression.name, *described),
        compression,
        lambda: entries,
        step="runtime",
    )


def _weights(group: WeightGroup) -> _Job:
    # Weights hardly compress, and stored plain the blob is the file: it can be mounted, and pushed as it lies there.
    return _Job(
        LayerKind.WEIGHTS,
        group.title,
        cache_key(fingerprint(), "weights", group.title, *(stat_key(file) for file in group.files)),
        Compression.NONE,
        lambda: in_order(Entry(f"models/{file.name}", data=file.path) for file in group.files),
        step="weights",
        size_bytes=sum(_stat(file.path).st_size for file in group.files),
    )


def _code(plan: Plan) -> _Job:
    spec = spec_json(plan.spec)
    compression = plan.packing.of(LayerKind.CODE)
    return _Job(
        LayerKind.CODE,
        "code",
        cache_key(fingerprint(), "code", compression.name, spec.decode(), *(stat_key(file) for file in plan.code)),
        compression,
        lambda: in_order(
            [
                Entry(f"app/{SPEC_FILE}", data=spec),
                *(Entry(f"app/{file.name}", mode=_code_mode(file.path), data=file.path) for file in plan.code),
            ]
        ),
        step="code",
    )


def spec_json(spec: ModelSpec) -> bytes:
    """`/app/corten.json`: the same spec gives the same bytes."""
    return msgspec.json.format(msgspec.json.encode(spec, order="sorted"), indent=1)


def stat_key(file: SourceFile) -> str:
    """Tells a file's content without reading it: a file that was written to has another time, size or inode.

    Only the key of a cached layer depends on it, never a digest.
    """
    seen = _stat(file.path)
    return f"{file.name}\0{file.path}\0{seen.st_size}\0{seen.st_mtime_ns}\0{seen.st_ctime_ns}\0{seen.st_ino}"


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise NotFoundError(
            "source.missing", f"no file `{path.name}`", where=str(path), why=str(error.strerror)
        ) from error


def _code_mode(path: Path) -> int:
    # Of the mode only what a checkout keeps on every machine; the rest depends on the umask.
    return 0o755 if _stat(path).st_mode & 0o100 else 0o644


def content_digest(entry: Entry) -> str:
    """The digest of an entry held in memory."""
    return hashlib.sha256(entry.data).hexdigest() if isinstance(entry.data, bytes) else ""
