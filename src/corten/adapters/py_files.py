"""Which files and distributions a Python source needs, told from its imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from corten.adapters.base import SourceFile
from corten.adapters.distributions import numbers, pinned
from corten.adapters.py_source import parse
from corten.errors import UsageError

# Imports whose distribution has another name, for machines where they are not installed.
_DISTRIBUTIONS = {
    "PIL": "pillow", "bs4": "beautifulsoup4", "cv2": "opencv-python-headless", "dateutil": "python-dateutil",
    "dotenv": "python-dotenv", "faiss": "faiss-cpu", "fitz": "pymupdf", "imblearn": "imbalanced-learn",
    "skimage": "scikit-image", "sklearn": "scikit-learn", "umap": "umap-learn", "xgboost": "xgboost-cpu",
    "yaml": "pyyaml",
}  # fmt: skip
# What the server brings into every image.
_PROVIDED = frozenset({"corten"})
_NOT_CODE = frozenset({"__pycache__", "node_modules", "site-packages"})
_MAX_FILES = 2_000


@dataclass(frozen=True, slots=True)
class Code:
    """The files of a source, and the top-level modules they import from elsewhere (name -> may be missing)."""

    root: Path
    module: str
    files: tuple[SourceFile, ...]
    imports: Mapping[str, bool]


def collect(path: Path) -> Code:
    """Follow the imports of a file within its folder. Raises UsageError for names that cannot be imported."""
    root, module = _module_of(path)
    files: dict[Path, None] = {}
    imports: dict[str, bool] = {}
    pending = [path, *_package_inits(path, root)]
    while pending:
        file = pending.pop()
        if file in files:
            continue
        _check_inside(file, root)
        files[file] = None
        if len(files) > _MAX_FILES:
            raise UsageError(
                "adapter.too_many_files", f"`{path.name}` imports more than {_MAX_FILES} files", where=str(root)
            )
        if file.suffix != ".py":
            continue
        for name, optional in _imports(parse(file), file, root):
            local = _local(name, root)
            pending.extend(local)
            top = name.partition(".")[0]
            if not local and top and top not in sys.stdlib_module_names and top not in _PROVIDED:
                imports[top] = imports.get(top, True) and optional
    named = sorted((SourceFile(file, file.relative_to(root).as_posix()) for file in files), key=lambda file: file.name)
    return Code(root, module, tuple(named), dict(sorted(imports.items())))


def _module_of(path: Path) -> tuple[Path, str]:
    """The folder to import from, and the module's dotted name; a file within a package keeps its package."""
    parts = [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    if not all(part.isidentifier() for part in parts):
        raise UsageError(
            "adapter.module_name",
            f"`{path.name}` cannot be imported",
            where=str(path),
            why=f"`{'.'.join(parts)}` is no module name: letters, digits and `_` only",
            hint=f"rename it to `{path.stem.replace('-', '_').replace(' ', '_')}.py`",
        )
    if parts[0] in sys.stdlib_module_names or parts[0] in _PROVIDED:
        raise UsageError(
            "adapter.module_name",
            f"`{path.name}` would hide the module `{parts[0]}`, which others import",
            where=str(path),
            hint="rename it, for example to `model.py`",
        )
    return folder, ".".join(parts)


def _package_inits(path: Path, root: Path) -> Iterator[Path]:
    for folder in path.parents:
        if folder == root:
            return
        yield folder / "__init__.py"


def _check_inside(file: Path, root: Path) -> None:
    if not file.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            "adapter.unsafe_path",
            f"`{file.name}` is a link out of the source's folder",
            where=str(file),
            why=f"it leads to {file.resolve()}",
            hint="copy the file into the folder",
        )


def _imports(tree: ast.AST, file: Path, root: Path) -> Iterator[tuple[str, bool]]:
    """Dotted names a file imports, and whether it can do without (in `try: ... except ImportError`)."""
    pending: list[tuple[ast.AST, bool]] = [(tree, False)]
    while pending:
        node, optional = pending.pop()
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, optional) for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = _absolute(module or "", level, file, root)
                if not level:
                    yield base, optional
                # `from package import module`: the name may be a file of its own.
                inner = (f"{base}.{alias.name}" if base else alias.name for alias in names)
                yield from ((name, optional) for name in inner if _local(name, root))
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"), orelse=orelse):
                pending.extend((child, optional) for child in orelse)
            case ast.Try(body=body, handlers=handlers):
                can_miss = any(_catches_import_error(handler) for handler in handlers)
                pending.extend((child, optional or can_miss) for child in body)
                others = [child for child in ast.iter_child_nodes(node) if child not in body]
                pending.extend((child, optional or can_miss) for child in others)
            case _:
                pending.extend((child, optional) for child in ast.iter_child_nodes(node))


