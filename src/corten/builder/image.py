"""Config and manifest of an image: bytes that depend on the plan and the layers only.

No clock (created is 1970), no builder's host or user, keys sorted, no spaces: the same image has the same digest
wherever it is built (image-spec, config.md and manifest.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from corten import __version__
from corten.builder.oci_base import OciBase, env_on
from corten.builder.plan import Plan
from corten.core.image import (
    BASE_DIGEST,
    BASE_NAME,
    GPU_LABEL,
    KIND_ANNOTATION,
    MANIFEST,
    SCHEMA_LABEL,
    SPEC_LABEL,
    TAR_BYTES_ANNOTATION,
    TITLE_ANNOTATION,
    Descriptor,
    Layer,
)
from corten.store.documents import descriptor_to

_EPOCH = "1970-01-01T00:00:00Z"
_USER = "65532:65532"
_PORT = "8080/tcp"
SERVER = ("-m", "corten.serve")
# The number of threads (OMP_NUM_THREADS and the like) is the engine's to decide: it knows the processors.
_ENV = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin",
    "PYTHONDONTWRITEBYTECODE": "1",  # the root is read-only
    "PYTHONUNBUFFERED": "1",  # a killed process must not take its last lines with it
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
}

# What NVIDIA's container toolkit goes by where an engine is not told about GPUs in another way
# (https://docs.nvidia.com/datacenter/cloud-native/container-toolkit, "Environment variables").
_CUDA_ENV = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


def config_json(plan: Plan, layers: Sequence[Layer], command: Sequence[str] = SERVER) -> bytes:
    """The image's config (application/vnd.oci.image.config.v1+json); `command` is what its Python is given to run."""
    document = {
        "architecture": plan.platform.architecture,
        "os": plan.platform.os,
        "created": _EPOCH,
        "config": {
            "Entrypoint": [plan.python.program, *command],
            "Env": [f"{name}={text}" for name, text in sorted(env_of(plan).items())],
            "ExposedPorts": {_PORT: {}},
            "Labels": labels_of(plan),
            "StopSignal": "SIGTERM",
            "User": _USER,
            "WorkingDir": "/app",
        },
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": [history_of(layer) for layer in layers],
    }
    return _json(document)


def history_of(layer: Layer) -> dict[str, str]:
    """How the config tells of a layer."""
    return {"created": _EPOCH, "created_by": f"corten {layer.kind.value}: {layer.title}"}


def env_of(plan: Plan) -> Mapping[str, str]:
    """The environment an image is run with."""
    own = env_over(plan.base) if isinstance(plan.base, OciBase) else _ENV
    return {**_CUDA_ENV, **own} if plan.cuda else own


def env_over(base: OciBase) -> Mapping[str, str]:
    """The same on another image."""
    return env_on(base, _ENV)


def manifest_json(config: Descriptor, layers: Sequence[Layer], notes: Mapping[str, str] | None = None) -> bytes:
    """The image's manifest (application/vnd.oci.image.manifest.v1+json); `notes` are its annotations."""
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor_to(config),
        "layers": [descriptor_to(layer_descriptor(layer)) for layer in layers],
    }
    if notes:
        document["annotations"] = dict(notes)
    return _json(document)


def base_notes(plan: Plan) -> dict[str, str]:
    """Which image a plan's stands on, in the words of the image spec; nothing for packages of Debian."""
    return notes_of(plan.base) if isinstance(plan.base, OciBase) else {}


def notes_of(base: OciBase) -> dict[str, str]:
    """How an image names the one it stands on."""
    return {BASE_NAME: base.pin.reference, BASE_DIGEST: str(base.pin.manifest)}


def labels_of(plan: Plan) -> Mapping[str, str]:
    """Labels of an image. A revision of the source is there only when the user's settings give one: it would give each
    commit another digest, even one that changes nothing of the image.
    """
    # The example may be as large as a request; it lies in /app/corten.json.
    spec = msgspec.json.encode(msgspec.structs.replace(plan.spec, example=None), order="sorted").decode()
    labels = {"dev.corten.version": __version__, "org.opencontainers.image.title": plan.name, SPEC_LABEL: spec}
    if plan.cuda:
        labels[GPU_LABEL] = "cuda"
    if plan.spec.schema:
        labels[SCHEMA_LABEL] = msgspec.json.encode(plan.spec.schema, order="sorted").decode()
    return labels | base_notes(plan) | dict(plan.labels)


def layer_descriptor(layer: Layer) -> Descriptor:
    """A layer as a manifest lists it."""
    return Descriptor(
        layer.media_type,
        layer.digest,
        layer.size_bytes,
        annotations={
            KIND_ANNOTATION: layer.kind.value,
            TITLE_ANNOTATION: layer.title,
            TAR_BYTES_ANNOTATION: str(layer.tar_bytes),
        },
    )


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
