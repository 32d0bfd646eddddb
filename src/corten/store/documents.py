"""OCI documents (descriptor, manifest, config) to values of `core.image` and back. Input is somebody else's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corten.core.digest import Digest
from corten.core.image import (
    KIND_ANNOTATION,
    LAYER,
    TAR_BYTES_ANNOTATION,
    TITLE_ANNOTATION,
    Compression,
    Descriptor,
    Image,
    Layer,
    LayerKind,
)
from corten.core.platform import Platform
from corten.errors import UsageError

# What a manifest made by other tools calls the same things.
_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_FOREIGN = {_FOREIGN_LAYER: Compression.NONE, f"{_FOREIGN_LAYER}.gzip": Compression.GZIP}
_COMPRESSIONS = {LAYER + form.value: form for form in Compression} | _FOREIGN


def descriptor_from(document: Any, where: str) -> Descriptor:
    """Read a descriptor; raises UsageError `store.malformed` for what is none."""
    try:
        platform = document.get("platform")
        return Descriptor(
            media_type=str(document["mediaType"]),
            digest=Digest.parse(str(document["digest"])),
            size_bytes=int(document["size"]),
            annotations=_texts(document.get("annotations")),
            artifact_type=str(document.get("artifactType", "")),
            platform=Platform(platform["architecture"], platform["os"]) if platform else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed("descriptor", where, error) from error


def descriptor_to(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as JSON object; what is empty is left out."""
    document: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size_bytes,
    }
    if descriptor.annotations:
        document["annotations"] = dict(descriptor.annotations)
    if descriptor.artifact_type:
        document["artifactType"] = descriptor.artifact_type
    if descriptor.platform:
        document["platform"] = {
            "architecture": descriptor.platform.architecture,
            "os": descriptor.platform.os,
        }
    return document


def image_from(digest: Digest, manifest: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Image:
    """Put manifest and config together; raises UsageError `store.malformed` when they do not fit."""
    try:
        descriptors = [descriptor_from(entry, where) for entry in manifest["layers"]]
        diff_ids = [Digest.parse(text) for text in config["rootfs"]["diff_ids"]]
        run = config.get("config") or {}
        return Image(
            digest=digest,
            platform=Platform(config["architecture"], config["os"]),
            layers=tuple(
                _layer(number, descriptor, diff_id)
                for number, (descriptor, diff_id) in enumerate(zip(descriptors, diff_ids, strict=True))
            ),
            env=dict(_assignment(text) for text in run.get("Env") or ()),
            entrypoint=(*(run.get("Entrypoint") or ()), *(run.get("Cmd") or ())),
            working_dir=run.get("WorkingDir") or "/",
            labels=_texts(run.get("Labels")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _malformed("image", where, error) from error


def _layer(number: int, descriptor: Descriptor, diff_id: Digest) -> Layer:
    notes = descriptor.annotations
    if descriptor.media_type not in _COMPRESSIONS:
        raise ValueError(f"layer {number} has the media type {descriptor.media_type}")
    return Layer(
        # An image made by others has no kinds; all of it is somebody's base then.
        kind=LayerKind(notes.get(KIND_ANNOTATION, LayerKind.BASE.value)),
        title=notes.get(TITLE_ANNOTATION, f"layer {number}"),
        digest=descriptor.digest,
        diff_id=diff_id,
        size_bytes=descriptor.size_bytes,
        tar_bytes=int(notes.get(TAR_BYTES_ANNOTATION, descriptor.size_bytes)),
        compression=_COMPRESSIONS[descriptor.media_type],
    )


def _assignment(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _texts(document: Any) -> dict[str, str]:
    return {str(key): str(text) for key, text in (document or {}).items()}


def _malformed(noun: str, where: str, error: Exception) -> UsageError:
    return UsageError(
        "store.malformed",
        f"a malformed {noun}",
        where=where,
        why=f"{type(error).__name__}: {error}",
    )
