"""The model files of a source, each under one name below /models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from corten.adapters.base import Source, SourceFile
from corten.errors import UsageError


def declared(source: Source) -> Iterator[SourceFile]:
    """The extra files and folders of a source: named as they lie below its folder, else by their own name.

    Raises UsageError (`adapter.missing_weights`) for what is not there, or is a device and the like.
    """
    folder = (source.path if source.path.is_dir() else source.path.parent).absolute()
    for extra in source.extra_files:
        place = (folder / extra).absolute()
        base = folder if place.is_relative_to(folder) and ".." not in place.parts else place.parent
        if place.is_dir():
            yield from (SourceFile(file, file.relative_to(base).as_posix()) for file in visible(place))
        elif place.is_file():
            yield SourceFile(place, place.relative_to(base).as_posix())
        else:
            raise UsageError(
                "adapter.missing_weights",
                f"`{extra}` is no file or folder" if place.exists() else f"`{extra}` is not there",
                where=str(place),
                hint="name model files relative to the source's folder, or by their whole path",
            )


def visible(folder: Path) -> Iterator[Path]:
    """The files of a folder, sorted, without hidden ones (`.env`, `.git`) and caches."""
    for item in sorted(folder.iterdir()):
        if item.name.startswith(".") or item.name == "__pycache__":
            continue
        if item.is_dir():
            yield from visible(item)
        elif item.is_file():
            yield item


def once_each(files: Iterable[SourceFile]) -> tuple[SourceFile, ...]:
    """The files in order, each once. Raises UsageError for two different ones under one name."""
    seen: dict[str, SourceFile] = {}
    for file in files:
        other = seen.setdefault(file.name, file)
        if not other.path.samefile(file.path):
            raise UsageError(
                "adapter.duplicate_file",
                f"two files would be /models/{file.name}",
                where=str(file.path),
                why=f"the other is {other.path}",
                hint="rename one of them",
            )
    return tuple(seen.values())
