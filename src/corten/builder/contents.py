"""What is in a layer, told by the layer itself: files with their digests, packages with their licences.

Kept in the cache by the layer's digest: the same layer says the same for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from corten.builder.entry import Entry
from corten.builder.layer import cache_key
from corten.core.digest import Digest
from corten.core.image import Layer, LayerKind
from corten.store.layout import Layout
from corten.store.writing import atomic_write, translated

# Changes whenever the same layer would be described in another way.
_FORMAT = "2"


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file of a weights or code layer. `name` is below the root, `size_bytes` its content's."""

    name: str
    size_bytes: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class PackageFact:
    """An installed package. `expression` is an SPDX licence expression where its metadata give one (PEP 639), else
    `licences` are names as they stand there.
    """

    name: str
    version: str
    expression: str = ""
    licences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contents:
    """Files of weights and code layers, packages of base and wheels layers; nothing of a runtime layer."""

    files: tuple[FileFact, ...] = ()
    packages: tuple[PackageFact, ...] = ()


def read(
    layout: Layout,
    layer: Layer,
    *,
    cache: Path,
    wheels: Sequence[Path] = (),
    base: Sequence[Entry] = (),
    known: Contents | None = None,
) -> Contents:
    """What a stored layer holds. What it was made of is asked where it is there, which is faster: the files of
    `wheels`, the entries of a `base`, or what is `known` since it was made.

    Raises NotFoundError `store.blob_missing`, PolicyError `layer.malformed`.
    """
    place = cache / "contents" / f"{cache_key('contents', _FORMAT, layer.kind.value, str(layer.digest))}.json"
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(place.read_bytes(), type=Contents)
    from corten.builder import layer_facts  # 15 ms with what it reads tars by, which a cached build does without

    contents = layer_facts.of_wheels(wheels) if layer.kind is LayerKind.WHEELS and wheels else known
    if layer.kind is LayerKind.BASE and base:
        contents = layer_facts.of_base(base)
    if contents is None:
        contents = layer_facts.of_layer(layout, layer)
    with translated(place, "write the cache"):
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, msgspec.json.encode(contents))
    return contents
