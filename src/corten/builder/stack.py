"""The files of an image's layers laid over each other, as names: read, never unpacked, let alone run.

Of the files somebody wants to look into the first bytes are kept, of all others that they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from corten.core.image import Layer
from corten.core.links import follow, parts
from corten.errors import PolicyError
from corten.store.layout import Layout
from corten.store.untar import LayerTar, Member, MemberKind, opened

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class File:
    """A file or a link (`target` is where it points). `data` is what was wanted of its content."""

    target: str = ""
    data: bytes = b""


@dataclass(slots=True)
class Folder:
    """A folder of a stack by name; made while layers are read."""

    children: dict[str, File | Folder] = field(default_factory=dict)


# How many of a file's first bytes are wanted, by its name and size; 0: none.
Wanted = Callable[[str, int], int]


@dataclass(frozen=True, slots=True)
class Stack:
    """The tree of an image. Paths are relative or absolute, which is the same."""

    root: Folder
    plain_bytes: tuple[int, ...]  # of each layer's tar

    def resolve(self, path: str) -> str:
        """Where a path leads, links followed and never out of the root; relative. What is not there stays as it is."""
        return "/".join(follow(path, self._target))

    def file(self, path: str) -> File | None:
        """The file a path leads to; None where there is none, or a folder."""
        node = self._at(parts(self.resolve(path)))
        return node if isinstance(node, File) and not node.target else None

    def names(self, folder: str) -> list[str]:
        """What is in a folder, sorted; empty where there is none."""
        node = self._at(parts(self.resolve(folder)))
        return sorted(node.children) if isinstance(node, Folder) else []

    def walk(self) -> Iterator[tuple[str, File]]:
        """Every file and link by its name."""
        yield from _walk(self.root, "")

    def _target(self, names: Sequence[str]) -> str:
        node = self._at(names)
        return node.target if isinstance(node, File) else ""

    def _at(self, names: Sequence[str]) -> File | Folder | None:
        node: File | Folder | None = self.root
        for part in names:
            node = node.children.get(part) if isinstance(node, Folder) else None
        return node


def read_stack(layout: Layout, layers: Sequence[Layer], wanted: Wanted) -> Stack:
    """Read stored layers, lowest first, each checked against its diff_id.

    Raises NotFoundError `store.blob_missing`, PolicyError `layer.malformed`, `layer.unsafe_member`,
    `layer.wrong_content`.
    """
    root = Folder()
    sizes = []
    for layer in layers:
        try:
            with opened(layout.path(layer.digest), layer) as tar:
                _lay_over(root, tar, wanted)
                seen = tar.finish()
                sizes.append(tar.read_bytes)
        except FileNotFoundError as error:
            raise layout.missing(layer.digest) from error
        if seen != layer.diff_id:
            raise PolicyError(
                "layer.wrong_content",
                f"layer `{layer.title}` is not what its image says",
                why=f"its plain tar has the digest {seen}, the image's config says {layer.diff_id}",
                hint="take the image from a registry you trust",
            )
    return Stack(root, tuple(sizes))


def _lay_over(root: Folder, tar: LayerTar, wanted: Wanted) -> None:
    """Whiteouts hide what lower layers have, never what their own has (image-spec, layer.md), wherever they stand."""
    own = Folder()
    whiteouts: list[tuple[str, ...]] = []
    for member in tar.members():
        if member.parts[-1].startswith(_WHITEOUT):
            whiteouts.append(member.parts)
        elif member.kind is MemberKind.FOLDER:
            _folder(own, member.parts)
        else:
            _folder(own, member.parts[:-1]).children[member.parts[-1]] = _file(member, tar, own, wanted)
    for *parents, name in whiteouts:
        _hide(root, parents, name)
    _join(root, own)


def _file(member: Member, tar: LayerTar, own: Folder, wanted: Wanted) -> File:
    if member.kind is MemberKind.SYMLINK:
        return File(target=member.target)
    if member.kind is MemberKind.HARDLINK:
        node: File | Folder | None = own
        for part in member.target.split("/"):
            node = node.children.get(part) if isinstance(node, Folder) else None
        return node if isinstance(node, File) else File()
    left = min(wanted(member.name, member.size_bytes), member.size_bytes)
    pieces = []
    if left > 0:
        for piece in tar.content():
            pieces.append(bytes(piece[:left]))
            left -= len(pieces[-1])
            if left <= 0:
                break
    return File(data=b"".join(pieces))


def _folder(root: Folder, parts: Sequence[str]) -> Folder:
    node = root
    for part in parts:
        child = node.children.get(part)
        if not isinstance(child, Folder):
            child = node.children[part] = Folder()
        node = child
    return node


def _hide(root: Folder, parents: Sequence[str], name: str) -> None:
    node: File | Folder | None = root
    for part in parents:
        node = node.children.get(part) if isinstance(node, Folder) else None
    if isinstance(node, Folder):
        if name == _OPAQUE:
            node.children.clear()
        else:
            node.children.pop(name.removeprefix(_WHITEOUT), None)


def _join(below: Folder, above: Folder) -> None:
    for name, node in above.children.items():
        under = below.children.get(name)
        if isinstance(node, Folder) and isinstance(under, Folder):
            _join(under, node)
        else:
            below.children[name] = node


def _walk(folder: Folder, prefix: str) -> Iterator[tuple[str, File]]:
    for name, node in sorted(folder.children.items()):
        if isinstance(node, Folder):
            yield from _walk(node, f"{prefix}{name}/")
        else:
            yield prefix + name, node
