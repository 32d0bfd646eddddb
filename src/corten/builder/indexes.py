"""What the files beside a source say of where its packages come from and which files they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from corten.adapters.base import Inspection
from corten.adapters.distributions import distribution
from corten.adapters.py_requirements import declared_requirements
from corten.builder.lock import Lock
from corten.builder.source import Project
from corten.errors import PolicyError

_DEFAULT = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")


def with_indexes(env: Mapping[str, str], project: Project) -> Mapping[str, str]:
    """The environment with the indexes that the files beside the source name; what it says itself wins.

    They are variables that uv and the downloads read; credentials in them go no further. Raises UsageError
    `adapter.requirements`.
    """
    declared = declared_requirements(_folder(project), env)
    if declared is None or not declared.indexes:
        return env
    found = dict(env)
    for index in declared.indexes:
        text = f"{index.name}={index.url}" if index.name else index.url
        match index.kind:
            case "index":
                if not any(env.get(name) for name in _DEFAULT):
                    found[_DEFAULT[0]] = text
            case "links":
                found["UV_FIND_LINKS"] = " ".join(filter(None, (found.get("UV_FIND_LINKS", ""), index.url)))
            case _:
                found["UV_INDEX"] = " ".join(filter(None, (found.get("UV_INDEX", ""), text)))
    return found


def check_hashes(project: Project, inspection: Inspection, lock: Lock) -> None:
    """Refuse a lock with other files than the `--hash` options of the requirements allow.

    Raises PolicyError `build.hash_undeclared`, UsageError `adapter.requirements`.
    """
    folder = _folder(project)
    declared = declared_requirements(folder)
    if declared is None or not declared.hashes:
        return
    read = {*inspection.requirements, *inspection.constraints}
    allowed: dict[str, set[str]] = {}
    for line, digests in declared.hashes.items():
        if line in read:  # a model's own packages are told by itself, whatever lies beside it
            allowed.setdefault(distribution(line), set()).update(digests)
    for wheel in lock.wheels:
        if wheel.digest.hex not in allowed.get(wheel.name, {wheel.digest.hex}):
            raise PolicyError(
                "build.hash_undeclared",
                f"`{wheel.filename}` is none of the files that {declared.origin} allows for {wheel.name}",
                where=str(folder / declared.origin),
                why=f"its sha256 is {wheel.digest.hex}, allowed: {len(allowed[wheel.name])} others",
                hint="add --hash=sha256:... of this file if you trust it, or let the index be the one they are from",
            )


def _folder(project: Project) -> Path:
    path = project.source.path
    return project.folder or (path if path.is_dir() else path.parent)
