"""The source of a class written in a notebook or a script, with what it uses, as a module that stands alone.

Importing the script itself would train the model again, and a notebook cannot be imported at all. So the class is cut
out, and for each global it names: modules and what comes from modules are imported, functions and classes of the same
notebook are cut out too, plain values are written down. Anything else is an error that names it.
"""

from __future__ import annotations

import ast
import importlib
import linecache
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corten.errors import UsageError

MAIN = frozenset({"__main__", "__mp_main__"})


def standalone_source(cls: type) -> str:
    """Python source that defines `cls` and all it needs. Raises UsageError (`package.no_source`)."""
    found = _Cut(_globals_of(cls))
    found.add(cls.__name__, cls)
    return "\n\n".join(["from __future__ import annotations", *found.imports, *found.definitions]) + "\n"


class _Cut:
    """Definitions in the order they must run, each after what it uses."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self._names = names
        self._done: set[str] = set()
        self.imports: list[str] = []
        self.definitions: list[str] = []

    def add(self, name: str, value: Any) -> None:
        if name in self._done:
            return
        self._done.add(name)
        if isinstance(value, types.ModuleType):
            self.imports.append(f"import {value.__name__} as {name}")
        elif isinstance(value, (type, types.FunctionType)) and value.__module__ in MAIN:
            node = _node_of(value)
            for used in sorted(_used_names(node)):
                if used in self._names:
                    self.add(used, self._names[used])
            self.definitions.append(ast.unparse(node))
        elif origin := _origin(value):
            self.imports.append(f"from {origin[0]} import {origin[1]} as {name}")
        else:
            self.definitions.append(f"{name} = {_literal(name, value)}")


def _globals_of(cls: type) -> Mapping[str, Any]:
    return next((function.__globals__ for function in _functions(cls)), {})


def _functions(cls: type) -> Iterator[types.FunctionType]:
    for value in vars(cls).values():
        plain = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if isinstance(plain, types.FunctionType):
            yield plain


def _node_of(value: type | types.FunctionType) -> ast.ClassDef | ast.FunctionDef:
    """The definition's syntax tree, from the file or cell it was typed into."""
    for name in _places(value):
        try:
            tree = ast.parse("".join(linecache.getlines(name)))
        except SyntaxError:  # a cell with magics of IPython
            continue
        # Cells are typed again and again: the last definition of that name in it is the one in force.
        for node in reversed(tree.body):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == value.__name__:
                return node
    raise _no_source(value.__name__, "its source is not to be found")


def _places(value: type | types.FunctionType) -> Iterator[str]:
    """Names `linecache` may know the source by: what its code says, the script, the cells from the newest on."""
    functions = [value] if isinstance(value, types.FunctionType) else list(_functions(value))
    yield from (function.__code__.co_filename for function in functions)
    # Dataclasses and TypedDicts may have no code of their own.
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script:
        yield script
    yield from (name for name in reversed(list(linecache.cache)) if not Path(name).is_file())


def _used_names(node: ast.AST) -> set[str]:
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    texts = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    # Annotations may be written as text: `-> "list[Label]"`.
    return names | {text for text in texts if text.isidentifier()}


def _origin(value: Any) -> tuple[str, str] | None:
    """The module and name a value can be imported by, if it is the same there."""
    module = getattr(value, "__module__", None)
    name = getattr(value, "__qualname__", None) or getattr(value, "_name", None)
    if not isinstance(module, str) or not isinstance(name, str) or module in MAIN or not name.isidentifier():
        return None
    try:
        return (module, name) if getattr(importlib.import_module(module), name, None) is value else None
    except ImportError:
        return None


def _literal(name: str, value: Any) -> str:
    """A value of builtin types, as it would be typed."""
    text = repr(value)
    try:
        if len(text) < 100_000 and ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    raise _no_source(name, f"it is a `{type(value).__name__}` made in the notebook, which cannot be written down")


def _no_source(name: str, why: str) -> UsageError:
    return UsageError(
        "package.no_source",
        f"cannot take `{name}` along",
        why=why,
        hint="write the class and what it needs to a file, import it from there, and package it again",
    )
