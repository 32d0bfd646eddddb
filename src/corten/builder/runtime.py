"""The part of Corten that runs inside an image: the server and what it needs, read from this very installation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from corten.builder.entry import Entry
from corten.builder.interpreter import Interpreter

# ARCHITECTURE.md: these import nothing of the builder, the store, the engine, the gateway or the control plane.
_PARTS = ("__init__.py", "adapters", "core", "errors.py", "http", "observe", "plugin.py", "py.typed", "serve")


def entries(package: Path, python: Interpreter) -> Iterator[Entry]:
    """The runtime's files for an image with this Python, sorted; `package` is the folder of the installed `corten`."""
    site = f"{python.site}/corten"
    files = {path.relative_to(package).as_posix(): path for part in _PARTS for path in _files(package / part)}
    for name, path in sorted(files.items()):
        yield Entry(f"{site}/{name}", data=path.read_bytes())


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        # No bytecode (it holds times), no editors' leftovers.
        yield from (
            child
            for child in path.rglob("*")
            if child.is_file() and "__pycache__" not in child.parts and not child.name.startswith(".")
            and child.suffix not in {".pyc", ".pyo"} and not child.name.endswith("~")
        )  # fmt: skip
    else:
        yield path
