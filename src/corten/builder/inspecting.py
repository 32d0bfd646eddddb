"""Find the adapter that knows a source, by content, and ask it. Nothing of the source is run."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

import corten
from corten import plugin
from corten.adapters.base import Adapter, Inspection, Source
from corten.adapters.damage import damage
from corten.builder.layer import cache_key
from corten.errors import UsageError
from corten.store.writing import atomic_write, translated

_FIRST_BYTES = 16
_OF_MODULES = ("cog", "litserve", "torchclass", "pyclass")


def inspect(source: Source, *, cache: Path) -> tuple[Source, Inspection]:
    """The source an adapter takes (of a folder without settings: the one model file in it) and what it found out.

    Raises UsageError `build.unknown_model`, `build.several_models`, `source.unreadable`, `adapter.corrupt_model` for
    what is cut short, and what the adapter raises for a broken file.
    """
    try:
        return _inspect(source, cache)
    except OSError as error:
        raise UsageError(
            "source.unreadable",
            f"`{source.path.name}` cannot be read",
            where=str(error.filename or source.path),
            why=str(error.strerror or error),
        ) from error


def _inspect(source: Source, cache: Path) -> tuple[Source, Inspection]:
    place = cache / "inspections" / f"{_key(source)}.json"
    if _cacheable(source) and (kept := _kept(place)):
        return source, kept
    adapter, taken = _adapter_for(source)
    inspection = adapter.inspect(taken)
    if _cacheable(source):
        with translated(place, "write the cache"):
            place.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(place, msgspec.json.encode(inspection, enc_hook=str))
    return taken, inspection


def _adapter_for(source: Source) -> tuple[Adapter, Source]:
    if adapter := _detected(source):
        return adapter, source
    if source.path.is_dir():
        return _in_folder(source)
    raise _unreadable([source.path]) or _unknown(source)


def _in_folder(source: Source) -> tuple[Adapter, Source]:
    found: list[tuple[Adapter, Source]] = []
    files = [path for path in sorted(source.path.iterdir()) if path.is_file() and not path.name.startswith(".")]
    for path in files:
        inner = msgspec.structs.replace(source, path=path)
        if adapter := _detected(inner):
            found.append((adapter, inner))
    if len(found) > 1:
        raise _several(source, [inner.path.name for _, inner in found])
    if not found:
        raise _unreadable(files) or _unknown(source)
    return found[0]


def _detected(source: Source) -> Adapter | None:
    # One after the other: importing an adapter that is not needed costs more than asking one that is.
    # A module is source for these only, so that the readers of files need not be loaded to say no (60 ms).
    names = _OF_MODULES if source.path.suffix == ".py" else plugin.BUILT_IN["adapters"]
    adapters: Iterator[Adapter] = (plugin.find("adapters", name)() for name in names)
    return next((adapter for adapter in adapters if adapter.detect(source)), None)


def _several(source: Source, names: Sequence[str]) -> UsageError:
    modules = [name for name in names if name.endswith(".py")]
    others = [name for name in names if not name.endswith(".py")]
    if len(modules) == 1 and len(others) == 1:
        # Most likely a class and its weights.
        module, weights = source.path / modules[0], source.path / others[0]
        hint = f"for the class with its file: corten build {module} --file {weights}; else name one of them"
    else:
        hint = f'name one: corten build {source.path / names[0]}, or `source = "{names[0]}"` in corten.toml'
    return UsageError(
        "build.several_models",
        f"`{source.path.name}` holds {len(names)} models",
        where=str(source.path),
        why=", ".join(names[:8]),
        hint=hint,
    )


def _unreadable(files: Sequence[Path]) -> UsageError | None:
    """The first of these files that was a model and is damaged."""
    return next((error for path in files if (error := damage(path))), None)


def _unknown(source: Source) -> UsageError:
    known = ", ".join(plugin.BUILT_IN["adapters"])
    return UsageError(
        "build.unknown_model",
        f"no adapter knows `{source.path.name}`",
        where=str(source.path),
        why=f"looked for: {known}; {_seen(source.path)}",
        hint=_advice(source.path),
    )


def _advice(path: Path) -> str:
    if path.is_dir():
        return "give the model file itself, or a folder with a corten.toml that names it: `source = ...`"
    if not path.stat().st_size:
        return "save or download it again"
    if _defines_a_class(path):
        return f"it reads as Python, which is imported by its name: call it `{path.stem}.py`"
    return "for anything else write a class with `predict` and give FILE.py:Class"


def _defines_a_class(path: Path) -> bool:
    import ast

    from corten.adapters.py_source import parse

    try:
        return any(isinstance(node, ast.ClassDef) for node in parse(path).body)
    except UsageError:
        return False


def _seen(path: Path) -> str:
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir())
        return "it holds " + (", ".join(names[:8]) or "nothing")
    with path.open("rb") as stream:
        head = stream.read(_FIRST_BYTES)
    text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in head)
    return f"it begins with {head.hex(' ')} ({text})" if head else "it is empty"


def _cacheable(source: Source) -> bool:
    # A Python source is many files, and quick to read; a pickle is one, and slow.
    return source.path.is_file() and source.path.suffix != ".py" and not source.extra_files


def _kept(place: Path) -> Inspection | None:
    try:
        return msgspec.json.decode(place.read_bytes(), type=Inspection, dec_hook=_path)
    except (OSError, msgspec.DecodeError):
        return None


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def _key(source: Source) -> str:
    """What an inspection depends on: the file, the settings, the adapters' code, what is installed beside Corten."""
    seen = source.path.stat()
    file = f"{source.path}\0{seen.st_size}\0{seen.st_mtime_ns}\0{seen.st_ctime_ns}\0{seen.st_ino}"
    folder = Path(corten.__file__).parent
    code = hashlib.sha256()
    for path in sorted([*(folder / "adapters").glob("*.py"), *(folder / "core").glob("*.py")]):
        code.update(path.read_bytes())
    # Installing or removing a distribution changes the time of the folder it is in.
    installed = [
        f"{entry}\0{Path(entry).stat().st_mtime_ns}"
        for entry in sys.path
        if entry.endswith("-packages") and Path(entry).is_dir()
    ]
    return cache_key(
        "inspection",
        code.hexdigest(),
        file,
        source.entry,
        source.method,
        *source.requirements,
        *installed,
        *source.trusted,
    )
