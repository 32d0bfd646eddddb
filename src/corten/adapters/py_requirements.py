"""What the files beside a source declare: `requirements.txt`, else Cog's `cog.yaml`, else pyproject.toml with the
pins of its uv.lock.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corten.adapters import plain_yaml
from corten.errors import UsageError

_MAX_DEPTH = 8
_FILE_OPTIONS = {"-r": "-r", "--requirement": "-r", "-c": "-c", "--constraint": "-c"}
_INDEX_OPTIONS = {
    "-i": "index", "--index-url": "index", "--extra-index-url": "extra", "-f": "links", "--find-links": "links",
}  # fmt: skip
# What a lock of Corten's always does: wheels only, each with its hash.
_GRANTED = frozenset({"--require-hashes", "--prefer-binary", "--only-binary"})
_HASH = re.compile(r"\s--hash[= ]\s*(\w+):([0-9A-Fa-f]+)")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """Where packages come from. `kind` is `index` (in place of the usual one), `extra`, or `links` (page or folder)."""

    kind: str
    url: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """Requirements and constraints as PEP 508 lines, indexes, and where they are from. Indexes may hold credentials.

    `hashes` are the sha256 digits (of any of which a file may be) of the lines that tell some.
    """

    lines: tuple[str, ...]
    constraints: tuple[str, ...]
    indexes: tuple[PackageIndex, ...]
    origin: str
    hashes: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Hashed:
    """A line and the sha256 of the files that may be taken for it; none: any."""

    line: str
    digests: frozenset[str]


def declared_requirements(folder: Path, env: Mapping[str, str] | None = None) -> Declared | None:
    """What `requirements.txt`, `cog.yaml` or the `[project] dependencies` of pyproject.toml beside the source declare.

    `${NAME}` in an index's URL is taken from `env`, as pip does (None: left as it is). Raises
    UsageError `adapter.requirements`.
    """
    listed, project = folder / "requirements.txt", folder / "pyproject.toml"
    if listed.is_file():
        return _listed(listed, listed.name, env)
    if (cog := folder / "cog.yaml").is_file() and (declared := _of_cog(cog, env)):
        return declared
    if not project.is_file():
        return None
    table = _toml(project)
    lines = (table.get("project") or {}).get("dependencies") if isinstance(table.get("project"), dict) else None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        return None
    lock = folder / "uv.lock"
    pins = _pins(lock) if lock.is_file() else ()
    return Declared(
        tuple(lines), pins, _indexes(table, env), f"{project.name}, pinned by uv.lock" if pins else project.name
    )


def _listed(path: Path, origin: str, env: Mapping[str, str] | None) -> Declared:
    found = list(_read(path, 0, env))
    return Declared(
        tuple(item.line for kind, item in found if kind == "-r" and isinstance(item, _Hashed)),
        tuple(item.line for kind, item in found if kind == "-c" and isinstance(item, _Hashed)),
        tuple(item for _, item in found if isinstance(item, PackageIndex)),
        origin,
        {item.line: item.digests for _, item in found if isinstance(item, _Hashed) and item.digests},
    )


def _of_cog(path: Path, env: Mapping[str, str] | None) -> Declared | None:
    """The packages of a predictor of Cog (https://cog.run/yaml): a list, or the name of a requirements file."""
    try:
        document = plain_yaml.read(path.read_text(encoding="utf-8", errors="replace"))
    except plain_yaml.YamlError as error:
        raise _unreadable(path, str(error)) from error
    build = document.get("build") if isinstance(document, dict) else None
    if not isinstance(build, dict):
        return None
    if named := build.get("python_requirements"):
        listed = path.parent / str(named)
        if not listed.is_file():
            raise _unreadable(path, f"it names `{named}`, which is not there")
        return _listed(listed, f"{listed.name} of {path.name}", env)
    lines = build.get("python_packages")
    if not lines:
        return None
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise _unreadable(path, "`python_packages` is no list of requirements")
    return Declared(tuple(lines), (), (), path.name)


def _unreadable(path: Path, why: str) -> UsageError:
    return UsageError(
        "adapter.requirements",
        f"`{path.name}` cannot be read",
        where=str(path),
        why=why,
        hint="list the packages in a requirements.txt beside it",
    )


def _read(
    path: Path, depth: int, env: Mapping[str, str] | None, kind: str = "-r"
) -> Iterator[tuple[str, _Hashed | PackageIndex]]:
    """The lines of a pip file (https://pip.pypa.io/en/stable/reference/requirements-file-format), files in it too."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.split(r"(?:^|\s)#", raw, maxsplit=1)[0].strip()
        if not line:
            continue
        option, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("--") else line.partition(" ")
        value = value.strip()
        if not line.startswith("-"):
            yield kind, _hashed(line, f"{path}:{number}")
        elif option in _FILE_OPTIONS and depth < _MAX_DEPTH and (path.parent / value).is_file():
            inner = "-c" if kind == "-c" else _FILE_OPTIONS[option]
            yield from _read(path.parent / value, depth + 1, env, inner)
        elif option in _INDEX_OPTIONS and value:
            yield kind, PackageIndex(_INDEX_OPTIONS[option], _filled(value, env, f"{path}:{number}"))
        elif option not in _GRANTED:
            raise UsageError(
                "adapter.requirements",
                f"`{option}` has no meaning in an image"
                if option not in _FILE_OPTIONS
                else f"`{value[:60]}` is not there",
                where=f"{path}:{number}",
                why="read are requirements, -r, -c, --index-url, --extra-index-url and --find-links",
                hint="leave it out" if option not in _FILE_OPTIONS else "mend the path",
            )


def _hashed(line: str, where: str) -> _Hashed:
    requirement = line.split(" --hash", maxsplit=1)[0].strip()
    told = _HASH.findall(line)
    if told and not any(name == "sha256" for name, _ in told):
        raise UsageError(
            "adapter.requirements",
            f"`{requirement[:60]}` has no sha256 among its hashes",
            where=where,
            why=f"there are {', '.join(sorted({name for name, _ in told}))}; what is locked is compared by sha256",
            hint="pip hash FILE, or uv pip compile --generate-hashes, writes them",
        )
    return _Hashed(requirement, frozenset(digits.lower() for name, digits in told if name == "sha256"))


def _filled(text: str, env: Mapping[str, str] | None, where: str) -> str:
    """A text with `${NAME}` filled in, as pip has it. Raises UsageError for one that is not set."""

    def value(found: re.Match[str]) -> str:
        if env is None or found[1] not in env:
            raise UsageError(
                "adapter.requirements",
                f"`${{{found[1]}}}` is not set",
                where=where,
                why="the index's URL needs it",
                hint=f"export {found[1]}=...",
            )
        return env[found[1]]

    return text if env is None else _VARIABLE.sub(value, text)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            "adapter.requirements", f"`{path.name}` is not TOML", where=str(path), why=str(error)
        ) from error


def _pins(path: Path) -> tuple[str, ...]:
    """A uv.lock's packages of indexes as `name==version`; where it has several of one name, each with its markers."""
    found = []
    for package in _toml(path).get("package", ()):
        source = package.get("source") or {}
        if "registry" not in source or "version" not in package:
            continue  # the project itself, folders and repositories: not to be had by a release
        pin = f"{package['name']}=={str(package['version']).partition('+')[0]}"
        markers = " or ".join(f"({marker})" for marker in package.get("resolution-markers", ()))
        found.append(f"{pin} ; {markers}" if markers else pin)
    return tuple(sorted(found))


def _indexes(table: Mapping[str, Any], env: Mapping[str, str] | None) -> tuple[PackageIndex, ...]:
    """Those of `[[tool.uv.index]]`."""
    told = ((table.get("tool") or {}).get("uv") or {}).get("index") or ()
    return tuple(
        PackageIndex(
            "index" if one.get("default") else "extra",
            _filled(str(one["url"]), env, "pyproject.toml"),
            str(one.get("name") or ""),
        )
        for one in told
        if isinstance(one, dict) and "url" in one
    )
