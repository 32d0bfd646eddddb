"""Classes of known shapes, told by what they inherit: Cog's `BasePredictor`, LitServe's `LitAPI`, PyTorch's `Module`.

Neither server is needed in the image: `cog_names` and `litserve_names` stand for them there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from corten.adapters.base import Source, SourceFile
from corten.adapters.py_source import Served, is_python, parse, yields
from corten.adapters.weights import visible
from corten.core.schema import Parameter, Schema, Stream, Style
from corten.errors import UsageError

COG, LITSERVE, MODULE = "cog", "litserve", "torch"
_BASES = {
    "cog.BasePredictor": COG,
    "cog.predictor.BasePredictor": COG,
    "litserve.LitAPI": LITSERVE,
    "litserve.api.LitAPI": LITSERVE,
    "torch.nn.Module": MODULE,
    "torch.nn.modules.module.Module": MODULE,
}
_MAX_NAME = 200


def has_shape(source: Source, shape: str) -> bool:
    """Whether a Python file's class has that shape; a file that cannot be parsed has none."""
    if not is_python(source.path):
        return False
    try:
        return bool(shaped_class(parse(source.path), source.entry, shape))
    except UsageError:
        return False  # for the adapter of plain classes to say


def shape_of(tree: ast.Module, name: str) -> str:
    """`cog`, `litserve`, `torch`, or nothing for a plain class; bases of the same file are followed."""
    names = _imported(tree)
    nodes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    pending, seen = [name], set[str]()
    while pending:
        current = pending.pop()
        if current in seen or current not in nodes:
            continue
        seen.add(current)
        for base in nodes[current].bases:
            dotted = _dotted(base, names)
            if dotted in _BASES:
                return _BASES[dotted]
            pending.append(dotted)
    return ""


def shaped_class(tree: ast.Module, entry: str, shape: str) -> str:
    """The class of that shape a file serves: `entry`, or one that has it; empty for none."""
    if entry:
        return entry if shape_of(tree, entry) == shape else ""
    names = (node.name for node in tree.body if isinstance(node, ast.ClassDef))
    return next((name for name in names if shape_of(tree, name) == shape), "")


def check_names(tree: ast.Module, package: str, known: frozenset[str], path: Path) -> None:
    """Refuse what a stand-in does not have. Raises UsageError (`adapter.contract`)."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package and not node.level:
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            dotted = _dotted(node, _imported(tree))
            names = [dotted.removeprefix(f"{package}.")] if dotted.startswith(f"{package}.") else []
        for name in names:
            if name not in known:
                raise UsageError(
                    "adapter.contract",
                    f"`{package}.{name}` has no counterpart here",
                    where=f"{path}:{getattr(node, 'lineno', 1)}",
                    why=f"of `{package}` are known: {', '.join(sorted(known))}",
                    hint="serve it as a plain class with a typed `predict`",
                )


def named_files(tree: ast.Module, folder: Path) -> Iterator[SourceFile]:
    """Files and folders that exist beside the source and are named in it by a relative path, such as weights.

    Both servers run such code where it lies; in an image these files are below /models, where the class is made.
    """
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        text = node.value.removeprefix("./")
        parts = Path(text).parts
        if not 0 < len(text) < _MAX_NAME or "\0" in text or not parts or text.startswith("/") or ".." in parts:
            continue
        place = folder / text
        if not place.resolve().is_relative_to(folder.resolve()) or place.resolve() == folder.resolve():
            continue
        if place.is_file() and place.suffix != ".py":
            yield SourceFile(place, place.relative_to(folder).as_posix())
        elif place.is_dir() and not (place / "__init__.py").exists():
            yield from (SourceFile(file, file.relative_to(folder).as_posix()) for file in visible(place))


def litserve_schema(served: Served, path: Path) -> Schema:
    """The keys a LitAPI reads from its request. Raises UsageError when its text does not tell them."""
    method = served.methods.get("decode_request") or served.methods["predict"]
    arguments = method.args.args[1:]
    request = arguments[0].arg if arguments else ""
    required = {
        node.slice.value: None
        for node in ast.walk(method)
        if isinstance(node, ast.Subscript)
        and _is_name(node.value, request)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
    }
    optional = {
        node.args[0].value: None
        for node in ast.walk(method)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get"
        and _is_name(node.func.value, request)
        and node.args
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }
    if not required and not optional:
        raise UsageError(
            "adapter.contract",
            f"`{served.name}.{method.name}` does not say which keys a request has",
            where=f"{path}:{method.lineno}",
            why="they are told from `request[...]` and `request.get(...)`",
            hint='read the keys in `decode_request`: `return request["input"]`',
        )
    parameters = [Parameter(name, {}) for name in required]
    parameters += [Parameter(name, {}, required=False) for name in optional if name not in required]
    stream = Stream.LIST if yields(served.methods["predict"]) else None
    return Schema(Style.CALL, parameters=tuple(parameters), stream=stream)


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _imported(tree: ast.Module) -> Mapping[str, str]:
    """What the module's names stand for: `ls` for `litserve`, `BasePredictor` for `cog.BasePredictor`."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""
