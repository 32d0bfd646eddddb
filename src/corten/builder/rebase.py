"""A newer Debian below an image, everything above it as it is: the same layers, by the same digests. Pure.

The base is the lowest layer and has nothing of the others in it, so another one fits as long as release and Python stay
(their glibc and ABI do then). Config and manifest are the image's own with one layer exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corten.builder.debian.release import Deb
from corten.core.image import Descriptor, Image, LayerKind
from corten.errors import UsageError
from corten.store.documents import descriptor_to


@dataclass(frozen=True, slots=True)
class Change:
    """A Debian package before and after; empty for one that was not there, or is no more."""

    name: str
    before: str
    after: str


def changes(before: Sequence[Deb], after: Sequence[Deb]) -> tuple[Change, ...]:
    """What differs between two bases, by name. A package built anew under its old version counts too."""
    old, new = ({deb.name: deb for deb in debs} for debs in (before, after))
    return tuple(
        Change(name, old[name].version if name in old else "", new[name].version if name in new else "")
        for name in sorted(old.keys() | new.keys())
        if (old[name].digest if name in old else None) != (new[name].digest if name in new else None)
    )


def check_base(image: Image) -> None:
    """Raise UsageError `rebase.foreign` unless exactly the lowest layer is a base of ours."""
    kinds = [layer.kind for layer in image.layers]
    # Layers of others' images count as base, and theirs cannot be made again.
    if kinds[:1] != [LayerKind.BASE] or LayerKind.BASE in kinds[1:] or LayerKind.RUNTIME not in kinds:
        raise UsageError(
            "rebase.foreign",
            f"`{image.digest.short}` has no Debian base of Corten's",
            why="expected one base layer below a runtime layer, found " + (", ".join(kind.value for kind in kinds[:4])),
            hint="build it from its source with this Corten",
        )


def rebased_config(config: Mapping[str, Any], diff_id: str) -> dict[str, Any]:
    """An image's config over another base."""
    rootfs = config["rootfs"]
    return {**config, "rootfs": {**rootfs, "diff_ids": [diff_id, *rootfs["diff_ids"][1:]]}}


def rebased_manifest(manifest: Mapping[str, Any], config: Descriptor, base: Descriptor) -> dict[str, Any]:
    """An image's manifest over another base."""
    return {**manifest, "config": descriptor_to(config), "layers": [descriptor_to(base), *manifest["layers"][1:]]}
