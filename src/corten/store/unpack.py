"""Unpack one layer into a folder, so that nothing it says can write anywhere else.

Every step goes from an open folder to the next by name with O_NOFOLLOW (openat(2)), so a symlink of the layer is
written but never walked through. Owners, times, extended attributes, setuid and setgid bits are dropped.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from corten.core.image import Layer
from corten.errors import PolicyError
from corten.store.untar import LayerTar, Member, MemberKind

_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def unpack(tar: LayerTar, layer: Layer, into: int, *, check: Callable[[], None]) -> None:
    """Write all members below the open, empty folder `into` and verify the layer's diff_id.

    Whiteouts (`.wh.*`) land as files of that name: what they hide is known only when layers are merged. `check` is
    called before every member and stops the work by raising. Raises PolicyError and OSError.
    """
    writer = _Writer(tar, into)
    try:
        for member in tar.members():
            check()
            writer.add(member)
    finally:
        writer.close()
    if (seen := tar.finish()) != layer.diff_id:
        raise PolicyError(
            "layer.wrong_content",
            f"layer `{layer.title}` is not what its image says",
            why=f"its plain tar has the digest {seen}, the image's config says {layer.diff_id}",
            hint="build or pull the image again",
        )


class _Writer:
    """Puts members into a folder; remembers the folder of the last one, because layers are sorted."""

    def __init__(self, tar: LayerTar, root: int) -> None:
        self._tar = tar
        self._root = root
        self._parts: tuple[str, ...] = ()
        self._open: list[int] = []  # descriptors of the folders named by _parts

    def add(self, member: Member) -> None:
        try:
            match member.kind:
                case MemberKind.FOLDER:
                    self._enter(member.parts, member)
                case MemberKind.FILE:
                    self._file(member)
                case MemberKind.SYMLINK:
                    os.symlink(member.target, member.parts[-1], dir_fd=self._enter(member.parts[:-1], member))
                case MemberKind.HARDLINK:
                    self._hardlink(member)
        except FileExistsError as error:
            raise self._tar.refuse(member.name, "a second member of that name") from error

    def close(self) -> None:
        while self._open:
            os.close(self._open.pop())
        self._parts = ()

    def _file(self, member: Member) -> None:
        folder = self._enter(member.parts[:-1], member)
        descriptor = os.open(member.parts[-1], _FILE_FLAGS, 0o600, dir_fd=folder)
        try:
            self._tar.copy(member.size_bytes, descriptor)
            # Readable by the user replicas run as, whatever the umask here and the mode there.
            os.fchmod(descriptor, 0o755 if member.executable else 0o644)
        finally:
            os.close(descriptor)

    def _hardlink(self, member: Member) -> None:
        target = tuple(member.target.split("/"))
        walker = _Writer(self._tar, self._root)
        try:
            source = walker.existing(target[:-1])
            folder = self._enter(member.parts[:-1], member)
            os.link(target[-1], member.parts[-1], src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            why = f"a hard link to `{member.target}`, which is no file of this layer"
            raise self._tar.refuse(member.name, why) from error
        finally:
            walker.close()

    def existing(self, parts: tuple[str, ...]) -> int:
        """Open a folder that must be there already."""
        for part in parts:
            self._open.append(os.open(part, _FOLDER_FLAGS, dir_fd=self._open[-1] if self._open else self._root))
        return self._open[-1] if self._open else self._root

    def _enter(self, parts: tuple[str, ...], member: Member) -> int:
        """The folder with this name, made if it is not there; never through a symlink."""
        shared = 0
        while shared < min(len(parts), len(self._parts)) and parts[shared] == self._parts[shared]:
            shared += 1
        while len(self._open) > shared:
            os.close(self._open.pop())
        self._parts = parts[:shared]
        for part in parts[shared:]:
            above = self._open[-1] if self._open else self._root
            with suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=above)
            try:
                descriptor = os.open(part, _FOLDER_FLAGS, dir_fd=above)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                raise self._tar.refuse(member.name, f"its folder `{part}` is a link or a file") from error
            self._open.append(descriptor)
            self._parts = (*self._parts, part)
            os.fchmod(descriptor, 0o755)
        return self._open[-1] if self._open else self._root
