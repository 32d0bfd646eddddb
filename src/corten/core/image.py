"""The nouns of the OCI image spec: descriptor, layer, image (https://github.com/opencontainers/image-spec)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from corten.core.digest import Digest
from corten.core.platform import Platform

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
# The same documents as Docker called them before there was OCI; registries are full of them.
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_INDEX)

# Annotation of a layer: which LayerKind it is, and a name for people.
KIND_ANNOTATION = "dev.corten.layer.kind"
TITLE_ANNOTATION = "org.opencontainers.image.title"
# The plain tar's size: a manifest tells only the stored one.
TAR_BYTES_ANNOTATION = "dev.corten.layer.tar-bytes"
# Annotation of a descriptor in a layout's index: the name people use.
NAME_ANNOTATION = "org.opencontainers.image.ref.name"
# Annotation of an artifact's descriptor there: the digest its manifest's `subject` has.
SUBJECT_ANNOTATION = "dev.corten.subject"
# What an image stands on, as annotations of its manifest and labels of its config (image-spec, annotations.md).
BASE_NAME = "org.opencontainers.image.base.name"
BASE_DIGEST = "org.opencontainers.image.base.digest"
# Labels of an image's config.
SCHEMA_LABEL = "dev.corten.schema"
GPU_LABEL = "dev.corten.gpu"
SPEC_LABEL = "dev.corten.model"


class Compression(Enum):
    """How a layer's tar is stored; the value is the media type's suffix."""

    NONE = ""
    ZSTD = "+zstd"
    GZIP = "+gzip"


class Packing(Enum):
    """How the layers of an image are stored, but for weights, which are never compressed.

    AUTO leaves wheels in the compression they came in, which takes no work, and puts the rest in zstd. ZSTD is a tenth
    smaller, GZIP for tools that know no zstd.
    """

    AUTO = "auto"
    ZSTD = "zstd"
    GZIP = "gzip"

    def of(self, kind: LayerKind) -> Compression:
        """The compression of a layer of this kind."""
        match self:
            case _ if kind is LayerKind.WEIGHTS:
                return Compression.NONE
            case Packing.AUTO:
                return Compression.GZIP if kind is LayerKind.WHEELS else Compression.ZSTD
            case Packing.ZSTD:
                return Compression.ZSTD
            case Packing.GZIP:
                return Compression.GZIP


class LayerKind(Enum):
    """What a layer holds, from the one that changes least to the one that changes most."""

    BASE = "base"
    WHEELS = "wheels"
    RUNTIME = "runtime"
    WEIGHTS = "weights"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Points at content: what it is, its digest, its size in bytes."""

    media_type: str
    digest: Digest
    size_bytes: int
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image.

    `digest` is of the stored bytes (compressed or not), `diff_id` of the plain tar; both as in the image spec.
    """

    kind: LayerKind
    title: str
    digest: Digest
    diff_id: Digest
    size_bytes: int
    tar_bytes: int
    compression: Compression

    @property
    def media_type(self) -> str:
        """The layer's OCI media type."""
        return LAYER + self.compression.value


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the store: the manifest's digest and what it lists, lowest layer first."""

    digest: Digest
    platform: Platform
    layers: tuple[Layer, ...]
    env: Mapping[str, str]
    entrypoint: tuple[str, ...]
    working_dir: str
    labels: Mapping[str, str]

    @property
    def size_bytes(self) -> int:
        """What a registry would send: the sum of the stored layers."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def tar_bytes(self) -> int:
        """What it takes unpacked, roughly."""
        return sum(layer.tar_bytes for layer in self.layers)
