"""What a build says when it is done: the image, its layers and their sizes, what was seen and inferred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corten.builder.pipeline import Made
from corten.builder.plan import Plan
from corten.builder.sizes import PackageSize
from corten.builder.source import Project
from corten.builder.weights_image import weights_name
from corten.core.digest import Digest
from corten.core.image import Descriptor, Image
from corten.core.model import ModelSpec
from corten.errors import UsageError

if TYPE_CHECKING:
    from corten.builder.acceleration import Verdict
    from corten.ops.gate import Gate


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What a layer is and what it cost; sizes in bytes, `seconds` 0 for a layer the cache had.

    `contents` are the packages in it, the largest first.
    """

    title: str
    kind: str
    digest: str
    size_bytes: int
    tar_bytes: int
    cached: bool
    seconds: float
    contents: tuple[PackageSize, ...] = ()


@dataclass(frozen=True, slots=True)
class Built:
    """An image in the store, or (`dry_run`) the plan of one. `steps` are seconds by name; steps run side by side.

    Of several platforms it describes this machine's (else the first), `platforms` has one for each, and `index` is
    what the name points at. `gate` is what its test found, if it was tested, `weights` the weights image
    (`NAME-weights`), if one was asked for.
    """

    name: str
    plan: Plan
    project: Project
    image: Image | None
    layers: tuple[LayerReport, ...] = ()
    seconds: float = 0.0
    steps: Mapping[str, float] = field(default_factory=dict)
    index: Descriptor | None = None
    platforms: tuple[Built, ...] = ()
    gate: Gate | None = None
    weights: Descriptor | None = None

    @property
    def digest(self) -> Digest:
        """The manifest's digest, or the index's. Raises UsageError for a dry run, which has none."""
        if self.image is None:
            raise UsageError("build.dry_run", f"`{self.name}` was planned, not built", hint="build without --dry-run")
        return self.index.digest if self.index else self.image.digest

    @property
    def reference(self) -> str:
        """`NAME@sha256:...`, empty for a dry run."""
        return f"{self.name}@{self.digest}" if self.image else ""

    @property
    def spec(self) -> ModelSpec:
        """What the server knows of the model."""
        return self.plan.spec

    @property
    def acceleration(self) -> Verdict | None:
        """What was found out about the model's ONNX form; None when nobody asked."""
        if (converted := self.plan.converted) is None:
            return None
        from corten.builder.acceleration import Verdict

        return Verdict(self.project.source.path.name, converted.conversion)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What may go wrong with this model."""
        return self.plan.warnings

    @property
    def size_bytes(self) -> int:
        """What a registry would send."""
        return sum(layer.size_bytes for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "name": self.name,
            "reference": self.reference,
            "digest": str(self.digest) if self.image else "",
            "platform": str(self.plan.platform),
            **({"platforms": [one.as_dict() for one in self.platforms]} if self.platforms else {}),
            "adapter": self.spec.adapter,
            "size_bytes": self.size_bytes,
            "seconds": round(self.seconds, 3),
            "steps": {step: round(seconds, 3) for step, seconds in self.steps.items()},
            "layers": [
                {
                    "title": layer.title,
                    "kind": layer.kind,
                    "digest": layer.digest,
                    "size_bytes": layer.size_bytes,
                    "tar_bytes": layer.tar_bytes,
                    "cached": layer.cached,
                    "seconds": round(layer.seconds, 3),
                    "contents": [
                        {"name": one.name, "version": one.version, "size_bytes": one.size_bytes}
                        for one in layer.contents
                    ],
                }
                for layer in self.layers
            ],
            **({"gate": self.gate.as_dict()} if self.gate else {}),
            **({"acceleration": self.acceleration.as_dict()} if self.acceleration else {}),
            **({"weights_image": f"{weights_name(self.name)}@{self.weights.digest}"} if self.weights else {}),
            "notes": list(self.plan.notes),
            "warnings": list(self.plan.warnings),
        }


def report(made: Made, contents: tuple[PackageSize, ...]) -> LayerReport:
    """A layer that was made, or taken from the cache."""
    layer = made.layer
    return LayerReport(
        title=layer.title,
        kind=layer.kind.value,
        digest=str(layer.digest),
        size_bytes=layer.size_bytes,
        tar_bytes=layer.tar_bytes,
        cached=made.cached,
        seconds=made.seconds,
        contents=contents,
    )