def _catches_import_error(handler: ast.ExceptHandler) -> bool:
    names = (
        {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else {"Exception"}
    )
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception"})


def _absolute(module: str, level: int, file: Path, root: Path) -> str:
    """The dotted name behind a relative import. Raises UsageError where there is no package to be relative to."""
    if not level:
        return module
    package = list(file.parent.relative_to(root).parts)
    if level > len(package):
        raise UsageError(
            "adapter.relative_import",
            f"`from {'.' * level}{module} import ...` leads out of the source's package",
            where=str(file),
            why="the file is loaded as a module of its own" if not package else f"its package is {'.'.join(package)}",
            hint=f"write `from {module or 'NAME'} import ...`",
        )
    package = package[: len(package) - (level - 1)]
    return ".".join([*package, *([module] if module else [])])


def _local(name: str, root: Path) -> list[Path]:
    """The files behind a dotted name within the folder: a module, or a package with all it holds."""
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return []
    for length in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:length])
        if (place / "__init__.py").is_file():
            return sorted(_package_files(root / parts[0]))
        if place.with_suffix(".py").is_file():
            inits = (root.joinpath(*parts[:upper]) / "__init__.py" for upper in range(1, length))
            return [place.with_suffix(".py"), *(init for init in inits if init.is_file())]
    return []


def _package_files(folder: Path) -> Iterator[Path]:
    """All files of a package, its data too; nothing hidden, compiled or belonging to an environment."""
    for item in folder.iterdir():
        if item.name.startswith(".") or item.name in _NOT_CODE or item.suffix in {".pyc", ".pyo"}:
            continue
        if item.is_dir():
            if not (item / "pyvenv.cfg").exists():
                yield from _package_files(item)
        elif item.is_file():
            yield item


def inferred_requirements(imports: Mapping[str, bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Requirements for imported modules as this environment has them, and warnings about those it lacks."""
    if not imports:
        return (), ()
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    installed: Mapping[str, list[str]] = {}
    lines: dict[str, None] = {}
    warnings = []
    for name, optional in imports.items():
        owner = _namesake(name)
        if not owner and _importable(name):
            # Reading what all distributions hold takes a tenth of a second.
            installed = installed or packages_distributions()
            owner = min(installed.get(name, ()), default="")
        if owner:
            with suppress(PackageNotFoundError):
                # A local version (`2.13.0+cpu`) names a build of one index; the release is what matters.
                lines[_smallest(owner, version(owner).partition("+")[0])] = None
                continue
        if optional:
            continue
        guess = distribution_of(name)
        lines[guess] = None
        warnings.append(f"`{name}` is not installed here: taking the newest `{guess}`; list it in requirements.txt")
    return tuple(sorted(lines)), tuple(warnings)


def _smallest(owner: str, release: str) -> str:
    """The requirement for a distribution, in its build without CUDA where the release has one of a name of its own."""
    line = f"{owner}=={release}"
    if owner != "xgboost":
        return line
    # Imported here: servers load this module too, for classes that are none of XGBoost's.
    from corten.adapters.xgboost_facts import cpu_requirement

    smaller = cpu_requirement(numbers(release))
    return smaller if pinned(smaller) else line


def _namesake(module: str) -> str:
    """The distribution called like a module, if it brought it; a namespace package's other owners are not meant."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution(module)
    except PackageNotFoundError:
        return ""
    brought = any(file.parts[0] in (module, f"{module}.py") for file in found.files or ())
    return str(found.metadata["Name"]) if brought else ""


def _importable(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # imported, by nobody knows what
        return True


def distribution_of(module: str) -> str:
    """What a top-level module is likely to be installed by, where nothing here says it."""
    return _DISTRIBUTIONS.get(module, module.replace("_", "-"))
