"""The local store as a source and as a target of transfers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import BinaryIO

from corten.core.digest import Digest
from corten.core.image import Descriptor
from corten.errors import CortenError, PolicyError
from corten.registry.documents import Manifest, read_manifest
from corten.registry.retry import Retries
from corten.registry.transfer import Blobs
from corten.registry.transport import unreachable
from corten.store import signature_tag
from corten.store.layout import Layout


class LocalSource:
    """Images of the store on this machine."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """Raises NotFoundError `store.blob_missing`, PolicyError `store.blob_corrupt`, RemoteError for no manifest."""
        data = self._layout.read(descriptor.digest)
        return read_manifest(data, descriptor.media_type, str(self._layout.path(descriptor.digest)))

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """What the store lists."""
        return self._layout.referrers(subject)

    def signatures(self, subject: Digest) -> Manifest | None:
        """What the store has under their tag."""
        found = self._layout.named(signature_tag.signature_tag(subject))
        return self.manifest(found) if found else None

    @contextmanager
    def open(self, blob: Descriptor, offset_bytes: int) -> Iterator[_File]:
        """Raises NotFoundError `store.blob_missing`."""
        try:
            stream = self._layout.path(blob.digest).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise self._layout.missing(blob.digest) from error
        with stream:
            stream.seek(offset_bytes)
            yield _File(stream)

    def corrupt(self, blob: Descriptor, seen: Digest) -> CortenError:
        """Put the blob aside, so that it is made or pulled anew."""
        return self._layout.quarantine(blob.digest, seen)


class _File:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readinto(self, buffer: memoryview) -> int:
        return self._stream.readinto(buffer) or 0  # type: ignore[attr-defined]


class LocalTarget:
    """The store on this machine; the image gets `names` there."""

    def __init__(self, layout: Layout, names: tuple[str, ...], retries: Retries, stop: threading.Event) -> None:
        self._layout = layout
        self._names = names
        self._retries = retries
        self._stop = stop

    def complete(self, manifest: Manifest) -> bool:
        """Never without a look at every blob: one that was corrupt is put aside while its manifest stays."""
        del manifest
        return False

    def has(self, blob: Descriptor) -> bool:
        """By its size too, which costs nothing more."""
        try:
            return self._layout.path(blob.digest).stat().st_size == blob.size_bytes
        except OSError:
            return False

    def take(self, blob: Descriptor, source: Blobs, sent: Callable[[int], None]) -> bool:
        """Stream it in. Wrong bytes are thrown away and asked for once more, then refused."""
        try:
            self._fetch(blob, source, sent)
        except PolicyError:
            if self._stop.is_set():
                raise
            self._fetch(blob, source, sent)
        return True

    def put(self, manifest: Manifest) -> bool:
        """Keep it; to be listed it must be attached."""
        self._layout.put(manifest.data, manifest.descriptor.media_type)
        return False

    def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """List them in the store's index."""
        self._layout.attach(subject, referrers)

    def sign(self, subject: Digest, signatures: Manifest) -> None:
        """Those of other signers that are here stay."""
        signature_tag.keep(self._layout, subject, signatures.blobs[1:])

    def tag(self, manifest: Manifest) -> None:
        """Give it its names."""
        # In the store's index only referrers say a type of artifact.
        plain = manifest.descriptor if manifest.subject else replace(manifest.descriptor, artifact_type="")
        for name in self._names:
            self._layout.tag(name, replace(plain, annotations={}))

    def _fetch(self, blob: Descriptor, source: Blobs, sent: Callable[[int], None]) -> None:
        with self._layout.writer() as out:

            def attempt() -> None:
                with source.open(blob, out.size_bytes) as reader:
                    while count := out.fill(reader.readinto):
                        sent(count)
                        if self._stop.is_set():
                            raise unreachable("", "given up because another blob failed")
                        if out.size_bytes > blob.size_bytes:
                            return

            self._retries.run(attempt)
            if out.size_bytes != blob.size_bytes or out.digest != blob.digest:
                raise source.corrupt(blob, out.digest)
