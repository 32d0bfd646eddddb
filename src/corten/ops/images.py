"""What images the local store has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import Descriptor
from corten.core.platform import Platform
from corten.errors import CortenError
from corten.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Stored:
    """An image (or an index of images) in the store. `name` is empty for one that lost its name to a newer build.

    `size_bytes` is what a registry would send; what images share is counted for each. `attached` are the types of what
    is attached (lock, SBOM ...), `trouble` why it cannot be read.
    """

    name: str
    digest: Digest
    platforms: tuple[Platform, ...] = ()
    size_bytes: int = 0
    attached: tuple[str, ...] = ()
    trouble: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The image as it stands in `--json` output."""
        return {
            "name": self.name,
            "digest": str(self.digest),
            "platforms": [str(platform) for platform in self.platforms],
            "size_bytes": self.size_bytes,
            "attached": list(self.attached),
            "trouble": self.trouble,
        }


@dataclass(frozen=True, slots=True)
class Images:
    """Everything in the store, named images first. `stored_bytes` counts what is shared once, with all attached."""

    images: tuple[Stored, ...]
    stored_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {"images": [image.as_dict() for image in self.images], "stored_bytes": self.stored_bytes}


def images(*, home: Home | None = None) -> Images:
    """List the store, also what cannot be read, with its trouble. Raises CortenError `store.index_broken`."""
    home = home or Home.from_env(os.environ, uid=os.getuid())
    layout = Layout(home.store)
    found = [_stored(layout, name, descriptor) for name, descriptor in layout.images()]
    ordered = sorted(found, key=lambda one: (not one.name, one.name, one.digest))
    return Images(tuple(ordered), _bytes_in(home.store / "blobs" / "sha256"))


def _stored(layout: Layout, name: str, descriptor: Descriptor) -> Stored:
    try:
        manifests = [one.digest for one in layout.platforms(descriptor.digest)] or [descriptor.digest]
        here = [layout.image(digest) for digest in manifests if layout.has(digest)]
    except CortenError as error:
        return Stored(name, descriptor.digest, trouble=str(error))
    attached = {one.artifact_type for image in here for one in layout.referrers(image.digest)}
    return Stored(
        name,
        descriptor.digest,
        tuple(image.platform for image in here),
        sum(image.size_bytes for image in here),
        tuple(sorted(attached)),
    )


def _bytes_in(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())
    except FileNotFoundError:
        return 0
