"""What takes the room in an image, and the budget it must stay in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corten.builder.debian.release import Deb
from corten.builder.plan import Plan, WheelGroup
from corten.builder.pylock import Locked
from corten.core.image import Layer, LayerKind
from corten.errors import PolicyError

_NAMED = 3


@dataclass(frozen=True, slots=True)
class PackageSize:
    """A package of a layer. `size_bytes` is that of its file as downloaded: what it is worth, about, in the layer."""

    name: str
    version: str
    size_bytes: int


def packages_by_layer(plan: Plan, layers: Sequence[Layer]) -> tuple[tuple[PackageSize, ...], ...]:
    """For each layer the packages in it, the largest first; none for those that hold files only."""
    groups = iter(plan.wheels)
    return tuple(_packages(layer.kind, plan, groups) for layer in layers)


def _packages(kind: LayerKind, plan: Plan, groups: Iterator[WheelGroup]) -> tuple[PackageSize, ...]:
    found: Sequence[Deb | Locked] = ()
    match kind:
        case LayerKind.BASE:
            found = plan.lock.debs
        case LayerKind.WHEELS:
            found = next(groups).wheels
        case LayerKind.RUNTIME | LayerKind.WEIGHTS | LayerKind.CODE:
            pass
    sizes = [PackageSize(one.name, one.version, one.size_bytes) for one in found]
    return tuple(sorted(sizes, key=lambda one: (-one.size_bytes, one.name)))


def check_budget(plan: Plan, layers: Sequence[Layer], max_image_mb: float) -> None:
    """Raise PolicyError `build.over_budget` when stored layers take more than `max_image_mb` (MB; 0: no limit)."""
    size_bytes = sum(layer.size_bytes for layer in layers)
    if not max_image_mb or size_bytes <= max_image_mb * 1e6:
        return
    largest = sorted(layers, key=lambda layer: (-layer.size_bytes, layer.title))[:_NAMED]
    within = _largest_within(plan, layers)
    raise PolicyError(
        "build.over_budget",
        f"`{plan.name}` for {plan.platform} is {size_bytes / 1e6:.1f} MB, its budget {max_image_mb:g} MB",
        where=f"{len(layers)} layers",
        why="the largest layers: "
        + ", ".join(f"{layer.title} {layer.size_bytes / 1e6:.1f} MB" for layer in largest)
        + (f"; within others: {within}" if within else ""),
        hint="leave out what the model does not need, or raise max_image_mb (--max-image-mb); nothing was named",
    )


def _largest_within(plan: Plan, layers: Sequence[Layer]) -> str:
    shared = [
        one
        for layer, packages in zip(layers, packages_by_layer(plan, layers), strict=True)
        for one in packages
        if layer.kind is LayerKind.WHEELS and len(packages) > 1
    ]
    largest = sorted(shared, key=lambda one: (-one.size_bytes, one.name))[:_NAMED]
    return ", ".join(f"{one.name} {one.version} {one.size_bytes / 1e6:.1f} MB" for one in largest)
