"""Come by an image to build on: pinned by digest, its layers in the store, its Python known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from corten.builder.debian.release import RELEASES, Release
from corten.builder.layer import cache_key
from corten.builder.lock import Lock, Pin
from corten.builder.locking import Rules
from corten.builder.oci_base import Facts, OciBase, as_base, choose_python
from corten.builder.oci_base_facts import FORMAT, read_facts
from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase
from corten.core.image import MANIFEST, MANIFESTS, Descriptor, Image, Layer
from corten.core.platform import Platform
from corten.core.reference import Reference
from corten.errors import CortenError, UsageError
from corten.registry.client import Repository
from corten.registry.documents import Manifest
from corten.registry.local import LocalSource, LocalTarget
from corten.registry.remote import RemoteSource
from corten.registry.session import Session
from corten.registry.transfer import Freight, transfer
from corten.store.layout import Layout
from corten.store.writing import atomic_write, translated

_STEP = "base"


@dataclass(frozen=True, slots=True)
class _Read:
    """What reading a base gave; kept in the cache, because the same digest says the same for ever."""

    layers: tuple[Layer, ...]
    env: Mapping[str, str]
    facts: Facts


class Bases:
    """Finds bases in the store and in registries. `talk` opens a session with registries; `offline` forbids it.

    One object a command: what a tag leads to is asked once, so that all platforms get the same.
    """

    def __init__(
        self, layout: Layout, cache: Path, talk: Callable[[], Session], listen: Listener, *, offline: bool = False
    ) -> None:
        self._layout = layout
        self._cache = cache
        self._talk = talk
        self._listen = listen
        self._offline = offline
        self._roots: dict[Reference, Manifest] = {}

    def pin(self, reference: Reference, platform: Platform, known: Pin | None, rules: Rules) -> Pin:
        """What a reference means on a platform: as a lock has it (`known`), or else as the registry has it now.

        Raises UsageError `build.lock_outdated` (a tag, not in the lock, under --locked), `build.offline`,
        `base.wrong_platform`; what the registry client raises.
        """
        if known and known.reference == reference.name and reference.digest in (None, known.digest) and not rules.anew:
            return known
        if reference.digest is None and (rules.locked or rules.frozen):
            raise UsageError(
                "build.lock_outdated",
                f"`{reference.name}` is not pinned",
                why="a tag can move, the lock does not say which image it was, and "
                f"--{'locked' if rules.locked else 'frozen'} forbids changing the lock",
                hint=f"build without it once, or give the digest: base = {reference.name}@sha256:...",
            )
        root = self._roots.get(reference) or self._root(reference)
        self._roots[reference] = root
        return Pin(reference.name, root.digest, _of_platform(root, platform, reference))

    def obtain(self, pin: Pin, platform: Platform, *, asked: str = "", preferred: str = "") -> OciBase:
        """The pinned base, its layers in the store. `asked` is the Python it must have, `preferred` which to take.

        Raises UsageError `base.no_python`, `base.wrong_platform`, `build.offline`; NotFoundError `registry.unknown`;
        PolicyError `layer.*`, `registry.digest_mismatch`; what the registry client raises.
        """
        place = self._cache / "bases" / f"{cache_key('base', str(FORMAT), str(platform), str(pin.manifest))}.json"
        read = self._kept(place)
        if read is None:
            self._fetch(pin)
            image = self._layout.image(pin.manifest)
            _check_platform(image, platform, pin)
            self._listen(Event(_STEP, Phase.STARTED, f"reading {pin.reference}"))
            facts, layers = read_facts(self._layout, image.layers, image.env, platform)
            read = _Read(layers, dict(image.env), facts)
            with translated(place, "write the cache"):
                place.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(place, msgspec.json.encode(read))
        python = choose_python(read.facts, pin, asked=asked, preferred=preferred)
        base = OciBase(pin, as_base(read.layers, pin), read.env, read.facts, python)
        figures = {"digest": str(pin.digest), "manifest": str(pin.manifest), "python": python.version}
        self._listen(Event(_STEP, Phase.DONE, f"{base.title}, Python {python.version} at {python.program}", figures))
        return base

    def _kept(self, place: Path) -> _Read | None:
        """What was read before, as long as every layer is still there."""
        try:
            read = msgspec.json.decode(place.read_bytes(), type=_Read)
            sound = all(self._layout.path(one.digest).stat().st_size == one.size_bytes for one in read.layers)
        except (OSError, msgspec.DecodeError):
            return None
        return read if sound else None

    def _root(self, reference: Reference) -> Manifest:
        """What a reference leads to: an index or an image."""
        if reference.digest and self._layout.has(reference.digest):
            return LocalSource(self._layout).manifest(Descriptor(MANIFEST, reference.digest, 0))
        if not self._offline:
            with self._talk() as session:
                return session.reading(reference).manifest(reference.version)
        with suppress(CortenError):
            named = self._layout.resolve(reference.name)
            return LocalSource(self._layout).manifest(named)
        raise _offline(reference.name)

    def _fetch(self, pin: Pin) -> None:
        """Bring manifest, config and layers into the store; what is there is not fetched."""
        local = LocalSource(self._layout)
        if self._layout.has(pin.manifest):
            manifest = local.manifest(Descriptor(MANIFEST, pin.manifest, 0))
            if all(self._has(blob) for blob in manifest.blobs):
                return
        if self._offline:
            raise _offline(str(pin))
        reference = Reference.parse(f"{pin.reference}@{pin.manifest}")
        with self._talk() as session:
            repository = session.reading(reference)
            self._listen(Event(_STEP, Phase.STARTED, str(reference)))
            if pin.digest != pin.manifest:
                _check_index(pin, repository.manifest(str(pin.digest)))
            self._pull(repository, session, repository.manifest(str(pin.manifest)))

    def _pull(self, repository: Repository, session: Session, manifest: Manifest) -> None:
        target = LocalTarget(self._layout, (), session.retries, session.stop)
        moved = transfer(
            RemoteSource(repository),
            target,
            Freight((manifest,), ()),
            step=_STEP,
            listen=self._listen,
            stop=session.stop,
        )
        told = f"pulled {moved.sent_bytes / 1e6:.1f} MB in {moved.blobs_sent} blobs"
        self._listen(Event(_STEP, Phase.NOTE, told, {"bytes": moved.sent_bytes}))

    def _has(self, blob: Descriptor) -> bool:
        with suppress(OSError):
            return self._layout.path(blob.digest).stat().st_size == blob.size_bytes
        return False


def base_of(lock: Lock, bases: Bases) -> Release | OciBase:
    """What an image with this lock stands on. Raises UsageError `lock.broken` for a base nobody knows."""
    if lock.base:
        return bases.obtain(lock.base, lock.platform, asked=lock.python)
    if release := RELEASES.get(lock.release):
        return release
    raise UsageError(
        "lock.broken",
        "the lock has a base this Corten does not know",
        why=f"its release is `{lock.release[:60]}`, known: {', '.join(RELEASES)}",
        hint="delete the lock to lock anew",
    )


def _of_platform(root: Manifest, platform: Platform, reference: Reference) -> Digest:
    """The manifest of a platform in an index; an image's own."""
    if not root.children:
        return root.digest
    for child in root.children:
        if child.platform == platform and child.media_type in MANIFESTS:
            return child.digest
    there = ", ".join(sorted({str(child.platform) for child in root.children if child.platform})) or "no platform"
    raise _wrong_platform(reference.name, platform, there)


def _check_index(pin: Pin, index: Manifest) -> None:
    """A lock may come from a stranger: what it calls an image of an index must be one, or the index proves nothing."""
    if pin.manifest not in [child.digest for child in index.children]:
        raise UsageError(
            "lock.broken",
            f"the lock's base `{pin.manifest}` is not in `{pin}`",
            why="the index lists " + ", ".join(child.digest.short for child in index.children[:8]),
            hint="take the lock back from version control, or delete it to lock anew",
        )


def _check_platform(image: Image, platform: Platform, pin: Pin) -> None:
    if image.platform != platform:
        raise _wrong_platform(str(pin), platform, str(image.platform))


def _wrong_platform(name: str, platform: Platform, there: str) -> UsageError:
    return UsageError(
        "base.wrong_platform",
        f"the base `{name}` is not there for {platform}",
        why=f"it is for {there}",
        hint="take a base of that platform, or build for the base's: --platform",
    )


def _offline(name: str) -> UsageError:
    return UsageError(
        "build.offline",
        f"the base `{name}` is not in the store",
        why="it would have to be pulled, and --offline forbids it",
        hint=f"corten pull {name}",
    )
