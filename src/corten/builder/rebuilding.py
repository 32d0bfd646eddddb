"""From an image and its lock back to the plan it was built by: everything else lies in the image itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from corten.adapters.base import SourceFile
from corten.builder.debian.release import RELEASES
from corten.builder.lock import Lock
from corten.builder.oci_base import OciBase
from corten.builder.plan import Plan, WeightGroup, group_wheels, wheel_layers
from corten.core.image import (
    BASE_DIGEST,
    BASE_NAME,
    GPU_LABEL,
    SCHEMA_LABEL,
    SPEC_LABEL,
    TITLE_ANNOTATION,
    Image,
    Layer,
    LayerKind,
    Packing,
)
from corten.core.model import SPEC_FILE, ModelSpec
from corten.errors import UsageError
from corten.store.layout import Layout
from corten.store.unpack import unpack
from corten.store.untar import opened

_VERSION_LABEL = "dev.corten.version"
# Made from the plan; the rest is the user's.
_OWN_LABELS = (_VERSION_LABEL, SPEC_LABEL, SCHEMA_LABEL, GPU_LABEL, BASE_NAME, BASE_DIGEST)
_SINGLE = (LayerKind.RUNTIME, LayerKind.CODE)


def built_by(image: Image) -> str:
    """The version of Corten an image says it was built by, empty for another builder's."""
    return image.labels.get(_VERSION_LABEL, "")


def plan_again(image: Image, lock: Lock, layout: Layout, scratch: Path, beneath: OciBase | None = None) -> Plan:
    """The plan of a stored image. Its weights and code are unpacked into `scratch` (an empty folder) and checked.
    `beneath` is the image its lock says it stands on.

    Raises UsageError `rebuild.foreign` for an image Corten did not build, NotFoundError `store.blob_missing`,
    PolicyError `layer.wrong_content` and the like.
    """
    base = beneath or RELEASES.get(lock.release)
    if base is None or not built_by(image):
        raise UsageError(
            "rebuild.foreign",
            f"`{image.digest.short}` cannot be built again",
            why=f"its base is `{lock.release}`" if base is None else "Corten did not build it",
            hint="build it from its source with this Corten",
        )
    weights = tuple(_weights(image, layout, scratch))
    app = _unpacked(_of_kind(image, LayerKind.CODE)[0], layout, scratch / "code") / "app"
    spec = _spec(app / SPEC_FILE)
    return Plan(
        name=spec.name,
        platform=image.platform,
        base=base,
        spec=spec,
        lock=lock,
        wheels=group_wheels(lock.wheels, most=wheel_layers(base, len(weights))),
        weights=weights,
        code=tuple(file for file in _source_files(app) if file.name != SPEC_FILE),
        packing=_packing(image),
        labels=_user_labels(image.labels, spec.name),
    )


def _packing(image: Image) -> Packing:
    # A base may be another image's, and is stored as that is.
    found = {one.kind: one.compression for one in image.layers if one.kind in (LayerKind.WHEELS, LayerKind.RUNTIME)}
    fitting = (one for one in Packing if all(one.of(kind) is stored for kind, stored in found.items()))
    return next(fitting, Packing.AUTO)


def _weights(image: Image, layout: Layout, scratch: Path) -> list[WeightGroup]:
    groups = []
    for number, layer in enumerate(_of_kind(image, LayerKind.WEIGHTS)):
        folder = _unpacked(layer, layout, scratch / f"weights{number}")
        groups.append(WeightGroup(layer.title, tuple(_source_files(folder / "models"))))
    return groups


def _spec(path: Path) -> ModelSpec:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ModelSpec)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            "store.malformed", "a malformed description of a model", where=f"/app/{SPEC_FILE}", why=str(error)
        ) from error


def _source_files(folder: Path) -> list[SourceFile]:
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sorted((SourceFile(path, path.relative_to(folder).as_posix()) for path in found), key=lambda file: file.name)


def _user_labels(labels: Mapping[str, str], name: str) -> dict[str, str]:
    made = {TITLE_ANNOTATION: name}
    return {key: text for key, text in labels.items() if key not in _OWN_LABELS and made.get(key) != text}


def _of_kind(image: Image, kind: LayerKind) -> list[Layer]:
    found = [layer for layer in image.layers if layer.kind is kind]
    if kind in _SINGLE and len(found) != 1:
        raise UsageError(
            "rebuild.foreign",
            f"`{image.digest.short}` cannot be built again",
            why=f"it has {len(found)} layers of the kind `{kind.value}`, expected one",
            hint="build it from its source with this Corten",
        )
    return found


def _unpacked(layer: Layer, layout: Layout, folder: Path) -> Path:
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with opened(layout.path(layer.digest), layer) as tar:
            unpack(tar, layer, descriptor, check=_go_on)
    except FileNotFoundError as error:
        raise layout.missing(layer.digest) from error
    finally:
        os.close(descriptor)
    return folder


def _go_on() -> None:
    """Nothing stops the unpacking of an image's own files: they are as many as were built into it."""
