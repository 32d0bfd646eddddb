"""Config and manifest of an image: bytes that depend on the plan and the layers only.

No clock (created is 1970), no builder's host or user, keys sorted, no spaces: the same image has the same digest
wherever it is built (image-spec, config.md and manifest.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from corten import __version__
from corten.builder.plan import Plan
from corten.core.image import (
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
_ENTRYPOINT = ("/usr/bin/python3", "-m", "corten.serve")
# The number of threads (OMP_NUM_THREADS and the like) is the engine's to decide: it knows the processors.
_ENV = {
    "LANG": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin",
    "PYTHONDONTWRITEBYTECODE": "1",  # the root is read-only
    "PYTHONUNBUFFERED": "1",  # a killed process must not take its last lines with it
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
}


def config_json(plan: Plan, layers: Sequence[Layer]) -> bytes:
    """The image's config (application/vnd.oci.image.config.v1+json)."""
    document = {
        "architecture": plan.platform.architecture,
        "os": plan.platform.os,
        "created": _EPOCH,
        "config": {
            "Entrypoint": list(_ENTRYPOINT),
            "Env": [f"{name}={text}" for name, text in sorted(_ENV.items())],
            "ExposedPorts": {_PORT: {}},
            "Labels": labels_of(plan),
            "StopSignal": "SIGTERM",
            "User": _USER,
            "WorkingDir": "/app",
        },
        "rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]},
        "history": [{"created": _EPOCH, "created_by": f"corten {layer.kind.value}: {layer.title}"} for layer in layers],
    }
    return _json(document)


def manifest_json(config: Descriptor, layers: Sequence[Layer]) -> bytes:
    """The image's manifest (application/vnd.oci.image.manifest.v1+json)."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor_to(config),
        "layers": [descriptor_to(layer_descriptor(layer)) for layer in layers],
    }
    return _json(document)


def labels_of(plan: Plan) -> Mapping[str, str]:
    """Labels of an image. A revision of the source is there only when the user's settings give one: it would give each
    commit another digest, even one that changes nothing of the image.
    """
    # The example may be as large as a request; it lies in /app/corten.json.
    spec = msgspec.json.encode(replace(plan.spec, example=None), order="sorted").decode()
    labels = {"dev.corten.version": __version__, "org.opencontainers.image.title": plan.name, SPEC_LABEL: spec}
    if plan.spec.schema:
        labels[SCHEMA_LABEL] = msgspec.json.encode(plan.spec.schema, order="sorted").decode()
    return labels | dict(plan.labels)


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
