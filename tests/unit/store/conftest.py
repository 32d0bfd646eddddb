"""Small real images for the store's tests."""

from __future__ import annotations

import json

import pytest

from corten.core.image import CONFIG, LAYER, MANIFEST, TITLE_ANNOTATION, Descriptor
from corten.store.documents import descriptor_to
from corten.store.layout import Layout


class Maker:
    """Puts images and artifacts of one small layer into a layout."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def image(self, text: str, *more: str) -> Descriptor:
        layers = [self.layout.put(each.encode(), LAYER) for each in (text, *more)]
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        }
        titled = [
            {**descriptor_to(layer), "annotations": {TITLE_ANNOTATION: each}}
            for layer, each in zip(layers, (text, *more), strict=True)
        ]
        document = {
            "mediaType": MANIFEST,
            "config": descriptor_to(self.layout.put(json.dumps(config).encode(), CONFIG)),
            "layers": titled,
        }
        return self.layout.put(json.dumps(document).encode(), MANIFEST)

    def artifact(self, subject: Descriptor, text: str) -> Descriptor:
        layer = self.layout.put(text.encode(), "text/plain")
        document = {"mediaType": MANIFEST, "layers": [descriptor_to(layer)], "subject": descriptor_to(subject)}
        found = self.layout.put(json.dumps(document).encode(), MANIFEST)
        return Descriptor(MANIFEST, found.digest, found.size_bytes, artifact_type="text/plain")


@pytest.fixture
def maker():
    return Maker
