"""Unpacked layers the embedded engine runs from.

::

    layers/DIFF_ID     one layer as it is in its tar
    roots/CHAIN_ID     base, wheels and runtime layers merged by hard links: a root file system
    images/DIGEST.json what an image needs of these; written last
    tmp/               unfinished; whatever lies there while nobody holds `lock` was left by a killed process

A folder appears by a rename once it is complete and on disk. Weights and code are not merged but mounted, so a
revision that changes only these copies and links nothing.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from corten.core.digest import Digest
from corten.core.image import Image, Layer, LayerKind
from corten.errors import CortenError, NotFoundError
from corten.store.merge import Listing, Mount, listing, merge, opened_folder, plan_mounts
from corten.store.unpack import unpack
from corten.store.untar import opened
from corten.store.writing import atomic_write, sync_folder, translated

# What a runner mounts on: must be real folders in every root.
_MOUNT_POINTS: Final = ("proc", "sys", "dev", "run", "run/corten", "tmp", "app", "models", "var", "var/cache")
_MOUNT_FILES: Final = ("resolv.conf", "hosts")  # in /etc
PYCACHE: Final = "var/cache/python"
# The folders weights and code live in (ARCHITECTURE.md, "Image").
_MOUNTED_TOPS: Final = ("app", "models")
_MOUNTED_KINDS: Final = (LayerKind.WEIGHTS, LayerKind.CODE)
_THREADS: Final = 2
_RECORD_FORMAT: Final = 1


class Blobs(Protocol):
    """Where stored layers are: `store.layout.Layout`."""

    def path(self, digest: Digest, /) -> Path:
        """The file of a blob, whether it is there or not."""
        ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image ready to run: its root, and what to mount over it (`folders` first, as empty folders).

    `chain` identifies the root's content: the OCI chain id of the merged layers.
    """

    root: Path
    chain: Digest
    folders: tuple[str, ...]
    mounts: tuple[Mount, ...]


