"""Moving an image and what refers to it from a source to a target: blobs side by side, manifests, the tag last."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from corten.core.digest import Digest
from corten.core.events import Listener
from corten.core.image import Descriptor
from corten.core.meter import Meter
from corten.errors import CortenError
from corten.registry.documents import Manifest, check_depth, unique

THREADS = 4
_Thing = TypeVar("_Thing")
_Done = TypeVar("_Done")


class Reader(Protocol):
    """Bytes on their way."""

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer as far as there is something; 0 at the end."""
        ...


class Blobs(Protocol):
    """Where blobs come from."""

    def open(self, blob: Descriptor, offset_bytes: int) -> AbstractContextManager[Reader]:
        """A blob's bytes from an offset on; may raise AgainError."""
        ...

    def corrupt(self, blob: Descriptor, seen: Digest) -> CortenError:
        """What to say when its bytes are not what their digest says."""
        ...


class Source(Blobs, Protocol):
    """Where an image comes from."""

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """One of its manifests, checked against its digest."""
        ...

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """The manifests that refer to one."""
        ...

    def signatures(self, subject: Digest) -> Manifest | None:
        """The manifest under the tag of its signatures (`store.signature_tag`), if there is one."""
        ...


class Target(Protocol):
    """Where an image goes to."""

    def complete(self, manifest: Manifest) -> bool:
        """Whether this manifest and all it needs is there."""
        ...

    def has(self, blob: Descriptor) -> bool:
        """Whether the blob is there."""
        ...

    def take(self, blob: Descriptor, source: Blobs, sent: Callable[[int], None]) -> bool:
        """Get it from the source, telling how many bytes moved. False when none had to (it was mounted)."""
        ...

    def put(self, manifest: Manifest) -> bool:
        """Keep a manifest whose blobs and children are there. Whether it is listed with its subject by that."""
        ...

    def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """List manifests that were put with the one they refer to."""
        ...

    def sign(self, subject: Digest, signatures: Manifest) -> None:
        """Add to the signatures under a manifest's tag those of another place; its blobs are there."""
        ...

    def tag(self, manifest: Manifest) -> None:
        """Let the name lead to it: the last step, after which the image is there."""
        ...


@dataclass(frozen=True, slots=True)
class Moved:
    """What a transfer did. Sizes in bytes; `blobs_sent` of `blobs`, the rest was there or mounted."""

    digest: Digest
    blobs: int
    blobs_sent: int
    blobs_mounted: int
    size_bytes: int
    sent_bytes: int
    referrers: int


@dataclass(frozen=True, slots=True)
class Freight:
    """What belongs to an image: its manifests, children before the index that lists them, and what refers to them.

    `signatures` are those found by their tag, each with what it is about.
    """

    image: tuple[Manifest, ...]
    referrers: tuple[Manifest, ...] = ()
    signatures: tuple[tuple[Digest, Manifest], ...] = ()

    @property
    def root(self) -> Manifest:
        """What the tag will lead to."""
        return self.image[-1]


def gather(source: Source, root: Manifest) -> Freight:
    """Find all that belongs to an image. Raises what the source does, RemoteError for indexes nested too deep."""
    image = tuple(_family(source, root, 0))
    known = {manifest.digest for manifest in image}
    referrers: list[Manifest] = []
    # Of referrers too: an SBOM may be signed.
    look_at = list(image)
    while look_at:
        subject = look_at.pop(0)
        for descriptor in source.referrers(subject.digest):
            if descriptor.digest not in known:
                known.add(descriptor.digest)
                found = source.manifest(descriptor)
                # A list of referrers is anybody's word; the manifest's own says what it refers to.
                if found.subject == subject.digest:
                    referrers.append(found)
                    look_at.append(found)
    tagged = ((one.digest, source.signatures(one.digest)) for one in image)
    return Freight(image, tuple(referrers), tuple((subject, found) for subject, found in tagged if found))


