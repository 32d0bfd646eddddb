"""A repository as a source and as a target of transfers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from corten.core.digest import Digest
from corten.core.image import CONFIG, MANIFEST, Descriptor
from corten.errors import CortenError, PolicyError, RemoteError
from corten.registry.client import Repository, TooLargeError, Upload, mismatch
from corten.registry.documents import Manifest, read_manifest
from corten.registry.retry import AgainError
from corten.registry.transfer import Blobs, Reader
from corten.registry.transport import PIECE_BYTES, unreachable
from corten.store.signature_tag import documents, key_of, signature_tag, union

# For registries and proxies that refuse a whole blob as one body (413): below the 100 MB some of them take.
_CHUNK_BYTES = 64 << 20
# A whole body that broke off this often is sent in pieces: what refuses it may close before its answer can be read.
_BREAKS = 2
# Signers that use one tag undo each other's; this often we put ours back.
_SIGNING_ATTEMPTS = 5
# Up to here a blob goes along with the request that ends its upload: one request less, and a registry opens, syncs and
# closes its file once less. Larger ones are worth taking up where they broke off.
_AT_ONCE_BYTES = 4 << 20
# Nobody needs bodies this small; a registry that asks for less is broken.
_SMALLEST_CHUNK_BYTES = 1 << 20


class RemoteSource:
    """Images of a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def manifest(self, descriptor: Descriptor) -> Manifest:
        """Checked against its digest."""
        return self._repository.manifest(str(descriptor.digest))

    def referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """As the registry lists them."""
        return self._repository.referrers(subject)

    def signatures(self, subject: Digest) -> Manifest | None:
        """Asked for by their tag."""
        return self._repository.find_manifest(signature_tag(subject))

    def open(self, blob: Descriptor, offset_bytes: int) -> AbstractContextManager[Reader]:
        """Raises AgainError where another attempt may help."""
        return self._repository.blob(blob.digest, offset_bytes)

    def corrupt(self, blob: Descriptor, seen: Digest) -> CortenError:
        """The registry has, or sends, something else."""
        return mismatch(str(blob.digest), str(seen), str(self._repository))


class RemoteTarget:
    """A repository to push to; the image gets `tags` there (none: it is there by its digest).

    `mounts` tells which other repository of the registry should have a blob.
    """

    def __init__(
        self, repository: Repository, tags: tuple[str, ...], mounts: Mapping[Digest, str], stop: threading.Event
    ) -> None:
        self._repository = repository
        self._tags = tags
        self._mounts = mounts
        self._stop = stop

    def complete(self, manifest: Manifest) -> bool:
        """A registry takes a manifest only when it has what it lists."""
        return self._repository.has_manifest(manifest.digest)

    def has(self, blob: Descriptor) -> bool:
        """One HEAD request."""
        return self._repository.has_blob(blob.digest)

    def take(self, blob: Descriptor, source: Blobs, sent: Callable[[int], None]) -> bool:
        """Mount it, or send it."""
        return _Sending(self._repository, blob, source, sent, self._stop).run(self._mounts.get(blob.digest, ""))

    def put(self, manifest: Manifest) -> bool:
        """Store it by its digest. Whether the registry lists referrers itself."""
        return self._repository.put_manifest(manifest)

    def attach(self, subject: Digest, referrers: Sequence[Descriptor]) -> None:
        """List them by the tag that stands in for the API."""
        self._repository.list_referrers(subject, referrers)

    def sign(self, subject: Digest, signatures: Manifest) -> None:
        """Read, add, write, and look again whether another signer undid it: the tag is one for all."""
        tag = signature_tag(subject)
        for _ in range(_SIGNING_ATTEMPTS):
            there = self._repository.find_manifest(tag)
            before, wanted = there.blobs[1:] if there else (), signatures.blobs[1:]
            if there and not set(map(key_of, wanted)) - set(map(key_of, before)):
                return
            config, data = documents(union(before, wanted))
            described = Descriptor(CONFIG, Digest.of(config), len(config))
            if not self.has(described):
                self.take(described, _Held(config), lambda _: None)
            self._repository.put_manifest(read_manifest(data, MANIFEST, str(self._repository)), tag)
        raise RemoteError(
            "registry.busy",
            f"the signatures of `{subject}` are being changed by others",
            where=f"{self._repository}:{tag}",
            why=f"ours were undone {_SIGNING_ATTEMPTS} times",
            hint="run the same command again",
        )

    def tag(self, manifest: Manifest) -> None:
        """Store it under its tags."""
        for tag in self._tags:
            self._repository.put_manifest(manifest, tag)


@dataclass(frozen=True, slots=True)
class _Held:
    """A blob held in memory, to send."""

    data: bytes

    @contextmanager
    def open(self, blob: Descriptor, offset_bytes: int) -> Iterator[_Bytes]:
        del blob
        yield _Bytes(memoryview(self.data)[offset_bytes:])

    def corrupt(self, blob: Descriptor, seen: Digest) -> CortenError:
        return mismatch(str(blob.digest), str(seen), "memory")


@dataclass(slots=True)
class _Bytes:
    left: memoryview

    def readinto(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self.left))
        buffer[:count] = self.left[:count]
        self.left = self.left[count:]
        return count


