"""A newer base below an image that is in the store: Debian packages, or the image a tag leads to now; every other layer
stays the blob it is.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from corten import __version__
from corten.builder import artifact, contents, debian
from corten.builder import lock as locks
from corten.builder.artifact import LOCK_TYPE, SBOM_TYPE, Artifact
from corten.builder.debian.release import DEFAULT_MIRROR, RELEASES, Deb, Release
from corten.builder.download import Downloader
from corten.builder.gate import attach_gate
from corten.builder.index import index_json
from corten.builder.lock import LOCK_FILE, Lock, Pin
from corten.builder.locking import Rules
from corten.builder.oci_base import OciBase
from corten.builder.pipeline import Workshop, make_accounts, make_base
from corten.builder.rebase import (
    Change,
    changes,
    check_base,
    check_python,
    on_other_base,
    packages_changed,
    rebased_config,
    rebased_manifest,
)
from corten.builder.remote import Access
from corten.builder.sbom import sbom_json
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.image import CONFIG, INDEX, MANIFEST, NAME_ANNOTATION, SPEC_LABEL, Descriptor, Image, Layer, LayerKind
from corten.core.model import ModelSpec
from corten.core.platform import Platform
from corten.core.reference import Reference
from corten.errors import UsageError
from corten.ops.gate import run_gate
from corten.ops.oci_base import Bases
from corten.ops.rebuild import lock_of, scratch_in
from corten.ops.transfers import session
from corten.store.guard import using
from corten.store.layout import Layout


@dataclass(frozen=True, slots=True)
class RebasedImage:
    """One platform's image before and after, and the packages that changed."""

    platform: Platform
    before: Digest
    after: Digest
    changes: tuple[Change, ...]
    base_bytes: int


@dataclass(frozen=True, slots=True)
class Rebased:
    """A name that points at a newer base now, or (`before == after`) whose packages were the newest already."""

    name: str
    before: Digest
    after: Digest
    images: tuple[RebasedImage, ...]
    seconds: float

    @property
    def changed(self) -> bool:
        """Whether anything is new."""
        return self.before != self.after

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "name": self.name,
            "changed": self.changed,
            "before": str(self.before),
            "digest": str(self.after),
            "seconds": round(self.seconds, 3),
            "images": [
                {
                    "platform": str(image.platform),
                    "before": str(image.before),
                    "digest": str(image.after),
                    "base_bytes": image.base_bytes,
                    "packages": [{"name": one.name, "before": one.before, "after": one.after} for one in image.changes],
                }
                for image in self.images
            ],
        }


@dataclass(frozen=True, slots=True)
class _Rebase:
    """What rebasing one image takes."""

    shop: Workshop
    bases: Bases
    home: Home
    mirror: str
    env: Mapping[str, str]
    now_s: float
    test: bool

    @property
    def layout(self) -> Layout:
        return self.shop.layout


