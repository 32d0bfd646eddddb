"""What an image will consist of, decided before anything is made. Pure: tests read it, `--dry-run` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from corten.adapters import distributions
from corten.adapters.base import Inspection, SourceFile
from corten.builder.debian.release import Release, release_for_python
from corten.builder.lock import Lock
from corten.builder.pylock import Locked, check_requirement
from corten.builder.source import Project
from corten.core.image import Compression, LayerKind
from corten.core.model import SPEC_FILE, Example, ModelSpec
from corten.core.platform import Platform

# overlayfs and the engines built on it take 127 layers and no more.
MOST_LAYERS = 127
# Base, runtime and code.
_SINGLE_LAYERS = 3
_MOST_WEIGHT_LAYERS = 60
# From here a wheel is worth a layer of its own: it moves alone, and a layer costs a request and a few hundred bytes.
_LARGE_WHEEL_BYTES = 1_000_000
_SMALL_WHEELS = "small wheels"
_SMALL_WEIGHTS = "small weights"
# Where the builder looks for it.
distribution = distributions.distribution
# What `corten.serve` needs, whatever the model is. Without bounds above, so that a model's own pins win.
RUNTIME_REQUIREMENTS = ("httptools>=0.6", "msgspec>=0.19", "numpy", "uvloop>=0.20")


# With `grpc = true`: gRPC's own library (Apache-2.0), 18 MB unpacked; no protobuf.
GRPC_REQUIREMENT = "grpcio>=1.66"


@dataclass(frozen=True, slots=True)
class WheelGroup:
    """The wheels of one layer."""

    title: str
    wheels: tuple[Locked, ...]


@dataclass(frozen=True, slots=True)
class WeightGroup:
    """The model files of one layer."""

    title: str
    files: tuple[SourceFile, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """An image to be: its layers from the one that changes least to the one that changes most, and its model."""

    name: str
    platform: Platform
    release: Release
    spec: ModelSpec
    lock: Lock
    wheels: tuple[WheelGroup, ...]
    weights: tuple[WeightGroup, ...]
    code: tuple[SourceFile, ...]
    compression: Compression = Compression.ZSTD
    labels: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def download_bytes(self) -> int:
        """What a cold build downloads at most."""
        return sum(deb.size_bytes for deb in self.lock.debs) + sum(wheel.size_bytes for wheel in self.lock.wheels)

    def describe(self) -> str:
        """The plan for people: what was found, what goes into which layer."""
        debs = ", ".join(f"{deb.name} {deb.version}" for deb in self.lock.debs)
        python = f"Python {self.release.python}, Debian {self.release.version_id} ({self.release.codename})"
        lines = [
            f"{self.name} for {self.platform}: {self.spec.adapter} on {python}",
            *(f"  {note}" for note in self.notes),
            *(f"  warning: {warning}" for warning in self.warnings),
            "layers:",
            f"  {LayerKind.BASE.value:8} {len(self.lock.debs)} Debian packages: {debs}",
        ]
        for group in self.wheels:
            contents = ", ".join(f"{wheel.name} {wheel.version}" for wheel in group.wheels)
            size = sum(wheel.size_bytes for wheel in group.wheels) / 1e6
            lines.append(f"  {LayerKind.WHEELS.value:8} {contents} ({size:.1f} MB)")
        lines.append(f"  {LayerKind.RUNTIME.value:8} the server")
        lines += [
            f"  {LayerKind.WEIGHTS.value:8} " + ", ".join(f"/models/{file.name}" for file in group.files)
            for group in self.weights
        ]
        code = ", ".join(f"/app/{name}" for name in (*(file.name for file in self.code), SPEC_FILE))
        lines.append(f"  {LayerKind.CODE.value:8} {code}")
        return "\n".join(lines)


def requirements_of(project: Project, inspection: Inspection) -> tuple[str, ...]:
    """What must be installed: what the user declared, what was inferred beside it, what the server needs. Sorted."""
    declared = [check_requirement(line) for line in project.source.requirements]
    named = {distribution(line) for line in declared}
    inferred = [check_requirement(line) for line in inspection.requirements if distribution(line) not in named]
    grpc = [GRPC_REQUIREMENT] if project.grpc and "grpcio" not in named else []
    return tuple(sorted({*declared, *inferred, *RUNTIME_REQUIREMENTS, *grpc}))


def release_of(project: Project, inspection: Inspection) -> Release:
    """The Debian release whose Python is the one asked for, or the one the model was made with."""
    return release_for_python(project.python or inspection.python)


def spec_of(project: Project, inspection: Inspection, example: Example | None) -> ModelSpec:
    """What the server must know of the model."""
    return ModelSpec(
        name=project.name,
        adapter=inspection.adapter,
        files=tuple(file.name for file in inspection.weights),
        entry=inspection.entry,
        method=inspection.method,
        schema=inspection.schema,
        example=example or inspection.example,
        batching=project.batching,
        limits=project.limits,
        grpc=project.grpc,
    )


def plan(
    project: Project,
    inspection: Inspection,
    lock: Lock,
    *,
    release: Release,
    platform: Platform,
    spec: ModelSpec,
    sizes: Mapping[str, int],
    compression: Compression = Compression.ZSTD,
) -> Plan:
    """Put together what is known. `sizes` are of the model files, by name, in bytes.

    Every wheel's size must be in the lock: it decides the grouping.
    """
    weights = group_weights(inspection.weights, sizes)
    return Plan(
        name=project.name,
        platform=platform,
        release=release,
        spec=spec,
        lock=lock,
        wheels=group_wheels(lock.wheels, most=MOST_LAYERS - _SINGLE_LAYERS - len(weights)),
        weights=weights,
        code=tuple(sorted(inspection.code, key=lambda file: file.name)),
        compression=compression,
        labels=project.labels,
        notes=inspection.notes,
        warnings=inspection.warnings,
    )


def group_wheels(wheels: Sequence[Locked], *, most: int) -> tuple[WheelGroup, ...]:
    """A layer for each wheel of 1 MB and more, by name, one for all smaller ones, last; `most` layers at most.

    A wheel that changes moves only the layer it is in, whatever the others are.
    """
    by_size = sorted(wheels, key=lambda wheel: (-wheel.size_bytes, wheel.name))
    large = [wheel for wheel in by_size if wheel.size_bytes >= _LARGE_WHEEL_BYTES][: max(most - 1, 0)]
    small = [wheel for wheel in by_size if wheel not in large]
    groups = [WheelGroup(f"{wheel.name} {wheel.version}", (wheel,)) for wheel in sorted(large, key=_name)]
    if small:
        groups.append(WheelGroup(_SMALL_WHEELS, tuple(sorted(small, key=_name))))
    return tuple(groups)


def group_weights(files: Sequence[SourceFile], sizes: Mapping[str, int]) -> tuple[WeightGroup, ...]:
    """A layer for each model file, by name; when there are too many, the smallest share one, which comes last."""
    by_size = sorted(files, key=lambda file: (-sizes[file.name], file.name))
    alone = by_size if len(files) <= _MOST_WEIGHT_LAYERS else by_size[: _MOST_WEIGHT_LAYERS - 1]
    groups = [WeightGroup(file.name, (file,)) for file in sorted(alone, key=_name)]
    if shared := by_size[len(alone) :]:
        groups.append(WeightGroup(_SMALL_WEIGHTS, tuple(sorted(shared, key=_name))))
    return tuple(groups)


def _name(item: Locked | SourceFile) -> str:
    return item.name
