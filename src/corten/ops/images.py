"""What images the local store has, and how one loses its name there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.control.retention import users_of_images
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import Descriptor
from corten.core.platform import Platform
from corten.errors import CortenError, UsageError
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


@dataclass(frozen=True, slots=True)
class Unnamed:
    """Names that were taken from images, or (`dry_run`) would be, each with the digest it led to."""

    names: tuple[tuple[str, Digest], ...]
    dry_run: bool

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        removed = [{"name": name, "digest": str(digest)} for name, digest in self.names]
        return {"dry_run": self.dry_run, "removed": removed}


def remove_images(wanted: Iterable[str], *, home: Home | None = None, dry_run: bool = False) -> Unnamed:
    """Take names from images of the store, all or none; `gc` frees what nothing leads to then.

    Each of `wanted` is a name, or a digest or its first digits for all names of that image. The last name of what a
    deployment runs is not taken: it could not be deployed again by it. Revisions to go back to need no name.

    Raises NotFoundError `store.image_unknown`, UsageError `store.image_unnamed` for an image without a name,
    CortenError `store.image_in_use` and what reading the state raises; no name is lost then.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    layout = Layout(home.store)
    named = [(name, entry.digest) for name, entry in layout.images() if name]
    chosen = dict(pair for text in wanted for pair in _names_meant(layout, text, named))
    left = {digest for name, digest in named if name not in chosen}
    users = users_of_images(home)
    for name, digest in chosen.items():
        if digest not in left:
            _check_unused(layout, name, digest, users)
    if chosen and not dry_run:
        layout.untag(*chosen)
    return Unnamed(tuple(chosen.items()), dry_run)


def _names_meant(layout: Layout, text: str, named: Iterable[tuple[str, Digest]]) -> list[tuple[str, Digest]]:
    """The name itself, or every name of the image that digits of a digest lead to."""
    if exact := [(name, digest) for name, digest in named if name == text]:
        return exact
    found = layout.resolve(text)
    only = text.partition("@")[0] if "@" in text else ""
    if names := [(name, digest) for name, digest in named if digest == found.digest and only in ("", name)]:
        return names
    raise UsageError(
        "store.image_unnamed",
        f"`{text}` has no name to take away",
        where=str(layout.root),
        hint="`corten gc` removes what has no name, once nothing runs it and no revision kept leads to it",
    )


def _check_unused(layout: Layout, name: str, digest: Digest, users: Iterable[tuple[Digest, str]]) -> None:
    meant = {digest, *_inner(layout, digest)}
    deployments = sorted({deployment for image, deployment in users if image in meant})
    if deployments:
        told = ", ".join(f"`{deployment}`" for deployment in deployments)
        raise CortenError(
            "store.image_in_use",
            f"`{name}` is in use",
            where=str(layout.root),
            why=f"it is the last name of what {told} runs",
            hint=f"corten stop {deployments[0]}",
        )


def _inner(layout: Layout, digest: Digest) -> Iterator[Digest]:
    # Of an image for several platforms a deployment runs one. What cannot be read may lose its name all the more.
    try:
        yield from (one.digest for one in layout.platforms(digest))
    except CortenError:
        return


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