def rebase(
    name: str,
    *,
    home: Home | None = None,
    test: bool = False,
    mirror: str = "",
    plain_http: bool = False,
    ca: str | Path | None = None,
    now_s: float | None = None,
    listen: Listener = nobody,
    env: Mapping[str, str] | None = None,
) -> Rebased:
    """Put a named image on the newest packages of its Debian release, or on the image its base's tag leads to now; the
    name moves when something changed. `ca` and `plain_http` are about that base's registry, as for `pull`.

    Wheels, server, weights and code stay the same blobs. Lock and SBOM of the new image are attached to it; signatures
    and provenance of the old are not its. `test` starts each image that can run here before the name moves.

    Raises NotFoundError (`store.image_unknown`, `rebuild.no_lock`), UsageError `rebase.foreign`, `rebase.no_name`,
    `rebase.pinned`, `rebase.other_python`, what resolving, fetching and pulling raise, UnhealthyError `gate.failed`;
    the name points where it did then.
    """
    env = os.environ if env is None else env
    home = home or Home.from_env(env, uid=os.getuid())
    began_s = time.perf_counter()
    layout = Layout(home.store)
    access = Access.from_env(env)
    with (
        using(home.store),
        Downloader(access, offline=False, listen=listen) as downloads,
        scratch_in(home.cache) as scratch,
    ):
        named = layout.resolve(name)
        if not (tag := named.annotations.get(NAME_ANNOTATION, "")):
            raise UsageError(
                "rebase.no_name",
                f"`{name}` has no name that could move to the new image",
                hint="rebase a name (`corten images` lists them), or build it again",
            )
        shop = Workshop(layout, home.cache, access, downloads, False, time.perf_counter, listen)
        how = _Rebase(
            shop,
            Bases(layout, home.cache, lambda: session(plain_http=plain_http, ca=ca, env=env), listen),
            home,
            mirror or env.get("CORTEN_DEBIAN_MIRROR", "") or DEFAULT_MIRROR,
            env,
            time.time() if now_s is None else now_s,
            test,
        )
        platforms = [entry.digest for entry in layout.platforms(named.digest)] or [named.digest]
        done = [_one(how, layout.image(digest), scratch) for digest in platforms]
        after = _whole(layout, named, done)
        if after.digest != named.digest:
            layout.tag(tag, after)
    return Rebased(tag, named.digest, after.digest, tuple(done), time.perf_counter() - began_s)


def _one(how: _Rebase, image: Image, scratch: Path) -> RebasedImage:
    lock = lock_of(how.layout, image, scratch)
    count = check_base(image, single=lock.base is None)
    old, new, moved = _on_image(how, lock, lock.base, image) if lock.base else _on_debian(how, lock, image)
    if not moved:
        how.shop.listen(Event("rebase", Phase.DONE, f"{image.platform}: the base is the newest already"))
        return RebasedImage(image.platform, image.digest, image.digest, (), 0)
    manifest = _assembled(how.layout, image, count, moved.layers, old=old, new=new)
    rebased = how.layout.image(manifest.digest)
    _attach(how, rebased, manifest, moved.lock, new)
    if how.test and image.platform == Platform.of_machine():
        _check(how, rebased, manifest)
    elif how.test:
        how.shop.listen(Event("gate", Phase.WARNING, f"{image.platform} cannot run here and was not tested"))
    count_changed = len(moved.changes)
    told = f"{count_changed} package{'' if count_changed == 1 else 's'} changed" if count_changed else "another base"
    how.shop.listen(Event("rebase", Phase.DONE, f"{image.platform}: {told}"))
    size_bytes = sum(layer.size_bytes for layer in moved.layers)
    return RebasedImage(image.platform, image.digest, manifest.digest, moved.changes, size_bytes)


@dataclass(frozen=True, slots=True)
class _Moved:
    """A base that is newer than the one an image has: its lock, its layers, what changed in it."""

    lock: Lock
    layers: tuple[Layer, ...]
    changes: tuple[Change, ...]


def _on_debian(how: _Rebase, lock: Lock, image: Image) -> tuple[None, None, _Moved | None]:
    release = RELEASES.get(lock.release)
    if release is None:
        raise UsageError(
            "rebase.foreign",
            f"`{image.digest.short}` has a base this Corten does not know",
            why=f"its lock says `{lock.release}`",
            hint="build it from its source with this Corten",
        )
    debs = _newest(how, lock, release, image.platform)
    changed = changes(lock.debs, debs)
    if not changed:
        return None, None, None
    base = make_base(debs, release, image.platform, image.layers[0].compression, how.shop).layer
    return None, None, _Moved(replace(lock, debs=debs), (base,), changed)


