"""Build an image again from its lock and from what lies in it, apart from the store, and compare every digest."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten import __version__
from corten.builder import artifact
from corten.builder import image as documents
from corten.builder import lock as locks
from corten.builder.artifact import LOCK_TYPE
from corten.builder.download import Downloader
from corten.builder.lock import LOCK_FILE, Lock
from corten.builder.pipeline import Workshop, make_layers
from corten.builder.plan import Plan
from corten.builder.rebuilding import built_by, plan_again
from corten.builder.remote import Access
from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.image import CONFIG, MANIFEST, Image, Layer, LayerKind
from corten.core.platform import Platform
from corten.errors import NotFoundError, PolicyError
from corten.ops.oci_base import Bases
from corten.ops.transfers import session
from corten.store.guard import using
from corten.store.layout import Layout
from corten.store.writing import translated


@dataclass(frozen=True, slots=True)
class Compared:
    """One layer as it is in the image and as it came out again; None where there is none."""

    kind: str
    title: str
    before: Digest | None
    after: Digest | None

    @property
    def same(self) -> bool:
        """Whether both are the same bytes."""
        return self.before == self.after


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An image's digest and that of its rebuild. `built_by` and `corten` are the versions of Corten that made them."""

    name: str
    before: Digest
    after: Digest
    layers: tuple[Compared, ...]
    built_by: str
    corten: str
    seconds: float

    @property
    def same(self) -> bool:
        """Whether the same manifest came out: the same layers, config and annotations."""
        return self.before == self.after

    @property
    def differing(self) -> tuple[Compared, ...]:
        """The layers that came out otherwise."""
        return tuple(layer for layer in self.layers if not layer.same)

    def verify(self) -> None:
        """Raise PolicyError `rebuild.differs` unless the same manifest came out."""
        if self.same:
            return
        layers = ", ".join(layer.title for layer in self.differing) or "none; the image's config or manifest"
        other = f"; it was built by Corten {self.built_by}, this is {self.corten}"
        raise PolicyError(
            "rebuild.differs",
            f"`{self.name}` does not come out the same",
            where=str(self.before),
            why=f"the rebuild is {self.after}; layers that differ: {layers}"
            + (other if self.built_by != self.corten else ""),
            hint=self._hint(),
        )

    def _hint(self) -> str:
        if self.built_by != self.corten:
            return "rebuild with the Corten that built it"
        if [layer.kind for layer in self.differing] == [LayerKind.RUNTIME.value]:
            # A development checkout changes without changing its version.
            return "only the server differs: rebuild with exactly the Corten that built it, or do not trust the image"
        return "do not trust the image until you know why: build it from its source and compare by `corten diff`"

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "name": self.name,
            "same": self.same,
            "before": str(self.before),
            "after": str(self.after),
            "built_by": self.built_by,
            "corten": self.corten,
            "seconds": round(self.seconds, 3),
            "layers": [
                {
                    "kind": layer.kind,
                    "title": layer.title,
                    "before": str(layer.before or ""),
                    "after": str(layer.after or ""),
                    "same": layer.same,
                }
                for layer in self.layers
            ],
        }


def rebuild(
    image: str,
    *,
    home: Home | None = None,
    platform: Platform | None = None,
    offline: bool = False,
    plain_http: bool = False,
    ca: str | Path | None = None,
    listen: Listener = nobody,
    env: Mapping[str, str] | None = None,
) -> Rebuilt:
    """Build an image of the store again in a scratch store and compare.

    Debian packages, wheels and the image it stands on come by the lock attached to it (from cache or store, else from
    where it says; `ca` and `plain_http` as for `pull`), weights and code out of its own layers. Nothing gets a name.
    Raises NotFoundError `store.image_unknown`, `rebuild.no_lock`; UsageError `rebuild.foreign`; what building raises.
    """
    env = os.environ if env is None else env
    home = home or Home.from_env(env, uid=os.getuid())
    layout = Layout(home.store)
    began_s = time.perf_counter()
    seen = layout.image(layout.resolve(image).digest, platform)
    with using(home.store), scratch_in(home.cache) as scratch:
        lock = lock_of(layout, seen, scratch)
        bases = Bases(
            layout, home.cache, lambda: session(plain_http=plain_http, ca=ca, env=env), listen, offline=offline
        )
        beneath = bases.obtain(lock.base, seen.platform, asked=lock.python) if lock.base else None
        plan = plan_again(seen, lock, layout, scratch, beneath)
        listen(Event("rebuild", Phase.STARTED, f"{plan.name}@{seen.digest}"))
        for layer in beneath.layers if beneath else ():
            _check_blob(layout, layer)
        digest, layers = _built(plan, home, scratch, Access.from_env(env), offline=offline, listen=listen)
    took_s = time.perf_counter() - began_s
    compared = _compared(seen, layers)
    listen(Event("rebuild", Phase.DONE, f"{plan.name}@{digest}", {"seconds": took_s}))
    return Rebuilt(plan.name, seen.digest, digest, compared, built_by(seen), __version__, took_s)


@contextmanager
def scratch_in(cache: Path) -> Iterator[Path]:
    """A folder that is gone when the block ends."""
    with translated(cache, "make a scratch folder"):
        cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="rebuild-", dir=cache))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def lock_of(layout: Layout, image: Image, scratch: Path) -> Lock:
    """The lock attached to an image; `scratch` is a folder to write to. Raises NotFoundError `rebuild.no_lock`."""
    data = artifact.attached(layout, image.digest, LOCK_TYPE)
    if data is not None:
        path = scratch / LOCK_FILE
        path.write_bytes(data)
        for lock in locks.read(path):
            if lock.platform == image.platform:
                return lock
    raise NotFoundError(
        "rebuild.no_lock",
        f"no lock is attached to `{image.digest.short}`",
        where=str(layout.root),
        why="without it nobody knows which packages it was made of",
        hint="build it again from its source, or pull it together with what is attached to it",
    )


def _check_blob(layout: Layout, layer: Layer) -> None:
    """Those layers are not made again; that they are what they are called is all there is to prove."""
    if (seen := Digest.of_file(layout.path(layer.digest))) != layer.digest:
        raise layout.quarantine(layer.digest, seen)


def _built(
    plan: Plan, home: Home, scratch: Path, access: Access, *, offline: bool, listen: Listener
) -> tuple[Digest, tuple[Layer, ...]]:
    cache = scratch / "cache"
    cache.mkdir()
    # Downloads are shared (each is checked against the lock again), layers are not: they are what is to be proved.
    for kept in ("wheels", "debs"):
        (home.cache / kept).mkdir(exist_ok=True)
        (cache / kept).symlink_to(home.cache / kept)
    store = Layout(scratch / "store")
    with Downloader(access, offline=offline, listen=listen) as downloads:
        shop = Workshop(store, cache, access, downloads, offline, time.perf_counter, listen)
        layers = tuple(made.layer for made in make_layers(plan, shop))
    config = store.put(documents.config_json(plan, layers), CONFIG)
    return store.put(documents.manifest_json(config, layers, documents.base_notes(plan)), MANIFEST).digest, layers


def _compared(image: Image, layers: Sequence[Layer]) -> tuple[Compared, ...]:
    """Layers side by side, by what they hold; those only one of the two has come last."""
    before = {(layer.kind.value, layer.title): layer.digest for layer in image.layers}
    after = {(layer.kind.value, layer.title): layer.digest for layer in layers}
    return tuple(Compared(*key, before.get(key), after.get(key)) for key in dict.fromkeys((*before, *after)))
