"""The weights of an image as an image of their own, made of the very same blobs.

Kubernetes mounts it as an image volume, KServe as `oci+native://`: a plain OCI image (no runtime mounts artifacts) with
uncompressed tars of `/models`. Beside it a ModelPack manifest of the same blobs (https://github.com/modelpack/model-spec,
docs/spec.md and docs/config.md), attached as a referrer, for registries and tools that know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corten.builder.artifact import EPOCH, to_json
from corten.builder.index import index_json
from corten.core.image import CONFIG, INDEX, MANIFEST, TITLE_ANNOTATION, Descriptor, Image, Layer, LayerKind
from corten.core.model import ModelSpec
from corten.core.name import parse_name
from corten.core.platform import Platform
from corten.errors import UsageError
from corten.store.documents import descriptor_to
from corten.store.layout import Layout

MODELPACK_TYPE = "application/vnd.cncf.model.manifest.v1+json"
_MODELPACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
_MODELPACK_WEIGHTS = "application/vnd.cncf.model.weight.v1.tar"
_FILEPATH_ANNOTATION = "org.cncf.model.filepath"


def weights_name(name: str) -> str:
    """The name of a model's weights image. Raises UsageError `name.malformed` when it gets too long."""
    return parse_name(f"{name}-weights")


def store_weights(spec: ModelSpec, images: Sequence[Image], layout: Layout) -> Descriptor:
    """Put the weights of a model, built for one or more platforms, into the store; gives the manifest's or index's.

    Adds documents of some hundred bytes and no blob. Raises UsageError `build.no_weights`.
    """
    layers = weights_of(images[0])
    if not layers:
        raise UsageError(
            "build.no_weights",
            f"`{spec.name}` has no model files, so there is no weights image of it",
            why="everything it needs is code",
            hint="build without --weights-image, or name its files with --file",
        )
    manifests = []
    for image in images:
        config = layout.put(to_json(config_document(image.platform, layers)), CONFIG)
        manifests.append((image.platform, layout.put(to_json(manifest_document(config, layers)), MANIFEST)))
    # One image is found on one platform only (containerd looks into its config), so each gets its own.
    whole = manifests[0][1] if len(manifests) == 1 else layout.put(index_json(manifests), INDEX)
    layout.attach(whole.digest, [_put_modelpack(spec, layers, whole, layout)])
    return whole


def weights_of(image: Image) -> tuple[Layer, ...]:
    """The layers that hold model files."""
    return tuple(layer for layer in image.layers if layer.kind is LayerKind.WEIGHTS)


def config_document(platform: Platform, layers: Sequence[Layer]) -> dict[str, object]:
    """A config with what is required (image-spec, config.md): nothing in the image can be run."""
    return {
        "architecture": platform.architecture,
        "os": platform.os,
        "created": EPOCH,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
    }


def manifest_document(config: Descriptor, layers: Sequence[Layer]) -> dict[str, object]:
    """The manifest over the weights' layers, lowest first."""
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor_to(config),
        "layers": [descriptor_to(_described(layer, layer.media_type, TITLE_ANNOTATION)) for layer in layers],
    }


def modelpack_config(spec: ModelSpec, layers: Sequence[Layer]) -> dict[str, object]:
    """What ModelPack tells of a model. Only what is known: no date, no guess at its architecture."""
    return {
        "descriptor": {"name": spec.name},
        "config": {"format": spec.adapter},
        "modelfs": {"type": "layers", "diffIds": [str(layer.diff_id) for layer in layers]},
    }


def _put_modelpack(spec: ModelSpec, layers: Sequence[Layer], subject: Descriptor, layout: Layout) -> Descriptor:
    config = layout.put(to_json(modelpack_config(spec, layers)), _MODELPACK_CONFIG)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": MODELPACK_TYPE,
        "config": descriptor_to(config),
        "layers": [descriptor_to(_described(layer, _MODELPACK_WEIGHTS, _FILEPATH_ANNOTATION)) for layer in layers],
        "subject": descriptor_to(Descriptor(subject.media_type, subject.digest, subject.size_bytes)),
    }
    return replace(layout.put(to_json(document), MANIFEST), artifact_type=MODELPACK_TYPE)


def _described(layer: Layer, media_type: str, titled: str) -> Descriptor:
    return Descriptor(media_type, layer.digest, layer.size_bytes, annotations={titled: f"models/{layer.title}"})
