"""An image, everything attached to it and all their blobs in one file, for machines without a network."""

from __future__ import annotations

import glob
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.builder.entry import Entry
from corten.builder.tar import in_order, tar
from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.image import NAME_ANNOTATION, Descriptor
from corten.core.meter import Meter
from corten.core.name import suggest_name
from corten.errors import CortenError
from corten.store import bundle
from corten.store import gc as store_gc
from corten.store.bundle import Bundle
from corten.store.docker_archive import DockerArchive
from corten.store.guard import using
from corten.store.layout import Layout
from corten.store.writing import BlobWriter, is_locked, locked, sync_folder, translated

# Of the name of a file that is being written; and for how long one may not be locked yet.
_TOKEN_BYTES = 6
_YOUNG_S = 5.0


@dataclass(frozen=True, slots=True)
class Exported:
    """A bundle that was written; `digest` is the image's, `left_out` counts blobs the other side has."""

    name: str
    digest: Digest
    path: Path
    size_bytes: int
    sha256: Digest
    blobs: int
    left_out: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "name": self.name,
            "digest": str(self.digest),
            "path": str(self.path),
            "size_bytes": self.size_bytes,
            "sha256": self.sha256.hex,
            "blobs": self.blobs,
            "left_out": self.left_out,
            "seconds": round(self.seconds, 3),
        }


def export(
    image: str,
    path: str | Path,
    *,
    delta_from: str | Path = "",
    home: Home | None = None,
    listen: Listener = nobody,
) -> Exported:
    """Write an image (a name or digest) to a file; the same image gives the same bytes.

    `delta_from` is what the other side has: an image in this store, or a bundle file it got. Raises NotFoundError,
    PolicyError `store.blob_corrupt`, CortenError `store.disk_full`, `store.write_failed`; no file is left then.
    """
    began_s = time.perf_counter()
    home = home or Home.from_env(os.environ, uid=os.getuid())
    path = Path(path).absolute()
    layout = Layout(home.store)
    with using(home.store):
        descriptor, name = _named(layout, image)
        contents = store_gc.read(layout, [descriptor.digest])
        wanted = bundle.plan(
            name, descriptor, contents, _titles(layout, contents), without=_elsewhere(layout, contents, delta_from)
        )
        listen(Event("export", Phase.STARTED, path.name))
        _check(layout, wanted)
        stored_bytes = sum(layout.path(digest).stat().st_size for digest in wanted.blobs)
        pieces = tar(in_order(_entries(layout, wanted)))
        size_bytes, sha256 = _save(pieces, path, Meter("export", stored_bytes, listen))
    listen(Event("export", Phase.DONE, f"{len(wanted.blobs)} blobs, {size_bytes / 1e6:.1f} MB", {"bytes": size_bytes}))
    return Exported(
        name=name,
        digest=descriptor.digest,
        path=path,
        size_bytes=size_bytes,
        sha256=sha256,
        blobs=len(wanted.blobs),
        left_out=len(wanted.left_out),
        seconds=time.perf_counter() - began_s,
    )


def export_docker(image: str, path: str | Path, *, home: Home | None = None, listen: Listener = nobody) -> Exported:
    """Write an image (a name or digest) as the archive any `docker load` takes; what is attached stays here.

    Of an image for several platforms this machine's. Raises what `export` does, PolicyError `layer.wrong_content`.
    """
    began_s = time.perf_counter()
    home = home or Home.from_env(os.environ, uid=os.getuid())
    path = Path(path).absolute()
    layout = Layout(home.store)
    with using(home.store):
        descriptor, name = _named(layout, image)
        found = layout.image(descriptor.digest)
        listen(Event("export", Phase.STARTED, path.name))
        # Docker calls what has no registry before it docker.io's.
        archive = DockerArchive.of(layout, found, names=[name if "/" in name else f"localhost/{name}:latest"])
        meter = Meter("export", sum(layer.tar_bytes for layer in found.layers), listen)
        size_bytes, sha256 = _save(archive.stream(layout), path, meter)
    listen(Event("export", Phase.DONE, f"{len(found.layers)} layers, {size_bytes / 1e6:.1f} MB", {"bytes": size_bytes}))
    return Exported(
        name=name,
        digest=found.digest,
        path=path,
        size_bytes=size_bytes,
        sha256=sha256,
        blobs=len(found.layers),
        left_out=0,
        seconds=time.perf_counter() - began_s,
    )


def _named(layout: Layout, image: str) -> tuple[Descriptor, str]:
    """The image meant, and the name it goes by."""
    descriptor = layout.resolve(image)
    return descriptor, descriptor.annotations.get(NAME_ANNOTATION) or suggest_name(image.partition("@")[0])


def _elsewhere(layout: Layout, contents: store_gc.Contents, other: str | Path) -> frozenset[Digest]:
    if not str(other):
        return frozenset()
    if Path(other).is_file():
        return bundle.blobs_in(Path(other))
    return frozenset(store_gc.reachable(contents, {layout.resolve(str(other)).digest}))


def _titles(layout: Layout, contents: store_gc.Contents) -> dict[Digest, str]:
    titles: dict[Digest, str] = {}
    for digest in contents.documents:
        try:
            titles |= {layer.digest: layer.title for layer in layout.image(digest).layers}
        except CortenError:
            continue  # an index or an artifact: its blobs have no titles of their own
    return titles


def _check(layout: Layout, wanted: Bundle) -> None:
    """What is broken here must not travel. Raises PolicyError `store.blob_corrupt`, NotFoundError."""
    for digest in wanted.blobs:
        path = layout.path(digest)
        if not path.is_file():
            layout.read(digest)  # says what to do about a missing blob
        seen = Digest.of_file(path)
        if seen != digest:
            raise layout.quarantine(digest, seen)


def _save(pieces: Iterable[bytes], path: Path, meter: Meter) -> tuple[int, Digest]:
    """Write a file, whole or not at all."""
    _tidy(path, now_s=time.time())
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN_BYTES)}")
    with translated(temporary, "write the bundle"):
        file = BlobWriter(temporary)
    try:
        with locked(temporary):
            for piece in pieces:
                file.write(piece)
                meter.add(len(piece))
            with translated(temporary, "write the bundle"):
                file.finish()
                temporary.rename(path)
                sync_folder(path.parent)
    except BaseException:
        file.abandon()
        raise
    return file.size_bytes, file.digest


def _tidy(path: Path, *, now_s: float) -> None:
    """Remove what killed exports to this file left beside it: as large as an image, and nobody's any more.

    Whoever is still writing holds a lock on its own, taken when that is no second old.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 2 * _TOKEN_BYTES}"):
        with suppress(OSError):
            if left.stat().st_mtime < now_s - _YOUNG_S and not is_locked(left):
                left.unlink()


def _entries(layout: Layout, wanted: Bundle) -> Iterator[Entry]:
    yield from (Entry(name, data=data) for name, data in wanted.files.items())
    yield from (Entry(bundle.blob_name(digest), data=layout.path(digest)) for digest in wanted.blobs)
