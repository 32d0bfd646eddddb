"""One name for several platforms: an OCI image index (image-spec, image-index.md).

Bytes depend on the manifests only: the same images in any order give the same index.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from corten.core.image import INDEX, Descriptor
from corten.core.platform import Platform
from corten.store.documents import descriptor_to


def index_json(manifests: Sequence[tuple[Platform, Descriptor]]) -> bytes:
    """An image index (application/vnd.oci.image.index.v1+json) over one manifest a platform."""
    entries = [
        replace(manifest, platform=platform, annotations={}) for platform, manifest in sorted(manifests, key=_by)
    ]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor_to(entry) for entry in entries]}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _by(item: tuple[Platform, Descriptor]) -> Platform:
    return item[0]
