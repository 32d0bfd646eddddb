"""Remove what nothing reaches any more: content of the store, unpacked layers, old downloads."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.control.retention import images_in_use, secrets_in_use
from corten.control.vault import Vault
from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.image import Image
from corten.engine.record import Record, ReplicaFolder
from corten.errors import CortenError, UsageError
from corten.store import gc as store_gc
from corten.store import gc_trees
from corten.store.gc_cache import Cached, to_remove
from corten.store.gc_trees import Reach, TreesRemoval
from corten.store.guard import collecting
from corten.store.layout import Layout
from corten.store.trees import Trees

KEEP = 5
CACHE_BYTES = 10_000_000_000
CACHE_AGE_S = 60 * 86_400.0
# Locks make builds without a project folder repeatable, and cost nothing.
_NEVER = ("locks",)
# uv keeps its own books in there; half of it would be neither cache nor empty.
_WHOLE = ("uv",)


@dataclass(frozen=True, slots=True)
class Collected:
    """What was removed, or (`dry_run`) would be; sizes in bytes."""

    dry_run: bool
    manifests: int
    blobs: int
    blob_bytes: int
    trees: int
    tree_bytes: int
    cached: int
    cache_bytes: int

    @property
    def freed_bytes(self) -> int:
        """All of it."""
        return self.blob_bytes + self.tree_bytes + self.cache_bytes

    def as_dict(self) -> dict[str, Any]:
        """The result as it stands in `--json` output."""
        return {
            "dry_run": self.dry_run,
            "freed_bytes": self.freed_bytes,
            "store": {"manifests": self.manifests, "blobs": self.blobs, "bytes": self.blob_bytes},
            "trees": {"folders": self.trees, "bytes": self.tree_bytes},
            "cache": {"items": self.cached, "bytes": self.cache_bytes},
        }


def gc(
    *,
    home: Home | None = None,
    keep: int = KEEP,
    cache_bytes: int = CACHE_BYTES,
    dry_run: bool = False,
    now_s: float | None = None,
    listen: Listener = nobody,
) -> Collected:
    """Remove what no name, no deployment's `keep` newest revisions and no replica leads to, secrets among it.

    The download cache is cut to `cache_bytes`, least recently used first. Builds, imports and deploys wait meanwhile,
    and it waits for them; what runs goes on running. Killed at any moment it leaves everything valid.

    Raises UsageError for a negative number, CortenError `store.busy`, `trees.busy`, `state.*`, `store.malformed`,
    PolicyError `store.blob_corrupt`; nothing that is in use has been removed then.
    """
    if keep < 1 or cache_bytes < 0:
        raise UsageError("gc.bad_number", "keep at least one revision and zero bytes", why=f"{keep}, {cache_bytes}")
    home = home or Home.from_env(os.environ, uid=os.getuid())
    now_s = time.time() if now_s is None else now_s
    layout = Layout(home.store)
    with collecting(home.store):
        records = tuple(_replicas(home.replicas))
        wanted = images_in_use(home, keep) | {record.image for record in records}
        contents = store_gc.read(layout, wanted)
        removal = store_gc.plan(contents, wanted, now_s=now_s)
        reach = _reach(layout, home, removal.reached & contents.documents.keys() | wanted, records)
        if not dry_run:
            store_gc.remove(layout, removal)
            layout.sweep(now_s=now_s)
            Vault(home.secrets).sweep(secrets_in_use(home, keep))
        _said(listen, "store", f"{len(removal.entries)} manifests, {len(removal.blobs)} blobs", removal.freed_bytes)
        trees = gc_trees.collect(Trees(layout, home.trees), reach, dry_run=dry_run)
        _said(listen, "trees", _described(trees), trees.freed_bytes)
        cached = to_remove(_cached(home.cache), now_s=now_s, most_bytes=cache_bytes, oldest_s=CACHE_AGE_S)
        if not dry_run:
            _remove(cached)
    cut_bytes = sum(one.size_bytes for one in cached)
    _said(listen, "cache", f"{len(cached)} downloads", cut_bytes)
    return Collected(
        dry_run=dry_run,
        manifests=len(removal.entries),
        blobs=len(removal.blobs),
        blob_bytes=removal.freed_bytes,
        trees=len(trees.paths),
        tree_bytes=trees.freed_bytes,
        cached=len(cached),
        cache_bytes=cut_bytes,
    )


def _replicas(folder: Path) -> Iterator[Record]:
    """What the engine wrote down of replicas whose end it has not seen, also of those the control plane forgot."""
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            record = ReplicaFolder(path).read()
            if record and record.exit_code is None:
                yield record


def _reach(layout: Layout, home: Home, documents: frozenset[Digest], records: tuple[Record, ...]) -> Reach:
    """What has to stay unpacked: by the manifests, by the records of what was unpacked, by those of the replicas."""
    chains = frozenset(record.chain for record in records)
    images = gc_trees.reach_of(_images(layout, documents))
    return images | gc_trees.recorded_reach(home.trees, documents) | Reach(chains=chains)


def _images(layout: Layout, documents: frozenset[Digest]) -> Iterator[Image]:
    for digest in sorted(documents):
        with suppress(CortenError):  # an artifact, an index, an image that lost its config: nothing can be unpacked
            yield layout.image(digest)


def _cached(cache: Path) -> Iterator[Cached]:
    with suppress(FileNotFoundError):
        for folder in cache.iterdir():
            if folder.name in _NEVER:
                continue
            items = [folder] if folder.name in _WHOLE or not folder.is_dir() else folder.iterdir()
            for item in items:
                yield _measured(item)


def _measured(path: Path) -> Cached:
    """Size and last use of a file or of everything in a folder."""
    size, used_s = 0, 0.0
    for found in (path, *path.rglob("*")) if path.is_dir() else (path,):
        with suppress(FileNotFoundError):
            seen = found.lstat()
            size += seen.st_size if not found.is_dir() else 0
            # Reading counts as use where the file system notes it (relatime: once a day).
            used_s = max(used_s, seen.st_mtime, 0.0 if found.is_dir() else seen.st_atime)
    return Cached(path, size, used_s)


def _remove(cached: tuple[Cached, ...]) -> None:
    for one in cached:
        if one.path.is_dir():
            shutil.rmtree(one.path, ignore_errors=True)
        else:
            with suppress(OSError):
                one.path.unlink()


def _described(trees: TreesRemoval) -> str:
    return ", ".join(f"{count} {folder}" for folder, count in trees.counts.items() if count) or "nothing"


def _said(listen: Listener, step: str, what: str, size_bytes: int) -> None:
    listen(Event(step, Phase.DONE, f"{what}, {size_bytes / 1e6:.1f} MB", {"bytes": size_bytes, "seconds": None}))
