"""What of the unpacked layers no image reaches any more: a pure plan by names, and its execution.

See `store.trees` for the folders. What goes is first moved aside under the lock of the trees, so that nobody ever sees
half a folder and a removal cut short is finished by whoever unpacks or collects next.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corten.core.digest import Digest
from corten.core.image import Image
from corten.store.trees import Trees, chain_id
from corten.store.writing import translated

_BLOCK_BYTES: Final = 512  # of st_blocks, whatever the file system's blocks are (stat(2))
# In the order of removal: what says that an image is ready goes before that of which it says so.
_FOLDERS: Final = ("images", "views", "pyc", "roots", "layers")


@dataclass(frozen=True, slots=True)
class Reach:
    """What must stay: digests of images, diff_ids of layers, chain ids of roots."""

    images: frozenset[Digest] = frozenset()
    layers: frozenset[Digest] = frozenset()
    chains: frozenset[Digest] = frozenset()

    def __or__(self, other: Reach) -> Reach:
        return Reach(self.images | other.images, self.layers | other.layers, self.chains | other.chains)


@dataclass(frozen=True, slots=True)
class TreesRemoval:
    """Paths below the trees that may go, in the order of removal, and the bytes on disk that frees."""

    paths: tuple[str, ...] = ()
    freed_bytes: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


def reach_of(images: Iterable[Image]) -> Reach:
    """What images need. Of chains every prefix: which one an image's root is, is decided when it is unpacked."""
    reach = Reach()
    for image in images:
        diff_ids = [layer.diff_id for layer in image.layers]
        chains = frozenset(chain_id(diff_ids[:count]) for count in range(len(diff_ids) + 1))
        reach |= Reach(frozenset({image.digest}), frozenset(diff_ids), chains)
    return reach


def recorded_reach(root: Path, images: Collection[Digest]) -> Reach:
    """What unpacked images need by their own records, also when the store has lost their manifests."""
    reach = Reach(frozenset(images))
    for image in images:
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads((root / "images" / f"{image.hex}.json").read_bytes())
            layers = {source.split("/")[1] for source, _ in record["mounts"] if source.startswith("layers/")}
            reach |= Reach(
                layers=frozenset(Digest(name) for name in layers), chains=frozenset({Digest(record["chain"])})
            )
    return reach


def unreached(names: Mapping[str, Collection[str]], reach: Reach) -> tuple[str, ...]:
    """Which of the names in each folder nothing reaches, as paths, in the order of removal. Unknown names stay."""
    images = {digest.hex for digest in reach.images}
    chains = {digest.hex for digest in reach.chains}
    wanted: Mapping[str, Collection[str]] = {
        "images": {f"{name}.json" for name in images},
        "views": images,
        "pyc": chains,
        "roots": chains,
        "layers": {digest.hex for digest in reach.layers},
    }
    return tuple(
        f"{folder}/{name}"
        for folder in _FOLDERS
        for name in sorted(names.get(folder, ()))
        if name not in wanted[folder] and _is_digest(name.removesuffix(".json"))
    )


def collect(trees: Trees, reach: Reach, *, dry_run: bool) -> TreesRemoval:
    """Remove what is not reached. Raises CortenError `trees.busy`, `store.write_failed`."""
    root = trees.root
    if not root.is_dir():
        return TreesRemoval()
    with translated(root, "remove unpacked layers"), trees.alone():
        paths = unreached({folder: _names(root / folder) for folder in _FOLDERS}, reach)
        freed_bytes = _freed_bytes([root / path for path in paths])
        if not dry_run:
            _remove(root, paths)
    counts = {folder: sum(path.startswith(f"{folder}/") for path in paths) for folder in _FOLDERS}
    return TreesRemoval(paths, freed_bytes, counts)


def _remove(root: Path, paths: Collection[str]) -> None:
    for path in paths:
        # The name `Trees` looks for when it clears up after a killed process.
        aside = root / f".swept-{secrets.token_hex(8)}"
        aside.mkdir()
        (root / path).rename(aside / "gone")
        shutil.rmtree(aside, ignore_errors=True)


def _names(folder: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return [path.name for path in folder.iterdir()]
    return []


def _is_digest(name: str) -> bool:
    return len(name) == 64 and all(letter in "0123456789abcdef" for letter in name)


def _freed_bytes(paths: Collection[Path]) -> int:
    """What the disk gets back: a file with a name left elsewhere (roots and views are hard links) frees nothing."""
    links: dict[tuple[int, int], int] = {}
    freed = 0
    for found in (found for path in paths for found in _stats(path)):
        key = (found.st_dev, found.st_ino)
        links[key] = links.get(key, 0) + 1
        is_folder = stat.S_ISDIR(found.st_mode)
        if is_folder or links[key] == found.st_nlink:
            freed += found.st_blocks * _BLOCK_BYTES
    return freed


def _stats(path: Path) -> Iterator[os.stat_result]:
    with suppress(FileNotFoundError):
        yield path.lstat()
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                with suppress(FileNotFoundError):
                    yield os.lstat(f"{folder}/{name}")  # no Path: there are tens of thousands
