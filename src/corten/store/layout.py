"""An OCI image layout on disk: `oci-layout`, `index.json`, `blobs/sha256/` (image-spec, image-layout.md).

Every file appears by a rename of something complete and synced, so a process killed at any instruction leaves a
valid store, and readers need no lock. Writers of `index.json` take turns by a lock on a file beside it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from corten.core.digest import Digest
from corten.core.image import (
    INDEX,
    INDEXES,
    MANIFEST,
    MANIFESTS,
    NAME_ANNOTATION,
    SUBJECT_ANNOTATION,
    Descriptor,
    Image,
)
from corten.core.platform import Platform
from corten.errors import CortenError, NotFoundError, PolicyError, UsageError
from corten.store.documents import descriptor_from, descriptor_to, image_from
from corten.store.writing import BlobWriter, atomic_write, locked, sync_folder, translated

LAYOUT_VERSION = b'{"imageLayoutVersion":"1.0.0"}'
# Manifests and configs are kilobytes; a "manifest" of more than this is somebody's weights, or an attack.
_DOCUMENT_LIMIT_BYTES = 16 << 20
_SHORTEST_PREFIX = 6


class Layout:
    """The content store of one Corten installation, readable by skopeo, podman, umoci and the like.

    Made on first use. Safe for any number of processes at once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs" / "sha256"
        # Beside the blobs, so that a rename never crosses file systems.
        self._incoming = root / ".incoming"

    # -- blobs

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self._blobs / digest.hex

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here (not whether it is intact: see `verify`)."""
        return self.path(digest).is_file()

    def read(self, digest: Digest) -> bytes:
        """The content of a small blob (manifest, config), checked against its digest.

        Raises NotFoundError `store.blob_missing`, PolicyError `store.blob_corrupt`, UsageError for one above 16 MiB.
        """
        path = self.path(digest)
        try:
            with path.open("rb") as stream:
                data = stream.read(_DOCUMENT_LIMIT_BYTES + 1)
        except FileNotFoundError as error:
            raise self.missing(digest) from error
        if len(data) > _DOCUMENT_LIMIT_BYTES:
            raise UsageError(
                "store.not_a_document",
                f"`{digest}` is too large for a manifest or config",
                where=str(path),
                why=f"larger than {_DOCUMENT_LIMIT_BYTES} bytes",
            )
        if (seen := Digest.of(data)) != digest:
            raise self.quarantine(digest, seen)
        return data

    def put(self, data: bytes, media_type: str) -> Descriptor:
        """Store bytes held in memory. Storing what is there already costs one read."""
        digest = Digest.of(data)
        with suppress(OSError):
            if self.path(digest).read_bytes() == data:
                return Descriptor(media_type, digest, len(data))
        with self.writer() as blob:
            blob.write(data)
        return Descriptor(media_type, digest, len(data))

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """A blob to stream into; its `digest` is known, and the blob visible, once the block is left without error.

        Raises CortenError `store.disk_full` or `store.write_failed`; nothing is left behind then.
        """
        self._make()
        temporary = self._incoming / secrets.token_hex(8)
        with translated(temporary, "write a blob"):
            blob = BlobWriter(temporary)
        try:
            yield blob
            with translated(temporary, "write a blob"):
                blob.finish()
                temporary.rename(self.path(blob.digest))
                sync_folder(self._blobs)
        except BaseException:
            blob.abandon()
            raise

    # -- names

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Let a name point at a manifest. What it pointed at before stays in the store, without a name."""
        self._make()
        with self._index_lock():
            others = _without_names(self._entries(), (name,))
            named = replace(descriptor, annotations={**descriptor.annotations, NAME_ANNOTATION: name})
            kept = [entry for entry in others if _name(entry) or entry.digest != descriptor.digest]
            self._write_index([*kept, named])

    def untag(self, *names: str) -> None:
        """Forget names, all or none; a manifest that had no other stays without one.

        Raises NotFoundError `store.image_unknown`.
        """
        with self._index_lock():
            entries = self._entries()
            for name in names:
                if all(_name(entry) != name for entry in entries):
                    raise self._unknown(name)
            self._write_index(_without_names(entries, names))

    def forget(self, entries: Collection[Descriptor]) -> None:
        """List exactly these no more, as `listed` gave them; their blobs stay. Names that moved meanwhile stay too."""
        if entries:
            with self._index_lock():
                self._write_index([entry for entry in self._entries() if entry not in entries])

    def listed(self) -> tuple[Descriptor, ...]:
        """Every entry of the index: images, with a name or not, and what is attached to them."""
        return tuple(self._entries())

    def images(self) -> tuple[tuple[str, Descriptor], ...]:
        """All manifests in the index with their names (empty for those that lost theirs), in order of tagging.

        Artifacts attached to them are no images: see `referrers`.
        """
        return tuple((_name(entry), entry) for entry in self._entries() if not entry.artifact_type)

    def resolve(self, name_or_digest_prefix: str) -> Descriptor:
        """The manifest behind a name, a full digest or at least 6 first digits of one (with or without `sha256:`).

        A name wins over a prefix; digits also find one platform's manifest inside an index. Raises NotFoundError, or
        UsageError when a prefix fits more than one image.
        """
        wanted = name_or_digest_prefix
        entries = [entry for _, entry in self.images()]
        for entry in entries:
            if _name(entry) == wanted:
                return entry
        prefix = wanted.partition("@")[2] or wanted
        prefix = prefix.removeprefix("sha256:")
        fitting = {entry.digest: entry for entry in entries if entry.digest.hex.startswith(prefix)}
        if len(prefix) < _SHORTEST_PREFIX:
            raise self._unknown(wanted)
        if not fitting:
            inner = (
                entry for outer in entries if outer.media_type in INDEXES for entry in self.platforms(outer.digest)
            )
            fitting = {entry.digest: entry for entry in inner if entry.digest.hex.startswith(prefix)}
        if not fitting:
            raise self._unknown(wanted)
        if len(fitting) > 1:
            raise UsageError(
                "store.ambiguous_digest",
                f"`{wanted}` fits {len(fitting)} images",
                why=", ".join(sorted(digest.short for digest in fitting)),
                hint="give more digits",
            )
        return next(iter(fitting.values()))

    # -- what is attached to images

    def attach(self, subject: Digest, referrers: Sequence[Descriptor], *, instead_of: Collection[Digest] = ()) -> None:
        """List artifact manifests (with their `artifact_type`) as referrers of a manifest, and `instead_of` no more.

        The index does not say what an artifact refers to (its manifest does), so an annotation repeats it. An index
        that would not change is not written.
        """
        self._make()
        added = [
            replace(one, annotations={**one.annotations, SUBJECT_ANNOTATION: str(subject)}, platform=None)
            for one in referrers
        ]
        replaced = {one.digest for one in added} | set(instead_of)
        with self._index_lock():
            before = self._entries()
            kept = [entry for entry in before if not (entry.artifact_type and entry.digest in replaced)]
            if len(before) - len(kept) != len(added) or any(one not in before for one in added):
                self._write_index([*kept, *added])

    def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """What is attached to a manifest (only of that type), in order of attaching."""
        return tuple(
            entry
            for entry in self._entries()
            # What has a name is attached by it, and not by its subject (see store.signature_tag).
            if entry.artifact_type
            and not _name(entry)
            and self._subject(entry) == subject
            and artifact_type in ("", entry.artifact_type)
        )

    def named(self, name: str) -> Descriptor | None:
        """The entry of exactly this name, be it an image or attached to one."""
        return next((entry for entry in self._entries() if _name(entry) == name), None)

    def _subject(self, entry: Descriptor) -> Digest | None:
        if noted := entry.annotations.get(SUBJECT_ANNOTATION):
            return Digest.parse(noted)
        document = self._document(entry.digest)  # listed by another tool
        subject = document.get("subject")
        return descriptor_from(subject, str(self.root)).digest if subject else None

    # -- whole images

    def image(self, digest: Digest, platform: Platform | None = None) -> Image:
        """A manifest and its config as a value; of an index the manifest for `platform` (None: this machine's).

        Raises NotFoundError (also `store.other_platforms`), PolicyError (corrupt), UsageError (no image).
        """
        manifest = self._document(digest)
        where = f"{self.root} ({digest})"
        if manifest.get("mediaType") in INDEXES:
            return self.image(self._for_platform(digest, platform or Platform.of_machine()))
        if manifest.get("mediaType", MANIFEST) not in MANIFESTS or "config" not in manifest:
            raise UsageError(
                "store.not_an_image",
                f"`{digest}` is no image manifest",
                where=where,
                why=f"its media type is `{manifest.get('mediaType', 'unknown')}`",
            )
        config = self._document(descriptor_from(manifest["config"], where).digest)
        return image_from(digest, manifest, config, where)

    def config(self, digest: Digest) -> Digest:
        """The digest of an image's config, which podman and Docker call the image's id. Raises what `image` does."""
        where = f"{self.root} ({digest})"
        return descriptor_from(self._document(self.image(digest).digest)["config"], where).digest

    def platforms(self, digest: Digest) -> tuple[Descriptor, ...]:
        """The manifests of an index, each with its platform; empty for what is no index. Raises what `image` does."""
        document = self._document(digest)
        if document.get("mediaType") not in INDEXES:
            return ()
        where = f"{self.root} ({digest})"
        return tuple(descriptor_from(entry, where) for entry in document.get("manifests", ()))

    def verify(self, digest: Digest) -> Image:
        """Hash every blob of an image again. A corrupt one is put aside and PolicyError `store.blob_corrupt` raised."""
        image = self.image(digest)
        for layer in image.layers:
            try:
                seen = Digest.of_file(self.path(layer.digest))
            except FileNotFoundError as error:
                raise self.missing(layer.digest) from error
            if seen != layer.digest:
                raise self.quarantine(layer.digest, seen)
        return image

    def missing(self, digest: Digest) -> NotFoundError:
        """What to raise for a blob that is not there."""
        return NotFoundError(
            "store.blob_missing",
            f"blob `{digest}` is not in the store",
            where=str(self.root),
            hint="build or pull the image again",
        )

    def quarantine(self, digest: Digest, seen: Digest) -> PolicyError:
        """Put a blob aside whose content has another digest; what to raise then."""
        aside = self.root / "quarantine" / digest.hex
        with suppress(OSError):
            aside.parent.mkdir(exist_ok=True)
            self.path(digest).rename(aside)
        return PolicyError(
            "store.blob_corrupt",
            f"blob `{digest}` is corrupt and was put aside",
            where=str(aside),
            why=f"its content has the digest {seen}",
            hint="build the image again; the missing blob is made anew",
        )

    def sweep(self, *, now_s: float, older_than_s: float = 86_400.0) -> int:
        """Remove what killed writers left behind, once it is old. Returns how many files; never touches blobs."""
        removed = 0
        with suppress(FileNotFoundError):
            for path in self._incoming.iterdir():
                with suppress(OSError):
                    if path.stat().st_mtime < now_s - older_than_s:
                        path.unlink()
                        removed += 1
        return removed

    # -- inside

    def _make(self) -> None:
        if self._incoming.is_dir() and (self.root / "index.json").exists():
            return
        with translated(self.root, "make the store"):
            self._blobs.mkdir(parents=True, exist_ok=True)
            self._incoming.mkdir(exist_ok=True)
            if not (self.root / "oci-layout").exists():
                atomic_write(self.root / "oci-layout", LAYOUT_VERSION, self._incoming)
        with self._index_lock():
            if not (self.root / "index.json").exists():
                self._write_index([])

    @contextmanager
    def _index_lock(self) -> Iterator[None]:
        # The lock is on a file of its own: index.json itself is replaced by every writer.
        with translated(self.root, "lock the store's index"), locked(self.root / ".index.lock"):
            yield

    def _entries(self) -> list[Descriptor]:
        path = self.root / "index.json"
        try:
            index = json.loads(path.read_bytes())
            return [descriptor_from(entry, str(path)) for entry in index["manifests"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise CortenError(
                "store.index_broken",
                "the store's index cannot be read",
                where=str(path),
                why=f"{type(error).__name__}: {error}",
                hint=f"move it away (`mv {path} {path}.broken`); blobs stay and images are tagged again by building",
            ) from error

    def _write_index(self, entries: list[Descriptor]) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [descriptor_to(entry) for entry in entries],
        }
        data = json.dumps(document, sort_keys=True, indent=1).encode()
        with translated(self.root, "write the store's index"):
            atomic_write(self.root / "index.json", data, self._incoming)

    def _document(self, digest: Digest) -> dict[str, Any]:
        data = self.read(digest)
        try:
            document = json.loads(data)
        except ValueError as error:
            raise _not_json(digest, self.root, str(error)) from error
        if not isinstance(document, dict):
            raise _not_json(digest, self.root, f"it is a {type(document).__name__}")
        return document

    def _for_platform(self, digest: Digest, platform: Platform) -> Digest:
        entries = self.platforms(digest)
        for entry in entries:
            if entry.platform == platform and entry.media_type in MANIFESTS:
                return entry.digest
        raise NotFoundError(
            "store.other_platforms",
            f"image `{digest.short}` is not there for {platform}",
            where=str(self.root),
            why="it is for " + (", ".join(str(entry.platform) for entry in entries if entry.platform) or "no platform"),
            hint=f"corten build SOURCE --platform {platform}",
        )

    def _unknown(self, wanted: str) -> NotFoundError:
        names = sorted(name for name, _ in self.images() if name)
        return NotFoundError(
            "store.image_unknown",
            f"no image called `{wanted}`",
            where=str(self.root),
            why="known: " + (", ".join(names) or "none"),
            hint=f"corten build {wanted} makes one; corten up {wanted} runs it, too"
            if _is_source(wanted)
            else "corten build SOURCE",
        )


def _is_source(wanted: str) -> bool:
    """Whether it is a model here, given to a verb that takes what was built of one."""
    place = wanted.partition(":")[0]
    try:
        return bool(place) and Path(place).exists()
    except OSError:  # too long for a file's name
        return False


def _name(entry: Descriptor) -> str:
    return entry.annotations.get(NAME_ANNOTATION, "")


def _without_names(entries: Sequence[Descriptor], names: Collection[str]) -> list[Descriptor]:
    """The entries without these names; a manifest is listed without one only where it has no other, and once."""
    left = [_without_name(entry) if _name(entry) in names else entry for entry in entries]
    listed = {entry.digest for entry in left if _name(entry)}
    kept = []
    for entry in left:
        if _name(entry) or entry.artifact_type or entry.digest not in listed:
            kept.append(entry)
            listed.add(entry.digest)
    return kept


def _without_name(entry: Descriptor) -> Descriptor:
    return replace(entry, annotations={key: text for key, text in entry.annotations.items() if key != NAME_ANNOTATION})


def _not_json(digest: Digest, root: Path, why: str) -> UsageError:
    return UsageError("store.not_a_document", f"`{digest}` is no manifest or config", where=str(root), why=why)
