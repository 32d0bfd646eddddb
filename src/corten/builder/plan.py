"""What an image will consist of, decided before anything is made. Pure: tests read it, `--dry-run` prints it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corten.adapters import distributions
from corten.adapters.base import Inspection, SourceFile
from corten.builder.debian.release import Release, release_for_python, release_with_python
from corten.builder.interpreter import Interpreter
from corten.builder.lock import Lock
from corten.builder.oci_base import OciBase
from corten.builder.pylock import Locked, check_requirement
from corten.builder.source import Project
from corten.core.image import LayerKind, Packing
from corten.core.model import SPEC_FILE, Example, ModelSpec
from corten.core.platform import Platform
from corten.errors import UsageError

if TYPE_CHECKING:
    from corten.builder.acceleration import Converted

# overlayfs and the engines built on it take 127 layers and no more.
MOST_LAYERS = 127
# Runtime and code.
_SINGLE_LAYERS = 2
_MOST_WEIGHT_LAYERS = 60
# From here a wheel is worth a layer of its own: it moves alone, and a layer costs a request and a few hundred bytes.
_LARGE_WHEEL_BYTES = 1_000_000
_SMALL_WHEELS = "small wheels"
_SMALL_WEIGHTS = "small weights"
# Where the builder looks for it.
distribution = distributions.distribution
# What `corten.serve` needs, whatever the model is. Without bounds above, so that a model's own pins win.
RUNTIME_REQUIREMENTS = ("httptools>=0.6", "msgspec>=0.19", "numpy", "uvloop>=0.20")


# What every build for NVIDIA's GPUs needs: `nvidia-cuda-runtime`, `nvidia-cuda-runtime-cu12` ...
_CUDA = "nvidia-cuda-runtime"
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
    """An image to be: its layers from the one that changes least to the one that changes most, and its model.

    `base` is what it stands on: packages of a Debian release (`lock.debs`), or another image.
    `converted` is the verdict on the model's ONNX form, where one was asked for.
    """

    name: str
    platform: Platform
    base: Release | OciBase
    spec: ModelSpec
    lock: Lock
    wheels: tuple[WheelGroup, ...]
    weights: tuple[WeightGroup, ...]
    code: tuple[SourceFile, ...]
    packing: Packing = Packing.AUTO
    labels: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    converted: Converted | None = None

    @property
    def python(self) -> Interpreter:
        """The Python it runs."""
        match self.base:
            case Release():
                return self.base.interpreter
            case OciBase():
                return self.base.python

    @property
    def cuda(self) -> bool:
        """Whether it brings CUDA along, for NVIDIA's GPUs: told by the lock, so that a rebuild knows it too."""
        return any(wheel.name.startswith(_CUDA) for wheel in self.lock.wheels)

    @property
    def download_bytes(self) -> int:
        """What a build downloads with nothing in its cache, beside the base where that is another image."""
        return sum(deb.size_bytes for deb in self.lock.debs) + sum(wheel.size_bytes for wheel in self.lock.wheels)

    def describe(self) -> str:
        """The plan for people: what was found, what goes into which layer."""
        lines = [
            f"{self.name} for {self.platform}: {self.spec.adapter} on Python {self.python.version}, {self.base.title}",
            *(f"  {note}" for note in self.notes),
            *(f"  warning: {warning}" for warning in self.warnings),
            "layers:",
            f"  {LayerKind.BASE.value:8} {self._beneath()}",
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
        # An index in HTML only (PEP 503) tells no sizes.
        unknown = sum(not wheel.size_bytes for wheel in self.lock.wheels)
        rest = f" and {unknown} wheels of unknown size" if unknown else ""
        lines.append(f"downloads, with nothing in the cache: {self.download_bytes / 1e6:.1f} MB{rest}")
        return "\n".join(lines)

    def _beneath(self) -> str:
        match self.base:
            case Release():
                debs = ", ".join(f"{deb.name} {deb.version}" for deb in self.lock.debs)
                return f"{len(self.lock.debs)} Debian packages: {debs}"
            case OciBase():
                size = sum(layer.size_bytes for layer in self.base.layers) / 1e6
                return f"{len(self.base.layers)} layers of {self.base.pin} ({size:.1f} MB)"


def requirements_of(project: Project, inspection: Inspection) -> tuple[str, ...]:
    """What must be installed: what the user declared, what was inferred beside it, what the server needs. Sorted."""
    declared = [check_requirement(line) for line in project.source.requirements]
    named = {distribution(line) for line in declared}
    inferred = [check_requirement(line) for line in _inferred(project, inspection)]
    grpc = [GRPC_REQUIREMENT] if project.grpc and "grpcio" not in named else []
    return tuple(sorted({*declared, *inferred, *RUNTIME_REQUIREMENTS, *grpc}))


def _inferred(project: Project, inspection: Inspection) -> list[str]:
    """What the source tells and nobody declared, under this name or as another build of it."""
    declared = project.source.requirements
    return [line for line in inspection.requirements if not distributions.declares(declared, distribution(line))]


def needs_of(project: Project, inspection: Inspection) -> str:
    """The requirements for people: what the source tells, and what was declared over it or beside it."""
    declared = {distribution(line): line for line in project.source.requirements}
    told = _inferred(project, inspection)
    parts = [f"{', '.join(told)} by the source"] if told else []
    parts += [f"{', '.join(declared.values())} as declared"] if declared else []
    return "needs " + "; ".join(parts)


def overruled(inspection: Inspection, lock: Lock) -> tuple[str, ...]:
    """Warnings where another release was locked than the one the source tells, with both."""
    locked = {wheel.name: wheel.version.partition("+")[0] for wheel in lock.wheels}
    said = []
    for line in inspection.requirements:
        name, release = distribution(line), distributions.pinned(line)
        build = next((build for build in sorted(distributions.builds_of(name)) if build in locked), "")
        if release and build and locked[build] != release:
            taken = locked[build] if build == name else f"{build} {locked[build]}"
            said.append(f"the source is of {name} {release}; {taken} goes into the image, as declared")
    return tuple(said)


def release_of(project: Project, inspection: Inspection) -> Release:
    """The Debian release with the Python asked for, or with the nearest to the one the model was made with.

    Raises UsageError `build.no_python`.
    """
    return release_with_python(project.python) if project.python else release_for_python(inspection.python)


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
        webhook_hosts=project.webhook_hosts,
        workers=project.workers,
        streams=project.streams,
        trusted=inspection.trusted,
    )