def _family(source: Source, manifest: Manifest, depth: int) -> Iterator[Manifest]:
    check_depth(depth, str(manifest.digest))
    for child in unique(manifest.children):
        yield from _family(source, source.manifest(child), depth + 1)
    yield manifest


def transfer(
    source: Source,
    target: Target,
    freight: Freight,
    *,
    step: str,
    listen: Listener,
    stop: threading.Event,
    threads: int = THREADS,
) -> Moved:
    """Move it all. `stop` is set when one blob fails, so that the others give up soon.

    Raises the first error; what is finished stays at the target and is not moved again next time.
    """
    signatures = [manifest for _, manifest in freight.signatures]
    everything = list(unique(b for one in (*freight.image, *freight.referrers, *signatures) for b in one.blobs))
    with _Crew(threads, stop) as crew:
        listed = (*freight.image, *freight.referrers)
        there = crew.each(target.complete, (*listed, *signatures))
        missing = [one for one, complete in zip((*listed, *signatures), there, strict=True) if not complete]
        blobs = list(unique(blob for manifest in missing for blob in manifest.blobs))
        meter = Meter(step, sum(blob.size_bytes for blob in blobs), listen)
        # The large ones first: a small one at the end does not leave three threads idle.
        ways = crew.each(
            lambda blob: _move(source, target, blob, meter, stop),
            sorted(blobs, key=lambda blob: (-blob.size_bytes, blob.digest)),
        )
        put = {one.digest for one in listed if one in missing or one.subject is not None}
        unlisted: dict[Digest, list[Descriptor]] = {}
        for side_by_side in _in_order(freight):
            wanted = [one for one in side_by_side if one.digest in put]
            for manifest, known in zip(wanted, crew.each(target.put, wanted), strict=True):
                if manifest.subject is not None and not known:
                    unlisted.setdefault(manifest.subject, []).append(manifest.descriptor)
    for subject, referrers in unlisted.items():
        target.attach(subject, referrers)
    for subject, manifest in freight.signatures:
        target.sign(subject, manifest)
    target.tag(freight.root)
    return Moved(
        digest=freight.root.digest,
        blobs=len(everything),
        blobs_sent=ways.count("sent"),
        blobs_mounted=ways.count("mounted"),
        size_bytes=sum(blob.size_bytes for blob in everything),
        sent_bytes=meter.moved_bytes,
        referrers=len(freight.referrers),
    )


def _move(source: Source, target: Target, blob: Descriptor, meter: Meter, stop: threading.Event) -> str:
    if stop.is_set() or target.has(blob):
        meter.skip(blob.size_bytes)
        return "there"
    if target.take(blob, source, meter.add):
        return "sent"
    meter.skip(blob.size_bytes)
    return "mounted"


def _in_order(freight: Freight) -> Iterator[tuple[Manifest, ...]]:
    """What may be put side by side: the manifests that list no others, each index after those, then what refers."""
    yield tuple(one for one in freight.image if not one.children)
    yield from ((one,) for one in freight.image if one.children)
    yield freight.referrers


class _Crew:
    """Threads that keep their connections from one list of things to do to the next. Leaving it joins them."""

    def __init__(self, threads: int, stop: threading.Event) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="corten-blob")
        self._stop = stop

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def each(self, work: Callable[[_Thing], _Done], things: Sequence[_Thing]) -> list[_Done]:
        """What became of each, in their order. The first error is raised, once the others have given up."""
        futures = [self._pool.submit(work, one) for one in things]
        failed: list[BaseException] = []
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            failed = [error for future in done if (error := future.exception())]
        finally:
            # Also when this thread is interrupted: nobody goes on for an image that will not be there.
            if failed or not all(future.done() for future in futures):
                self._stop.set()
                self._pool.shutdown(wait=True, cancel_futures=True)
        if failed:
            raise failed[0]
        return [future.result() for future in futures]
