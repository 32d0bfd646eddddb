"""What an image is made of and how it came to be, told by itself and by what is attached to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.builder import acceleration, artifact, gate
from corten.builder import contents as facts
from corten.builder.artifact import SBOM_TYPE, STATEMENT_TYPE
from corten.builder.contents import Contents, FileFact
from corten.builder.gate import TestResult, result_of
from corten.builder.lineage import Commit
from corten.builder.proof import PREDICATE_ANNOTATION
from corten.builder.provenance import PREDICATE, commit_from, predicate_of
from corten.builder.sbom import Component, packages_of
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import BASE_DIGEST, BASE_NAME, SPEC_LABEL, TITLE_ANNOTATION, Image, Layer, LayerKind
from corten.core.model import ModelSpec
from corten.core.platform import Platform
from corten.errors import UsageError
from corten.store import signature_tag
from corten.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an image was built: by what, from what the user gave (`parameters`), at which commit."""

    builder: str
    version: str
    parameters: Mapping[str, Any]
    commit: Commit | None


@dataclass(frozen=True, slots=True)
class Attached:
    """An artifact that refers to an image: its type, and for a statement what kind of statement it is."""

    type: str
    digest: Digest
    predicate: str = ""


@dataclass(frozen=True, slots=True)
class Inspected:
    """An image in the store. `spec` is None for an image Corten did not build.

    `packages` are those of the base and wheels, `files` what lies below /models and /app, `attached` its lock, SBOM,
    provenance, signatures ... `tested` is what its test found, if it was tested. `acceleration` is
    the verdict on its model's ONNX form, where there was one.
    """

    name: str
    image: Image
    spec: ModelSpec | None
    packages: tuple[Component, ...]
    files: tuple[FileFact, ...]
    provenance: Provenance | None
    attached: tuple[Attached, ...]
    tested: TestResult | None = None
    acceleration: acceleration.Verdict | None = None

    @property
    def base(self) -> str:
        """The image it stands on, `REFERENCE@sha256:...`; empty for packages of Debian."""
        labels = self.image.labels
        return f"{labels[BASE_NAME]}@{labels[BASE_DIGEST]}" if {BASE_NAME, BASE_DIGEST} <= labels.keys() else ""

    @property
    def reference(self) -> str:
        """`NAME@sha256:...`."""
        return f"{self.name}@{self.image.digest}"

    def of_kind(self, kind: str) -> tuple[Component, ...]:
        """The packages that are a `deb`, an `apk` or a `wheel`."""
        return tuple(one for one in self.packages if one.kind == kind)

    def as_dict(self) -> dict[str, Any]:
        """The image as it stands in `--json` output."""
        image, provenance = self.image, self.provenance
        return {
            "name": self.name,
            "reference": self.reference,
            "digest": str(image.digest),
            "platform": str(image.platform),
            "size_bytes": image.size_bytes,
            "base": self.base,
            "model": msgspec.to_builtins(self.spec, str_keys=True),
            "env": dict(image.env),
            "entrypoint": list(image.entrypoint),
            "working_dir": image.working_dir,
            "labels": dict(image.labels),
            "layers": [_layer(layer) for layer in image.layers],
            "packages": [_package(one) for one in self.packages],
            "files": [
                {"name": f"/{one.name}", "size_bytes": one.size_bytes, "digest": str(one.digest)} for one in self.files
            ],
            "provenance": None
            if provenance is None
            else {
                "builder": provenance.builder,
                "corten": provenance.version,
                "parameters": dict(provenance.parameters),
                "git": msgspec.to_builtins(provenance.commit),
            },
            "tested": msgspec.to_builtins(self.tested),
            "acceleration": self.acceleration.as_dict() if self.acceleration else None,
            "attached": [
                {"type": one.type, "digest": str(one.digest), "predicate": one.predicate} for one in self.attached
            ],
        }


