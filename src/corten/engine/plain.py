"""Run an image's program without a sandbox: by its own loader and libraries, as an ordinary process.

For machines on which bubblewrap is missing or refused. Same files, no isolation: paths that a sandbox would map are
told by the environment instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from corten.core.image import Image
from corten.core.links import follow
from corten.errors import EngineError

_ELF: Final = b"\x7fELF"
_PT_INTERP: Final = 3


@dataclass(frozen=True, slots=True)
class PlainProcess:
    """A program to start: complete argv, environment and working directory, all in this machine's paths."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    working_dir: Path


def plain_process(image: Image, root: Path, view: Path, env: Mapping[str, str]) -> PlainProcess:
    """The process that runs an image's entrypoint from its unpacked `root`; /app and /models are below `view`.

    Raises EngineError `engine.plain_unsupported` for an entrypoint that is no dynamically linked program.
    """
    if not image.entrypoint:
        raise _unsupported(image, "it has no entrypoint")
    program = resolve_in(root, image.entrypoint[0])
    interpreter = _interpreter(program, image)
    libraries = _library_folders(root, image)
    loader = resolve_in(root, interpreter)
    app = view / "app"
    return PlainProcess(
        argv=(str(loader), "--library-path", ":".join(map(str, libraries)), str(program), *image.entrypoint[1:]),
        env={**_python(root, image.entrypoint[0]), **env, **_moved(root, env), **_places(view)},
        working_dir=app if app.is_dir() else root,
    )


def resolve_in(root: Path, path: str) -> Path:
    """Where `path` leads when `root` is the root: links are followed, never out of it."""

    def target(parts: Sequence[str]) -> str:
        here = root.joinpath(*parts)
        return str(here.readlink()) if here.is_symlink() else ""

    return root.joinpath(*follow(path, target))


def _interpreter(program: Path, image: Image) -> str:
    """The loader a program asks for: its PT_INTERP segment (ELF-64, little-endian)."""
    try:
        with program.open("rb") as stream:
            header = stream.read(64)
            if header[:6] != _ELF + b"\x02\x01":
                raise _unsupported(image, f"`{image.entrypoint[0]}` is no 64-bit program")
            start, size, count = _u64(header, 32), _u16(header, 54), _u16(header, 56)
            stream.seek(start)
            table = stream.read(size * count)
            for at in range(0, len(table), size):
                if _u32(table, at) == _PT_INTERP:
                    stream.seek(_u64(table, at + 8))
                    return os.fsdecode(stream.read(_u64(table, at + 32)).rstrip(b"\0"))
    except (OSError, ValueError) as error:
        raise _unsupported(image, f"`{image.entrypoint[0]}` cannot be read: {error}") from error
    raise _unsupported(image, f"`{image.entrypoint[0]}` is statically linked")


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _library_folders(root: Path, image: Image) -> list[Path]:
    multiarch = image.platform.multiarch
    names = (f"lib/{multiarch}", f"usr/lib/{multiarch}", "usr/local/lib", "lib64", "usr/lib64", "lib", "usr/lib")
    folders = [resolve_in(root, name) for name in names]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _python(root: Path, entrypoint: str) -> dict[str, str]:
    """What a Python needs to find itself when it is not at its prefix (sys.prefix is computed from PYTHONHOME)."""
    program = resolve_in(root, entrypoint)
    if not re.fullmatch(r"python3\.\d+", program.name):
        return {}
    home, environment = program.parent.parent, resolve_in(root, str(PurePosixPath(entrypoint).parent.parent))
    folders = (
        environment / "lib" / program.name / "site-packages",  # a virtual environment's, whose program leads out of it
        root / "usr/local/lib" / program.name / "dist-packages",  # where Debian's Python looks
        root / "usr/local/lib64" / program.name / "site-packages",  # where Fedora's does
        home / "lib64" / program.name / "site-packages",
        home / "lib" / program.name / "site-packages",
    )
    packages = ":".join(str(folder) for folder in dict.fromkeys(folders) if folder.is_dir())
    return {"PYTHONHOME": str(home), "PYTHONPATH": packages, "PYTHONNOUSERSITE": "1"}


def _moved(root: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Variables of the image that name a file in it."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    return {name: str(resolve_in(root, env[name])) for name in names if env.get(name, "").startswith("/")}


def _places(view: Path) -> dict[str, str]:
    return {"CORTEN_APP_DIR": str(view / "app"), "CORTEN_MODELS_DIR": str(view / "models")}


def _unsupported(image: Image, why: str) -> EngineError:
    return EngineError(
        "engine.plain_unsupported",
        f"image `{image.digest.short}` cannot run without a sandbox",
        why=why,
        hint="install bubblewrap: `apt-get install bubblewrap`",
    )
