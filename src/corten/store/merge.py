"""Lay layers over each other: by hard links into one root, or as a plan of read-only mounts.

Both follow the image spec's rules for layers (layer.md): an entry replaces the one below it, folders join, `.wh.NAME`
hides NAME below and `.wh..wh..opq` all that is below in its folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# No hard links here (EPERM, ENOTSUP: the file system; EMLINK: 65,000 on ext4): then a copy has to do.
_NO_LINK = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV)


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of this machine and where a replica finds it, read-only."""

    source: Path
    target: str


@dataclass(frozen=True, slots=True)
class MountPlan:
    """`mounts`, and the `folders` (targets) that hold several of them and must be made first, outermost first."""

    folders: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()


# A folder's content by name; None stands for what is no folder.
Listing = Mapping[str, "Listing | None"]


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """An open folder to work below."""
    descriptor = os.open(path, _FOLDER_FLAGS)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def merge(layer: int, root: int) -> None:
    """Lay an unpacked layer over what is in `root`, by hard links. Both are open folders; `layer` stays as it is."""
    with os.scandir(layer) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    if any(entry.name == _OPAQUE for entry in entries):
        for name in os.listdir(root):
            _remove(name, root)
    for entry in entries:
        if entry.name.startswith(_WHITEOUT):
            _hide(entry.name.removeprefix(_WHITEOUT), root)
    for entry in entries:
        if entry.name.startswith(_WHITEOUT):
            continue
        if entry.is_dir(follow_symlinks=False):
            _join(entry.name, layer, root)
        else:
            _link(entry.name, layer, root)


def listing(folder: int) -> Listing:
    """All names below an open folder."""
    found: dict[str, Listing | None] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                below = os.open(entry.name, _FOLDER_FLAGS, dir_fd=folder)
                try:
                    found[entry.name] = listing(below)
                finally:
                    os.close(below)
            else:
                found[entry.name] = None
    return found


def plan_mounts(stack: Sequence[tuple[Path, Listing]], tops: Sequence[str]) -> MountPlan:
    """How to show the folders `tops` of several trees (lowest first) in one without copying a byte. Pure.

    The lowest tree is the root itself, which is there anyway. A folder that only one tree provides is mounted whole,
    so a thousand code files cost one mount; one that several provide is made and filled entry by entry.
    """
    folders: list[str] = []
    mounts: list[Mount] = []

    def place(target: str, layers: Sequence[tuple[Path, Listing | None]]) -> None:
        source, top = layers[-1]
        providers = _visible(layers)
        if top is None or (len(providers) == 1 and not _has_whiteouts(top)):
            mounts.append(Mount(source, target))
            return
        folders.append(target)
        for name, below in _children(providers):
            place(f"{target}/{name}", below)

    root = stack[0][0]
    for name in tops:
        layers = [(path / name, tree[name]) for path, tree in stack if name in tree]
        layers = [(path, tree) for path, tree in layers if path != root / name or tree]
        if layers and layers != [(root / name, stack[0][1].get(name))]:
            place(f"/{name}", layers)
    return MountPlan(tuple(folders), tuple(mounts))


def _visible(layers: Sequence[tuple[Path, Listing | None]]) -> list[tuple[Path, Listing]]:
    """The folders that shine through, lowest first: nothing below a file or an opaque folder does."""
    seen: list[tuple[Path, Listing]] = []
    for path, tree in reversed(layers):
        if tree is None:
            break
        seen.append((path, tree))
        if _OPAQUE in tree:
            break
    return seen[::-1]


def _children(providers: Sequence[tuple[Path, Listing]]) -> Iterator[tuple[str, list[tuple[Path, Listing | None]]]]:
    names = sorted({name for _, tree in providers for name in tree if not name.startswith(_WHITEOUT)})
    for name in names:
        below: list[tuple[Path, Listing | None]] = []
        for path, tree in providers:
            if _WHITEOUT + name in tree:
                below.clear()
            if name in tree:
                below.append((path / name, tree[name]))
        if below:
            yield name, below


def _has_whiteouts(tree: Listing) -> bool:
    return any(
        name.startswith(_WHITEOUT) or (below is not None and _has_whiteouts(below)) for name, below in tree.items()
    )


def _hide(name: str, root: int) -> None:
    # The unpacker refused these; a `..` here would reach above the root.
    if name not in ("", ".", "..") and not name.startswith(_WHITEOUT):
        _remove(name, root)


def _remove(name: str, root: int) -> None:
    try:
        os.unlink(name, dir_fd=root)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        shutil.rmtree(name, dir_fd=root)


def _join(name: str, layer: int, root: int) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=root)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=root)
            os.mkdir(name, 0o755, dir_fd=root)
    below_layer = os.open(name, _FOLDER_FLAGS, dir_fd=layer)
    try:
        below_root = os.open(name, _FOLDER_FLAGS, dir_fd=root)
        try:
            os.fchmod(below_root, 0o755)
            merge(below_layer, below_root)
        finally:
            os.close(below_root)
    finally:
        os.close(below_layer)


def _link(name: str, layer: int, root: int) -> None:
    try:
        os.link(name, name, src_dir_fd=layer, dst_dir_fd=root, follow_symlinks=False)
    except FileExistsError:
        _remove(name, root)
        os.link(name, name, src_dir_fd=layer, dst_dir_fd=root, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        _copy(name, layer, root)


def _copy(name: str, layer: int, root: int) -> None:
    _remove(name, root)
    if stat.S_ISLNK((seen := os.stat(name, dir_fd=layer, follow_symlinks=False)).st_mode):
        os.symlink(os.readlink(name, dir_fd=layer), name, dir_fd=root)
        return
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=layer)
    with open(source, "rb") as content:  # noqa: PTH123 -- a descriptor, not a path
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        target = os.open(name, flags, 0o600, dir_fd=root)
        with open(target, "wb") as copy:  # noqa: PTH123
            shutil.copyfileobj(content, copy, 1 << 20)
            os.fchmod(target, stat.S_IMODE(seen.st_mode))