@dataclass(slots=True)
class _Sending:
    """One blob on its way: hashed while it is sent, taken up where the registry has it after a break."""

    repository: Repository
    blob: Descriptor
    source: Blobs
    sent: Callable[[int], None]
    stop: threading.Event
    upload: Upload | None = None
    chunk_bytes: int = 0  # 0: the whole blob is one body
    minimum_bytes: int = 0  # what the registry says of chunks
    breaks: int = 0
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256)
    _hashed_bytes: int = 0
    _buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(PIECE_BYTES)))

    def run(self, mount_from: str) -> bool:
        """Whether bytes were sent."""
        return self.repository.retries.run(lambda: self._attempt(mount_from))

    def _attempt(self, mount_from: str) -> bool:
        offset_bytes = self._resume()
        if self.upload is None:
            if self.breaks and self.repository.has_blob(self.blob.digest):
                return True  # only the answer to the last request was lost
            location, answer = self.repository.begin_upload(self.blob.digest, "" if self.breaks else mount_from)
            if not location:
                return False
            self.upload = Upload(self.repository, location)
            self._note_minimum(answer.header("OCI-Chunk-Min-Length"))
        self.breaks += 1  # until it went well
        if self.breaks == 1 and self.blob.size_bytes <= _AT_ONCE_BYTES and self._at_once(self.upload):
            return True
        if self.breaks > _BREAKS and not self.chunk_bytes:
            self._chunks_of(self.blob.size_bytes // 2)
        try:
            self._send_from(self.upload, offset_bytes)
        except PolicyError:
            self.upload.cancel()
            raise
        self.upload.finish(self.blob.digest)
        return True

    def _at_once(self, upload: Upload) -> bool:
        """Whether the registry took all of it with the request that ends the upload."""
        try:
            upload.finish(self.blob.digest, _Piece(self, 0, self.blob.size_bytes))
        except TooLargeError:
            return False
        return True

    def _resume(self) -> int:
        """Where to go on in the upload begun before, if there is one that the registry still knows."""
        if self.upload is None or not self.upload.location:
            self.upload = None
            return 0
        offset_bytes = self.upload.received_bytes()
        if not self.upload.location or offset_bytes > self._hashed_bytes:
            self.upload = None
            return 0
        return offset_bytes

    def _note_minimum(self, text: str) -> None:
        self.minimum_bytes = int(text) if text.isascii() and text.isdigit() and len(text) < 12 else 0

    def _chunks_of(self, size_bytes: int) -> None:
        """From now on in pieces, not larger than proxies take and not smaller than the registry does."""
        self.chunk_bytes = max(min(_CHUNK_BYTES, size_bytes), self.minimum_bytes, _SMALLEST_CHUNK_BYTES)

    def _send_from(self, upload: Upload, offset_bytes: int) -> None:
        while True:
            left_bytes = self.blob.size_bytes - offset_bytes
            if left_bytes <= 0 and offset_bytes:
                break
            piece_bytes = min(left_bytes, self.chunk_bytes or left_bytes)
            ranged = bool(offset_bytes or self.chunk_bytes) and piece_bytes > 0
            try:
                upload.patch(_Piece(self, offset_bytes, piece_bytes), offset_bytes, ranged=ranged)
            except TooLargeError:
                self._use_chunks(piece_bytes)
                offset_bytes = self._resume()
                if self.upload is None:
                    raise AgainError(unreachable("", "the body was too large; smaller ones follow")) from None
                continue
            offset_bytes += piece_bytes
            if offset_bytes >= self.blob.size_bytes:
                break

    def _use_chunks(self, refused_bytes: int) -> None:
        self._chunks_of(refused_bytes // 2)
        if self.chunk_bytes >= refused_bytes:
            raise unreachable(self.repository.transport.base, f"HTTP 413 to a body of {refused_bytes} bytes")

    def stream(self, offset_bytes: int, size_bytes: int, write: Callable[[memoryview], object]) -> None:
        """Read from the source, hash what was not hashed before, write."""
        at_bytes, end_bytes = offset_bytes, offset_bytes + size_bytes
        with self.source.open(self.blob, offset_bytes) as reader:
            while at_bytes < end_bytes:
                count = reader.readinto(self._buffer[: min(PIECE_BYTES, end_bytes - at_bytes)])
                if not count:
                    # The length is announced; with fewer bytes the request cannot be ended.
                    raise self.source.corrupt(self.blob, Digest(self._hash.hexdigest()))
                piece = self._buffer[:count]
                at_bytes += count
                if (fresh_bytes := at_bytes - self._hashed_bytes) > 0:
                    self._hash.update(piece[-fresh_bytes:])
                    self._hashed_bytes = at_bytes
                # Before the last of it is out, so that no registry has a whole blob of other content.
                if at_bytes == self.blob.size_bytes and (seen := Digest(self._hash.hexdigest())) != self.blob.digest:
                    raise self.source.corrupt(self.blob, seen)
                write(piece)
                self.sent(count)
                if self.stop.is_set():
                    raise unreachable("", "given up because another blob failed")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a blob as a request's body."""

    sending: _Sending
    offset_bytes: int
    size_bytes: int

    def send(self, write: Callable[[memoryview], object]) -> None:
        """Write all of it."""
        if self.size_bytes:
            self.sending.stream(self.offset_bytes, self.size_bytes, write)
