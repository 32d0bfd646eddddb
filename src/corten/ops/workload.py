"""What is known here of a deployment that is to run elsewhere: which image, under which name in which registry."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import SPEC_LABEL
from corten.core.model import ModelSpec
from corten.core.name import parse_name, suggest_name
from corten.core.reference import Reference
from corten.errors import CortenError, UsageError
from corten.exporters.base import Workload
from corten.store.layout import Layout


def workload_of(image: str, name: str, settings: Settings, *, home: Home, weights: str = "") -> Workload:
    """The workload for an image of the store that has been pushed, or for `REGISTRY/REPOSITORY@sha256:...`.

    Raises UsageError `render.not_pushed` for an image that is in no registry as far as the store knows.
    """
    layout = Layout(home.store)
    reference = _pushed(layout, image)
    spec = _spec(layout, reference.digest)
    called = name or suggest_name(spec.name if spec else reference.repository.rpartition("/")[2])
    return Workload(
        name=parse_name(called),
        image=replace(reference, tag=""),
        settings=replace(settings, grpc=spec.grpc if spec else settings.grpc),
        weights=replace(_pushed(layout, weights), tag="") if weights else None,
    )


def _pushed(layout: Layout, image: str) -> Reference:
    """The reference with a digest that others pull the image by."""
    given = _reference(image)
    if given is not None and given.digest is not None:
        return given
    found = layout.resolve(given.name if given else image)
    named = [_reference(tag) for tag, entry in layout.images() if entry.digest == found.digest]
    references = [reference for reference in (given, *named) if reference is not None]
    if not references:
        raise UsageError(
            "render.not_pushed",
            f"`{image}` is in no registry that a cluster could pull it from",
            why=f"{found.digest.short} was built here and has not been pushed",
            hint=f"corten push {image} REGISTRY/{suggest_name(image.partition('@')[0])}",
        )
    return replace(references[0], digest=found.digest)


def _reference(text: str) -> Reference | None:
    """What is written as one; the store's own short names are none."""
    try:
        return Reference.parse(text)
    except UsageError:
        return None


def _spec(layout: Layout, digest: Digest | None) -> ModelSpec | None:
    """What the image says of its model, when it is here."""
    try:
        label = layout.image(digest).labels.get(SPEC_LABEL, "") if digest else ""
        return msgspec.json.decode(label, type=ModelSpec)
    except (CortenError, msgspec.MsgspecError):
        return None