def _on_image(how: _Rebase, lock: Lock, pin: Pin, image: Image) -> tuple[OciBase, OciBase, _Moved | None]:
    reference = Reference.parse(pin.reference)
    if reference.name != pin.reference:
        raise UsageError(
            "rebase.pinned",
            f"the base of `{image.digest.short}` is named by its digest alone",
            where=str(pin),
            why="a digest never leads to anything newer",
            hint=f"build it with a tag too: base = {pin.reference}:TAG@sha256:...",
        )
    newest = how.bases.pin(reference, image.platform, None, Rules())
    before = how.bases.obtain(pin, image.platform, asked=lock.python)
    after = before if newest == pin else how.bases.obtain(newest, image.platform, asked=lock.python)
    if newest.manifest == pin.manifest:
        return before, after, None
    check_python(before, after)
    compression = next(layer.compression for layer in image.layers if layer.kind is LayerKind.RUNTIME)
    above = make_accounts(after, [wheel.name for wheel in lock.wheels], compression, how.shop).layer
    moved = _Moved(replace(lock, base=newest), (*after.layers, above), packages_changed(before, after))
    return before, after, moved


def _newest(how: _Rebase, lock: Lock, release: Release, platform: Platform) -> tuple[Deb, ...]:
    """The packages of the release's base, and of whatever the user asked for besides, as they are now."""

    def resolve(packages: tuple[str, ...]) -> tuple[Deb, ...]:
        return debian.resolve(
            release,
            platform,
            packages=packages,
            mirror=how.mirror,
            cache=how.home.cache,
            now_s=how.now_s,
            listen=how.shop.listen,
            proxies=how.shop.access.proxies,
        )

    base = resolve(())
    # What was asked for is not written down, but everything that came of it is, and a release keeps its packages.
    besides = {deb.name for deb in lock.debs} - {deb.name for deb in base}
    return resolve(tuple(sorted(besides))) if besides else base


def _assembled(
    layout: Layout, image: Image, count: int, layers: Sequence[Layer], *, old: OciBase | None, new: OciBase | None
) -> Descriptor:
    manifest = json.loads(layout.read(image.digest))
    config = json.loads(layout.read(Digest.parse(manifest["config"]["digest"])))
    if old and new:
        config, manifest = on_other_base(config, manifest, old, new)
    described = layout.put(artifact.to_json(rebased_config(config, count, layers)), CONFIG)
    return layout.put(artifact.to_json(rebased_manifest(manifest, described, count, layers)), MANIFEST)


def _attach(how: _Rebase, image: Image, manifest: Descriptor, lock: Lock, beneath: OciBase | None) -> None:
    held = [
        contents.read(how.layout, layer, cache=how.home.cache)
        for layer in image.layers
        if beneath is None or layer.kind is not LayerKind.BASE
    ]
    sbom = sbom_json(image, _spec(image), lock, held, __version__, beneath=beneath)
    made = (
        Artifact(LOCK_TYPE, LOCK_FILE, locks.dumps([lock]).encode()),
        Artifact(SBOM_TYPE, "sbom.cdx.json", sbom),
    )
    before = [one.digest for one in how.layout.referrers(image.digest) if one.artifact_type in (LOCK_TYPE, SBOM_TYPE)]
    how.layout.attach(image.digest, [artifact.put(how.layout, one, manifest) for one in made], instead_of=before)


def _check(how: _Rebase, image: Image, manifest: Descriptor) -> None:
    spec = _spec(image)
    listen, began_s = how.shop.listen, time.perf_counter()
    listen(Event("gate", Phase.STARTED, spec.name))
    gate = run_gate(image.digest, spec, Settings(), home=how.home, env=how.env, listen=listen)
    figures = {"seconds": time.perf_counter() - began_s, "ready_s": gate.ready_s}
    listen(Event("gate", Phase.DONE, gate.told, figures))
    code = next(layer.digest for layer in image.layers if layer.kind is LayerKind.CODE)
    attach_gate(how.layout, manifest, name=spec.name, code=code, checks=gate.checks)


def _spec(image: Image) -> ModelSpec:
    return msgspec.json.decode(image.labels[SPEC_LABEL], type=ModelSpec)


def _whole(layout: Layout, named: Descriptor, done: Sequence[RebasedImage]) -> Descriptor:
    """What the name is to point at: the image, or an index again where it was one."""
    if named.media_type != INDEX:
        return layout.put(layout.read(done[0].after), MANIFEST)
    manifests = [(one.platform, layout.put(layout.read(one.after), MANIFEST)) for one in done]
    return layout.put(index_json(manifests), INDEX)
