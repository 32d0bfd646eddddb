"""What is attached to every image: its lock, its SBOM, its provenance. Same inputs, same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from corten import __version__
from corten.builder import artifact
from corten.builder import contents as facts
from corten.builder import lock as locks
from corten.builder.artifact import LOCK_TYPE, SBOM_TYPE, STATEMENT_TYPE, Artifact
from corten.builder.contents import Contents
from corten.builder.lineage import Commit
from corten.builder.lock import LOCK_FILE, Lock
from corten.builder.oci_base import OciBase
from corten.builder.pipeline import wheel_download
from corten.builder.plan import Plan
from corten.builder.provenance import PREDICATE, provenance_json
from corten.builder.remote import without_credentials
from corten.builder.sbom import sbom_json
from corten.builder.source import Project
from corten.core.digest import Digest
from corten.core.image import Descriptor, Image, LayerKind
from corten.store.layout import Layout

PREDICATE_ANNOTATION = "in-toto.io/predicate-type"


def attach(
    image: Image,
    manifest: Descriptor,
    *,
    project: Project,
    plan: Plan,
    layout: Layout,
    cache: Path,
    commit: Commit | None,
) -> tuple[Descriptor, ...]:
    """Attach lock, SBOM and provenance to an image in the store, in place of those of an earlier build of it.

    Raises what reading its layers and writing the store raise.
    """
    contents = contents_of(image, plan, layout, cache)
    lock = public(plan.lock)
    made = (
        Artifact(LOCK_TYPE, LOCK_FILE, locks.dumps([lock]).encode()),
        Artifact(
            SBOM_TYPE,
            "sbom.cdx.json",
            sbom_json(
                image,
                plan.spec,
                lock,
                contents,
                __version__,
                beneath=beneath_of(plan),
                original=_original(project, plan),
            ),
        ),
        Artifact(
            STATEMENT_TYPE,
            "provenance.intoto.json",
            provenance_json(
                image.digest,
                project=project,
                plan=plan,
                contents=contents,
                commit=commit,
                corten_version=__version__,
            ),
            {PREDICATE_ANNOTATION: PREDICATE},
        ),
    )
    before = [one.digest for one in layout.referrers(image.digest) if _is_replaced(layout, one)]
    described = tuple(artifact.put(layout, one, manifest) for one in made)
    layout.attach(image.digest, described, instead_of=before)
    return described


def beneath_of(plan: Plan) -> OciBase | None:
    """The image a plan's stands on, None for packages of Debian."""
    return plan.base if isinstance(plan.base, OciBase) else None


def _original(project: Project, plan: Plan) -> tuple[str, Digest] | None:
    if plan.converted is None or plan.converted.file is None:
        return None
    return project.source.path.name, Digest.parse(plan.converted.conversion.original)


def _is_replaced(layout: Layout, one: Descriptor) -> bool:
    # What is said about the image by others than its build (a test it passed) stays.
    if one.artifact_type == STATEMENT_TYPE:
        return artifact.noted(layout, one).get(PREDICATE_ANNOTATION) == PREDICATE
    return one.artifact_type in (LOCK_TYPE, SBOM_TYPE)


def contents_of(image: Image, plan: Plan, layout: Layout, cache: Path) -> tuple[Contents, ...]:
    """What the layers of an image hold; of its wheels the files in the cache are asked where they are there."""
    groups = iter(plan.wheels)
    found = []
    for layer in image.layers:
        if layer.kind is LayerKind.BASE and beneath_of(plan):
            continue  # what is in the base was read when it was chosen
        of_wheels = next(groups, None) if layer.kind is LayerKind.WHEELS else None
        wheels: Sequence[Path] = [wheel_download(one, cache).path for one in of_wheels.wheels] if of_wheels else ()
        found.append(facts.read(layout, layer, cache=cache, wheels=wheels))
    return tuple(found)


def public(lock: Lock) -> Lock:
    """A lock as it may be shown: an index's password may stand in a URL."""
    wheels = tuple(replace(one, url=without_credentials(one.url)) for one in lock.wheels)
    return replace(lock, debs=tuple(replace(one, url=without_credentials(one.url)) for one in lock.debs), wheels=wheels)