def inspect(image: str, *, home: Home | None = None, platform: Platform | None = None) -> Inspected:
    """Describe an image by name or digest; of an index the image for `platform` (None: this machine's).

    Raises NotFoundError `store.image_unknown`, PolicyError `store.blob_corrupt`, UsageError `store.malformed`.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    layout = Layout(home.store)
    seen = layout.image(layout.resolve(image).digest, platform)
    contents = {
        layer.digest: facts.read(layout, layer, cache=home.cache)
        for layer in seen.layers
        if layer.kind in (LayerKind.WEIGHTS, LayerKind.CODE)
    }
    spec = spec_of(seen)
    files = (file for one in contents.values() for file in one.files)
    return Inspected(
        name=spec.name if spec else seen.labels.get(TITLE_ANNOTATION, image.partition("@")[0]),
        image=seen,
        spec=spec,
        packages=_packages(layout, seen, home),
        files=tuple(sorted(files, key=lambda file: file.name)),
        provenance=_provenance(layout, seen.digest),
        attached=tuple(_attached(layout, seen.digest)),
        tested=_tested(layout, seen.digest),
        acceleration=acceleration.verdict_on(layout, seen.digest),
    )


def spec_of(image: Image) -> ModelSpec | None:
    """What the image's label says of its model (without the example), None when there is no such label.

    Raises UsageError `store.malformed`.
    """
    text = image.labels.get(SPEC_LABEL)
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=ModelSpec)
    except msgspec.DecodeError as error:
        raise UsageError(
            "store.malformed", "a malformed description of a model", where=str(image.digest), why=str(error)
        ) from error


def _packages(layout: Layout, image: Image, home: Home) -> tuple[Component, ...]:
    if (sbom := artifact.attached(layout, image.digest, SBOM_TYPE)) is not None:
        return packages_of(sbom, f"the SBOM of {image.digest}")
    # Nobody attached one (or a registry lost it): the layers tell the names and versions.
    kinds = {LayerKind.BASE: "deb", LayerKind.WHEELS: "wheel"}
    return tuple(
        component
        for layer in image.layers
        if layer.kind in kinds and SPEC_LABEL in image.labels
        for component in _components(kinds[layer.kind], facts.read(layout, layer, cache=home.cache))
    )


def _components(kind: str, contents: Contents) -> tuple[Component, ...]:
    return tuple(
        Component(kind, one.name, one.version, None, one.expression or ", ".join(one.licences))
        for one in contents.packages
    )


def _provenance(layout: Layout, digest: Digest) -> Provenance | None:
    data = artifact.attached(layout, digest, STATEMENT_TYPE, {PREDICATE_ANNOTATION: PREDICATE})
    if data is None:
        return None
    predicate = predicate_of(data, f"the provenance of {digest}")
    builder = predicate.get("runDetails", {}).get("builder", {})
    return Provenance(
        builder=str(builder.get("id", "")),
        version=str(builder.get("version", {}).get("corten", "")),
        parameters=predicate["buildDefinition"].get("externalParameters", {}),
        commit=commit_from(predicate),
    )


def _attached(layout: Layout, digest: Digest) -> Iterator[Attached]:
    for one in layout.referrers(digest):
        yield Attached(one.artifact_type, one.digest, artifact.noted(layout, one).get(PREDICATE_ANNOTATION, ""))
    if signed := layout.named(signature_tag.signature_tag(digest)):
        yield Attached(signature_tag.PAYLOAD_TYPE, signed.digest)


def _tested(layout: Layout, digest: Digest) -> TestResult | None:
    data = artifact.attached(layout, digest, STATEMENT_TYPE, {PREDICATE_ANNOTATION: gate.PREDICATE})
    return result_of(data, f"the test of {digest}") if data is not None else None


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "kind": layer.kind.value,
        "title": layer.title,
        "digest": str(layer.digest),
        "diff_id": str(layer.diff_id),
        "size_bytes": layer.size_bytes,
        "tar_bytes": layer.tar_bytes,
    }


def _package(one: Component) -> dict[str, str]:
    return {
        "kind": one.kind,
        "name": one.name,
        "version": one.version,
        "digest": str(one.digest or ""),
        "licence": one.licence,
    }