class Trees:
    """The unpacked layers of one installation. Safe for several processes and threads; survives kill -9.

    `monotonic` and `sleep` are the clock for waiting on another process that unpacks.
    """

    def __init__(
        self,
        blobs: Blobs,
        root: Path,
        *,
        wait_s: float = 600.0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = root
        self._blobs = blobs
        self._wait_s = wait_s
        self._monotonic = monotonic
        self._sleep = sleep

    def prepare(self, image: Image) -> Prepared:
        """Unpack and merge what is not there yet. Costs one small file read when all is.

        Raises NotFoundError `store.blob_missing`, PolicyError `layer.*`, CortenError `store.disk_full`,
        `store.write_failed`, `trees.busy`; nothing half-made is visible then.
        """
        if prepared := self._known(image):
            return prepared
        with translated(self.root, f"unpack image {image.digest.short}"), self._locked():
            if prepared := self._known(image):
                return prepared
            self._sweep()
            self._unpack_missing(image.layers)
            prepared = self._merged(image)
            self._record(image, prepared)
        return prepared

    def root_of(self, chain: Digest) -> Path:
        """Where the root of a chain is, or would be."""
        return self.root / "roots" / chain.hex

    def view(self, image: Image, prepared: Prepared) -> Path:
        """A folder with `app` and `models` as the image has them, for runners that cannot mount.

        Made of hard links on first use; the root itself when nothing of it is mounted. Raises as `prepare`.
        """
        if not prepared.mounts:
            return prepared.root
        view = self.root / "views" / image.digest.hex
        if view.is_dir():
            return view
        with translated(self.root, f"lay out image {image.digest.short}"), self._locked():
            if not view.is_dir():
                self._sweep()
                self._lay_out(image, image.digest.hex)
                self._publish({image.digest.hex: view})
        return view

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep everybody else from unpacking while the block runs; what killed ones left is gone then.

        Raises CortenError `trees.busy`.
        """
        with self._locked():
            self._sweep()
            yield

    # -- what is there

    def _layer(self, layer: Layer) -> Path:
        return self.root / "layers" / layer.diff_id.hex

    def _image(self, image: Image) -> Path:
        return self.root / "images" / f"{image.digest.hex}.json"

    def _known(self, image: Image) -> Prepared | None:
        try:
            document = json.loads(self._image(image).read_bytes())
            if document["format"] != _RECORD_FORMAT:
                return None
            chain = Digest(document["chain"])
            prepared = Prepared(
                root=self.root_of(chain),
                chain=chain,
                folders=tuple(document["folders"]),
                mounts=tuple(Mount(self.root / source, target) for source, target in document["mounts"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None  # never prepared, or by another version: made again
        paths = (prepared.root, *(mount.source for mount in prepared.mounts))
        return prepared if all(os.path.lexists(path) for path in paths) else None

    def _record(self, image: Image, prepared: Prepared) -> None:
        document = {
            "format": _RECORD_FORMAT,
            "chain": prepared.chain.hex,
            "folders": prepared.folders,
            "mounts": [(str(mount.source.relative_to(self.root)), mount.target) for mount in prepared.mounts],
        }
        path = self._image(image)
        path.parent.mkdir(exist_ok=True)
        atomic_write(path, json.dumps(document).encode(), self.root / "tmp")

    # -- making

    def _unpack_missing(self, layers: Sequence[Layer]) -> None:
        missing = {layer.diff_id: layer for layer in layers if not self._layer(layer).is_dir()}
        failed = threading.Event()

        def check() -> None:
            if failed.is_set():
                raise _StoppedError

        def one(layer: Layer) -> None:
            try:
                self._unpack(layer, check)
            except BaseException:
                failed.set()
                raise

        # The largest first: two threads end together more often.
        order = sorted(missing.values(), key=lambda layer: -layer.tar_bytes)
        with ThreadPoolExecutor(_THREADS, "unpack") as pool:
            errors = [work.exception() for work in [pool.submit(one, layer) for layer in order]]
        for error in errors:
            if error and not isinstance(error, _StoppedError):
                raise error
        if missing:
            self._publish({layer.diff_id.hex: self._layer(layer) for layer in missing.values()})

    def _unpack(self, layer: Layer, check: Callable[[], None]) -> None:
        check()
        unfinished = self._unfinished(layer.diff_id.hex)
        unfinished.mkdir()
        blob = self._blobs.path(layer.digest)
        try:
            with opened(blob, layer) as tar, opened_folder(unfinished) as folder:
                os.fchmod(folder, 0o755)
                unpack(tar, layer, folder, check=check)
        except FileNotFoundError as error:
            raise NotFoundError(
                "store.blob_missing",
                f"layer `{layer.title}` is not in the store",
                where=str(error.filename or blob),
                hint="build or pull the image again",
            ) from error

    def _merged(self, image: Image) -> Prepared:
        trees = [self._listed(layer) for layer in image.layers]
        first = first_mounted(image.layers, trees)
        chain = chain_id([layer.diff_id for layer in image.layers[:first]])
        root = self.root_of(chain)
        if not root.is_dir():
            unfinished = self._unfinished(chain.hex)
            unfinished.mkdir()
            with opened_folder(unfinished) as folder:
                os.fchmod(folder, 0o755)
                for layer in image.layers[:first]:
                    with opened_folder(self._layer(layer)) as source:
                        merge(source, folder)
                _add_mount_points(folder)
            self._publish({chain.hex: root})
        with opened_folder(root) as folder:
            base = _listed_tops(folder)
        above = [(self._layer(layer), tree) for layer, tree in zip(image.layers, trees, strict=True)][first:]
        plan = plan_mounts([(root, base), *above], _MOUNTED_TOPS)
        return Prepared(root, chain, plan.folders, plan.mounts)

    def _lay_out(self, image: Image, name: str) -> None:
        first = first_mounted(image.layers, [self._listed(layer) for layer in image.layers])
        unfinished = self._unfinished(name)
        unfinished.mkdir()
        with opened_folder(unfinished) as folder:
            os.fchmod(folder, 0o755)
            for layer in image.layers[first:]:
                with opened_folder(self._layer(layer)) as source:
                    merge(source, folder)
            for top in _MOUNTED_TOPS:
                with _real_folder(folder, top):
                    pass

    def _listed(self, layer: Layer) -> Listing:
        if layer.kind not in _MOUNTED_KINDS:
            return {}
        with opened_folder(self._layer(layer)) as folder:
            return listing(folder)

    def _unfinished(self, name: str) -> Path:
        return self.root / "tmp" / name

    def _publish(self, finished: dict[str, Path]) -> None:
        """Let complete folders appear: first their content on disk, then their names."""
        _sync_file_system(self.root)
        for name, path in finished.items():
            path.parent.mkdir(exist_ok=True)
            path.parent.chmod(0o755)  # whatever the umask: runners walk through as another user
            self._unfinished(name).rename(path)
        for parent in {path.parent for path in finished.values()}:
            sync_folder(parent)

    # -- one at a time

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process unpacks at a time. Each call opens the file anew, so threads exclude each other as well."""
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(descriptor)
            try:
                yield
            except BaseException:
                with suppress(OSError):
                    self._sweep()  # at once: what is unfinished may be what fills the disk
                raise
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        deadline_s = self._monotonic() + self._wait_s
        while self._monotonic() <= deadline_s:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            self._sleep(0.02)
        raise CortenError(
            "trees.busy",
            "another process has been unpacking images all the time",
            where=str(self.root),
            why=f"waited {self._wait_s:.0f} s for its lock",
            hint="look for a hanging `corten` process",
        )

    def _sweep(self) -> None:
        """Remove what is unfinished. Only under the lock: then nobody works on it."""
        unfinished = self.root / "tmp"
        if unfinished.is_dir():
            # Renamed first, so that even a removal cut short leaves no name in use.
            away = self.root / f".swept-{secrets.token_hex(4)}"
            unfinished.rename(away)
        for swept in self.root.glob(".swept-*"):
            shutil.rmtree(swept, ignore_errors=True)
        unfinished.mkdir()


class _StoppedError(Exception):
    """Another layer failed; this one need not be finished."""


def chain_id(diff_ids: Sequence[Digest]) -> Digest:
    """The identity of layers laid over each other (image-spec, config.md, "Layer ChainID")."""
    chain = diff_ids[0] if diff_ids else Digest.of(b"")
    for diff_id in diff_ids[1:]:
        chain = Digest.of(f"{chain} {diff_id}".encode())
    return chain


def first_mounted(layers: Sequence[Layer], trees: Sequence[Listing]) -> int:
    """The first of the uppermost layers that can be mounted instead of merged; len(layers) when none can.

    Those are weights and code that stay within /models and /app; anything else above them has to be merged over them.
    """
    first = len(layers)
    for layer, tree in zip(reversed(layers), reversed(trees), strict=True):
        if layer.kind not in _MOUNTED_KINDS or any(name not in _MOUNTED_TOPS for name in tree):
            break
        if any(tree[name] is None for name in tree):
            break
        first -= 1
    return first


def _listed_tops(root: int) -> Listing:
    found: dict[str, Listing | None] = {}
    for name in _MOUNTED_TOPS:
        with _real_folder(root, name) as descriptor:
            found[name] = listing(descriptor)
    return found


def _add_mount_points(root: int) -> None:
    """Make what runners mount on, as real folders: through a symlink of the image we would write anywhere."""
    for name in (*_MOUNT_POINTS, PYCACHE):
        with _real_folder(root, name):
            pass
    with _real_folder(root, "etc") as etc:
        for name in _MOUNT_FILES:
            with suppress(FileNotFoundError):
                if stat.S_ISREG(os.stat(name, dir_fd=etc, follow_symlinks=False).st_mode):
                    continue
                os.unlink(name, dir_fd=etc)
            made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=etc)
            os.fchmod(made, 0o644)
            os.close(made)


@contextmanager
def _real_folder(root: int, name: str) -> Iterator[int]:
    """Open the folder `name` below `root`, made if missing and open to all, without walking through a link."""
    with ExitStack() as opened_ones:
        folder = root
        for part in name.split("/"):
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=folder)
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                folder = os.open(part, flags, dir_fd=folder)
            except OSError as error:
                raise CortenError(
                    "trees.mount_point",
                    f"the image has no folder `/{name}` to mount on",
                    why=f"`{part}` is a link or a file there",
                    hint="use a base in which it is a plain folder",
                ) from error
            opened_ones.callback(os.close, folder)
            os.fchmod(folder, 0o755)
        yield folder


def _sync_file_system(folder: Path) -> None:
    """Bring everything written to this file system to disk: one syncfs(2) costs less than an fsync for each file."""
    with opened_folder(folder) as descriptor:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(folder))
