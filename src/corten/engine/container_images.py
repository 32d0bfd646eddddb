"""Bringing images of the store into a container engine, without a registry and without what it has already."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final

from corten.core.digest import Digest
from corten.core.image import Image
from corten.engine.docker_api import DockerApi, FoundImage, RefusedError
from corten.store.docker_archive import DockerArchive
from corten.store.layout import Layout

# `localhost/` keeps podman from asking a registry for it.
_REPOSITORY: Final = "localhost/corten"


class ContainerImages:
    """The images of one home in one engine. Threads may ask for the same one at once: it is loaded once.

    An image is called by its manifest's digest, below the home's own name (`owner`): nobody's tag is ever moved.
    """

    def __init__(self, layout: Layout, api: DockerApi, owner: str) -> None:
        self._layout = layout
        self._api = api
        self._repository = f"{_REPOSITORY}-{owner}"
        self._lock = threading.Lock()

    def load(self, image: Image) -> str:
        """Make an image known to the engine; what it is called there. Raises EngineError, and what the store does."""
        name = f"{self._repository}:{image.digest.hex}"
        if self._has(name, image):
            return name
        with self._lock:
            if not self._has(name, image):
                found = [*self._ours()]
                self._load(name, image, found)
                self._forget(found)
        return name

    def _load(self, name: str, image: Image, found: Sequence[FoundImage]) -> None:
        there = shared(image, map(_layers, found))
        try:
            self._send(name, image, there)
        except RefusedError:
            # Somebody may have removed a layer meanwhile, or this engine wants all of them.
            if not there:
                raise
            self._send(name, image, ())

    def _forget(self, found: Sequence[FoundImage]) -> None:
        """Take away what the store has no more; what a container still uses stays."""
        for tag in (tag for one in found for tag in one.repo_tags or ()):
            repository, _, digest = tag.rpartition(":")
            if repository == self._repository and not self._layout.path(Digest(digest)).exists():
                with suppress(RefusedError):
                    self._api.remove_image(tag)

    def _send(self, name: str, image: Image, there: Collection[Digest]) -> None:
        archive = DockerArchive.of(self._layout, image, names=[name], there=there)
        self._api.load(archive.stream(self._layout))

    def _has(self, name: str, image: Image) -> bool:
        found = self._api.image(name)
        return found is not None and _layers(found) == [str(layer.diff_id) for layer in image.layers]

    def _ours(self) -> Iterable[FoundImage]:
        for one in self._api.images():
            if any(tag.startswith(_REPOSITORY) for tag in one.repo_tags or ()):
                found = self._api.image(one.id)
                if found is not None:
                    yield found


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
