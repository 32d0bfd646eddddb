"""A newer base below an image, everything above it as it is: the same layers, by the same digests. Pure.

The base is the lowest layers and has nothing of the others in it, so another one fits as long as Python stays where and
what it is, and the C library gets no older. Config and manifest are the image's own with these layers exchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corten.builder import image as documents
from corten.builder.debian.release import Deb
from corten.builder.oci_base import OciBase
from corten.core.image import Descriptor, Image, Layer, LayerKind
from corten.errors import UsageError
from corten.store.documents import descriptor_to


@dataclass(frozen=True, slots=True)
class Change:
    """A package of the base before and after; empty for one that was not there, or is no more."""

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


def packages_changed(before: OciBase, after: OciBase) -> tuple[Change, ...]:
    """What differs between two images to build on, by name: packages whose version is another, as far as they tell."""
    old, new = ({(one.kind, one.name): one.version for one in base.facts.packages} for base in (before, after))
    return tuple(
        Change(key[1], old.get(key, ""), new.get(key, ""))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def check_python(before: OciBase, after: OciBase) -> None:
    """Raise UsageError `rebase.other_python` unless what was built on the one can run on the other."""
    old, new = before.python, after.python
    if old.parts == new.parts and old.libc.family is new.libc.family and old.libc.number <= new.libc.number:
        return
    told = [f"Python {one.version} at {one.program}, packages in /{one.site}, {one.libc}" for one in (old, new)]
    raise UsageError(
        "rebase.other_python",
        f"`{after.pin.reference}` has another Python now",
        where=str(after.pin),
        why=f"the image was built on {told[0]}; it has {told[1]}",
        hint="build it from its source: corten build SOURCE --upgrade",
    )


def check_base(image: Image, *, single: bool = True) -> int:
    """How many of the lowest layers are its base; `single`: it must be one, of Debian packages.

    Raises UsageError `rebase.foreign` for an image that is not ours.
    """
    kinds = [layer.kind for layer in image.layers]
    count = next((number for number, kind in enumerate(kinds) if kind is not LayerKind.BASE), len(kinds))
    # Layers of others' images count as base too, but there is no server above them.
    if not count or (single and count > 1) or LayerKind.BASE in kinds[count:] or LayerKind.RUNTIME not in kinds:
        raise UsageError(
            "rebase.foreign",
            f"`{image.digest.short}` has no base of Corten's",
            why="expected base layers below a runtime layer, found " + (", ".join(kind.value for kind in kinds[:4])),
            hint="build it from its source with this Corten",
        )
    return count


def rebased_config(config: Mapping[str, Any], before: int, after: Sequence[Layer]) -> dict[str, Any]:
    """An image's config over other layers `after` instead of its `before` lowest."""
    rootfs = config["rootfs"]
    diff_ids = [*(str(layer.diff_id) for layer in after), *rootfs["diff_ids"][before:]]
    history = [*(documents.history_of(layer) for layer in after), *config["history"][before:]]
    return {**config, "rootfs": {**rootfs, "diff_ids": diff_ids}, "history": history}


def rebased_manifest(
    manifest: Mapping[str, Any], config: Descriptor, before: int, after: Sequence[Layer]
) -> dict[str, Any]:
    """An image's manifest over other layers `after` instead of its `before` lowest."""
    layers = [*(descriptor_to(documents.layer_descriptor(layer)) for layer in after), *manifest["layers"][before:]]
    return {**manifest, "config": descriptor_to(config), "layers": layers}


def on_other_base(
    config: Mapping[str, Any], manifest: Mapping[str, Any], before: OciBase, after: OciBase
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Config and manifest that name the other image, and have its environment where they had the one's."""
    run = config["config"]
    env = dict(text.split("=", 1) for text in run["Env"])
    own = {name: text for name, text in documents.env_over(before).items() if env.get(name) == text}
    kept = {name: text for name, text in env.items() if name not in own}
    changed = {**documents.env_over(after), **kept}
    notes = documents.notes_of(after)
    return (
        {
            **config,
            "config": {
                **run,
                "Env": [f"{name}={text}" for name, text in sorted(changed.items())],
                "Labels": {**run["Labels"], **notes},
            },
        },
        {**manifest, "annotations": {**manifest.get("annotations", {}), **notes}},
    )
