"""An image as the archive `docker load` and `podman load` take, streamed out of the store.

::

    HEX/layer.tar   each layer's plain tar, under its diff_id
    HEX.json        the image's config, under its digest, which is the image's id for both
    manifest.json   which config, which layers, what it is to be called

(The Docker Image Specification v1.2, "Combined Image JSON + Filesystem Changeset Format".) Layers are plain: Docker
reads zstd only since 23, and whoever loads an image unpacks it anyway. Nothing is written in between. Without times and
owners, the same image gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from backports import zstd

from corten.core.digest import Digest
from corten.core.image import Compression, Image, Layer
from corten.errors import CortenError, PolicyError
from corten.store.inflate import InflateError
from corten.store.layout import Layout
from corten.store.untar import Source, plain

_PIECE_BYTES: Final = 1 << 20
_END: Final = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class DockerArchive:
    """An image to be loaded as `names`; `there` are the diff_ids of layers the other side has, which it gets empty."""

    image: Image
    config: Digest
    names: Sequence[str] = ()
    there: Collection[Digest] = ()

    @classmethod
    def of(
        cls, layout: Layout, image: Image, *, names: Sequence[str] = (), there: Collection[Digest] = ()
    ) -> DockerArchive:
        """The archive of an image in the store. Raises what reading its manifest does."""
        return cls(image, layout.config(image.digest), tuple(names), frozenset(there))

    def stream(self, layout: Layout) -> Iterator[bytes]:
        """The archive's bytes. Raises PolicyError `layer.wrong_content` where a layer is not what its config says."""
        for layer in dict.fromkeys(self.image.layers):
            if layer.diff_id in self.there:
                yield _header(_layer_name(layer), 0)
            else:
                yield from _layer(layout, layer)
        config = layout.read(self.config)
        yield from _file(f"{self.config.hex}.json", config)
        manifest = {
            "Config": f"{self.config.hex}.json",
            "RepoTags": list(self.names),
            "Layers": [_layer_name(layer) for layer in self.image.layers],
        }
        yield from _file("manifest.json", json.dumps([manifest], sort_keys=True).encode())
        yield _END


def _layer(layout: Layout, layer: Layer) -> Iterator[bytes]:
    path = layout.path(layer.digest)
    try:
        size_bytes = _tar_bytes(layout, layer)
        yield _header(_layer_name(layer), size_bytes)
        passed = 0
        with plain(path, layer) as source:
            while piece := source.read(_PIECE_BYTES):
                passed += len(piece)
                if passed > size_bytes:
                    break
                yield piece
    except FileNotFoundError:
        layout.read(layer.digest)  # says what to do about a missing blob
        raise
    except (zstd.ZstdError, gzip.BadGzipFile, InflateError, EOFError) as error:
        raise _wrong(layer, str(error)) from error
    if passed != size_bytes:
        raise _wrong(layer, f"its plain tar has {passed} bytes, its manifest says {size_bytes}")
    yield bytes(-size_bytes % tarfile.BLOCKSIZE)


def _tar_bytes(layout: Layout, layer: Layer) -> int:
    """The plain tar's size. A manifest made elsewhere tells only the stored one: then it is counted."""
    path = layout.path(layer.digest)
    if layer.compression is Compression.NONE:
        return path.stat().st_size
    if layer.tar_bytes != layer.size_bytes:
        return layer.tar_bytes
    with plain(path, layer) as source:
        return sum(map(len, _pieces(source)))


def _pieces(source: Source) -> Iterator[bytes]:
    while piece := source.read(_PIECE_BYTES):
        yield piece


def _wrong(layer: Layer, why: str) -> CortenError:
    return PolicyError(
        "layer.wrong_content",
        f"layer `{layer.title}` is not what its image says",
        why=why,
        hint="build or pull the image again",
    )


def _layer_name(layer: Layer) -> str:
    return f"{layer.diff_id.hex}/layer.tar"


def _file(name: str, data: bytes) -> Iterator[bytes]:
    yield _header(name, len(data))
    yield data
    yield bytes(-len(data) % tarfile.BLOCKSIZE)


def _header(name: str, size_bytes: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o644
    # PAX, not ustar: a layer may pass 8 GiB.
    return member.tobuf(tarfile.PAX_FORMAT)
