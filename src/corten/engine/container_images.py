"""Bringing images of the store into a container engine, without a registry and without what it has already."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from corten.core.digest import Digest
from corten.core.image import Image
from corten.engine.docker_api import DockerApi, FoundImage, RefusedError
from corten.store.docker_archive import DockerArchive
from corten.store.layout import Layout

# By the manifest's digest, so that nobody's tag is moved; `localhost/` keeps podman from asking a registry for it.
_REPOSITORY: Final = "localhost/corten"


def reference(image: Digest) -> str:
    """What an image of the store is called in the engine."""
    return f"{_REPOSITORY}:{image.hex}"


class ContainerImages:
    """The images of one engine. Threads may ask for the same one at once: it is loaded once."""

    def __init__(self, layout: Layout, api: DockerApi) -> None:
        self._layout = layout
        self._api = api
        self._lock = threading.Lock()

    def load(self, image: Image) -> str:
        """Make an image known to the engine; what it is called there. Raises EngineError, and what the store does."""
        name = reference(image.digest)
        if self._has(name, image):
            return name
        with self._lock:
            if not self._has(name, image):
                self._load(name, image)
        return name

    def forget(self, unless: Collection[Digest]) -> int:
        """Take away what was loaded and is not among these; how many. What a container still uses stays."""
        kept = {reference(digest) for digest in unless}
        removed = 0
        for name in (tag for one in self._api.images() for tag in one.repo_tags or ()):
            if name.startswith(f"{_REPOSITORY}:") and name not in kept:
                try:
                    self._api.remove_image(name)
                except RefusedError:
                    continue
                removed += 1
        return removed

    def _load(self, name: str, image: Image) -> None:
        there = shared(image, map(self._layers, self._ours()))
        try:
            self._send(name, image, there)
        except RefusedError:
            # Somebody may have removed a layer meanwhile, or this engine wants all of them.
            if not there:
                raise
            self._send(name, image, ())

    def _send(self, name: str, image: Image, there: Collection[Digest]) -> None:
        archive = DockerArchive.of(self._layout, image, names=[name], there=there)
        self._api.load(archive.stream(self._layout))

    def _has(self, name: str, image: Image) -> bool:
        found = self._api.image(name)
        return found is not None and self._layers(found) == [str(layer.diff_id) for layer in image.layers]

    def _ours(self) -> Iterable[FoundImage]:
        for one in self._api.images():
            if any(tag.startswith(f"{_REPOSITORY}:") for tag in one.repo_tags or ()):
                found = self._api.image(one.id)
                if found is not None:
                    yield found

    @staticmethod
    def _layers(found: FoundImage) -> list[str]:
        return list(found.root_fs.layers or ())


def shared(image: Image, others: Iterable[Sequence[str]]) -> frozenset[Digest]:
    """The lowest layers of an image with which some other begins too: engines know layers by what is below them."""
    own = [str(layer.diff_id) for layer in image.layers]
    most = 0
    for layers in others:
        same = 0
        while same < min(len(own), len(layers)) and own[same] == layers[same]:
            same += 1
        most = max(most, same)
    return frozenset(layer.diff_id for layer in image.layers[:most])
