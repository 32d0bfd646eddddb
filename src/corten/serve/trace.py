"""Which files a process loaded: for bytecode of them, and for finding packages of an image its model never needed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger(__name__)


def write_loaded(path: Path) -> None:
    """Write the files of all imported modules and mapped libraries, one a line, sorted; a failure is only logged.

    The file is there with all of it or not at all.
    """
    beside = path.with_name(f".{path.name}")
    try:
        beside.write_text("".join(f"{name}\n" for name in sorted({*_modules(), *_mapped()})), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        _log.warning("cannot write which files were loaded", extra={"path": str(path), "reason": str(error)})


def _modules() -> Iterator[str]:
    for module in [*sys.modules.values()]:
        # Some packages put objects of their own into sys.modules.
        name = getattr(module, "__file__", None)
        if isinstance(name, str):
            yield name


def _mapped() -> Iterator[str]:
    """Shared libraries: a package may hold nothing else (proc_pid_maps(5): the path is what follows five fields)."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/") and ".so" in fields[5]:
            yield fields[5]