def plan(
    project: Project,
    inspection: Inspection,
    lock: Lock,
    *,
    base: Release | OciBase,
    platform: Platform,
    spec: ModelSpec,
    sizes: Mapping[str, int],
    packing: Packing = Packing.AUTO,
) -> Plan:
    """Put together what is known. `sizes` are of the model files, by name, in bytes.

    Every wheel's size must be in the lock: it decides the grouping.
    """
    weights = group_weights(inspection.weights, sizes)
    wheels = group_wheels(lock.wheels, most=wheel_layers(base, len(weights)))
    return Plan(
        name=project.name,
        platform=platform,
        base=base,
        spec=spec,
        lock=lock,
        wheels=wheels,
        weights=weights,
        code=tuple(sorted(inspection.code, key=lambda file: file.name)),
        packing=packing,
        labels=project.labels,
        notes=inspection.notes,
        warnings=(
            *inspection.warnings,
            *overruled(inspection, lock),
            *(base.warnings if isinstance(base, OciBase) else ()),
        ),
    )


def wheel_layers(base: Release | OciBase, weights: int) -> int:
    """How many layers are left for wheels. Raises UsageError `base.too_many_layers` when it is none."""
    beneath = 1 if isinstance(base, Release) else len(base.layers) + 1  # its accounts and folders
    left = MOST_LAYERS - beneath - _SINGLE_LAYERS - weights
    if left < 1 and isinstance(base, OciBase):
        raise UsageError(
            "base.too_many_layers",
            f"`{base.pin.reference}` has {len(base.layers)} layers",
            where=str(base.pin),
            why=f"an image has {MOST_LAYERS} at most, and {weights + _SINGLE_LAYERS + 2} come on top",
            hint="flatten the base (`podman build --squash-all`), or take another",
        )
    return left


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
