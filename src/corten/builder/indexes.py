"""A project's own package indexes, as the variables uv and the downloads read. Credentials in them go no further."""

from __future__ import annotations

from collections.abc import Mapping

from corten.adapters.py_requirements import declared_requirements
from corten.builder.source import Project

_DEFAULT = ("UV_DEFAULT_INDEX", "UV_INDEX_URL")


def with_indexes(env: Mapping[str, str], project: Project) -> Mapping[str, str]:
    """The environment with the indexes that the files beside the source name; what it says itself wins.

    Raises UsageError `adapter.requirements`.
    """
    path = project.source.path
    declared = declared_requirements(project.folder or (path if path.is_dir() else path.parent), env)
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
