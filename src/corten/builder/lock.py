"""The lock: every package of an image by digest, so that a rebuild asks nobody and gives the same bytes.

`corten.lock` lies beside a project and holds one lock a platform; sources without a folder of their own keep theirs in
the cache, by their inputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.builder.debian.release import Deb
from corten.builder.interpreter import Interpreter
from corten.builder.pylock import Locked
from corten.core.digest import Digest
from corten.core.platform import Platform
from corten.core.reference import Reference
from corten.errors import UsageError
from corten.store.writing import atomic_write, translated

LOCK_FILE = "corten.lock"
_FORMAT = 1
_NOTE = "Written by corten build. Keep it with the source: it makes builds repeatable."


@dataclass(frozen=True, slots=True)
class Pin:
    """An image to build on. `reference` is `registry/repository:tag`, or without the tag when none was asked for.

    `digest` is what it led to (an index, or an image), `manifest` the image of the lock's platform in it.
    """

    reference: str
    digest: Digest
    manifest: Digest

    def __str__(self) -> str:
        return f"{self.reference}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What decides a lock. Where packages come from is no part of it: they are pinned by digest, wherever they are.

    The base is a Debian `release` and `packages` of it, or (`release` empty) the image `base`.
    `purpose` decides nothing: it tells the locks of one platform apart that a project keeps.
    """

    requirements: tuple[str, ...]
    packages: tuple[str, ...]
    release: str
    python: Interpreter
    platform: Platform
    gpu: bool = False
    base: Pin | None = None
    constraints: tuple[str, ...] = ()
    purpose: str = ""

    @property
    def key(self) -> str:
        """64 hex digits, the same for the same inputs but the base: which image that is stands in a lock itself.

        So the lock that a rebase writes is the one a build on the newer base would.
        """
        document = [
            _FORMAT, sorted(self.requirements), sorted(self.packages), self.release, self.python.version,
            self.python.libc.key, str(self.platform),
            # Locks made before there was the choice still fit.
            *(["gpu"] if self.gpu else []),
            *(["constraints", *sorted(self.constraints)] if self.constraints else []),
            *(["base"] if self.base else []),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(document).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Lock:
    """Everything that is downloaded for an image on one platform, made from the inputs with this key.

    Of what it stands on either `release` and `debs` say what it is, or (`release` empty) `base`.
    `purpose` is empty for the image of the model as it is; see `builder.acceleration` for the others.
    """

    inputs: str
    platform: Platform
    release: str
    python: str
    debs: tuple[Deb, ...]
    wheels: tuple[Locked, ...]
    base: Pin | None = None
    purpose: str = ""


def read(path: Path) -> tuple[Lock, ...]:
    """The locks in a file, none when there is no file. Raises UsageError `lock.broken`."""
    try:
        return _locks_from(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return ()
    except UsageError as error:
        raise _broken(path, str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise _broken(path, f"{type(error).__name__}: {error}") from error


def write(path: Path, locks: Sequence[Lock]) -> None:
    """Write locks in order of platform: one package a line, so that a diff shows what changed."""
    with translated(path, "write the lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, dumps(locks).encode())


def dumps(locks: Sequence[Lock]) -> str:
    """Locks as text: JSON with one package a line."""
    blocks = [_block(lock) for lock in sorted(locks, key=lambda lock: (lock.platform, lock.purpose))]
    return f'{{\n "format": {_FORMAT},\n "note": {json.dumps(_NOTE)},\n "locks": [\n' + ",\n".join(blocks) + "\n ]\n}\n"


def fitting(locks: Sequence[Lock], inputs: Inputs) -> Lock | None:
    """The lock made from exactly these inputs."""
    wanted = (inputs.key, inputs.platform, _bytes_of(inputs.base))
    return next((lock for lock in locks if (lock.inputs, lock.platform, _bytes_of(lock.base)) == wanted), None)


def _bytes_of(base: Pin | None) -> tuple[Digest, Digest] | None:
    """What a base is, by whatever name it was found."""
    return (base.digest, base.manifest) if base else None


def for_platform(locks: Sequence[Lock], platform: Platform) -> Lock | None:
    """The lock of a platform for the model as it is, whatever it was made from."""
    return next((lock for lock in locks if lock.platform == platform and not lock.purpose), None)


def with_lock(locks: Sequence[Lock], lock: Lock) -> tuple[Lock, ...]:
    """The locks with one put in place of the one for its platform and purpose."""
    here = (lock.platform, lock.purpose)
    return (*(other for other in locks if (other.platform, other.purpose) != here), lock)


def _block(lock: Lock) -> str:
    head = {"platform": str(lock.platform), "release": lock.release, "python": lock.python, "inputs": lock.inputs}
    head |= {"purpose": lock.purpose} if lock.purpose else {}
    lines = [f"   {json.dumps(key)}: {json.dumps(text)}" for key, text in head.items()]
    if lock.base:
        pin = {key: str(getattr(lock.base, key)) for key in ("reference", "digest", "manifest")}
        lines.append(f'   "base": {json.dumps(pin)}')
    debs = [
        {
            "name": deb.name, "version": deb.version, "architecture": deb.architecture, "size": deb.size_bytes,
            "digest": str(deb.digest), "url": deb.url,
        }
        for deb in lock.debs
    ]  # fmt: skip
    wheels = [
        {
            "name": wheel.name, "version": wheel.version, "filename": wheel.filename, "size": wheel.size_bytes,
            "digest": str(wheel.digest), "url": wheel.url,
        }
        for wheel in lock.wheels
    ]  # fmt: skip
    for key, rows in (("debs", debs), ("wheels", wheels)):
        inner = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in rows)
        lines.append(f'   "{key}": [\n{inner}\n   ]' if rows else f'   "{key}": []')
    return "  {\n" + ",\n".join(lines) + "\n  }"


def _locks_from(document: Mapping[str, Any]) -> tuple[Lock, ...]:
    if document["format"] != _FORMAT:
        raise ValueError(f"its format is {document['format']}, this Corten knows {_FORMAT}")
    return tuple(_lock_from(entry) for entry in document["locks"])


def _lock_from(document: Mapping[str, Any]) -> Lock:
    return Lock(
        inputs=str(document["inputs"]),
        platform=Platform.parse(document["platform"]),
        release=str(document["release"]),
        python=str(document["python"]),
        purpose=str(document.get("purpose", "")),
        debs=tuple(
            Deb(
                name=str(row["name"]), version=str(row["version"]), architecture=str(row["architecture"]),
                url=str(row["url"]), digest=Digest.parse(row["digest"]), size_bytes=int(row["size"]),
            )
            for row in document["debs"]
        ),
        wheels=tuple(
            Locked(
                name=str(row["name"]), version=str(row["version"]), url=str(row["url"]),
                digest=Digest.parse(row["digest"]), size_bytes=int(row["size"]), filename=_file_name(row["filename"]),
            )
            for row in document["wheels"]
        ),
        base=_pin_from(document["base"]) if "base" in document else None,
    )  # fmt: skip


def _pin_from(document: Mapping[str, Any]) -> Pin:
    # It decides whom we ask: what is no reference ends here.
    reference = Reference.parse(str(document["reference"]))
    if reference.digest is not None:
        raise ValueError("a base's digest stands apart from its reference")
    return Pin(str(document["reference"]), Digest.parse(document["digest"]), Digest.parse(document["manifest"]))


def _file_name(text: str) -> str:
    # It becomes a path below the cache, and a lock may come from a stranger's repository.
    if "/" in text or "\0" in text or not text.endswith(".whl"):
        raise ValueError(f"not a wheel's file name: {text[:100]!r}")
    return text


def _broken(path: Path, why: str) -> UsageError:
    return UsageError(
        "lock.broken",
        f"`{path.name}` cannot be read",
        where=str(path),
        why=why,
        hint="take it back from version control, or delete it to lock anew",
    )
