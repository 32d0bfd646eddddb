"""Read a Python source without running it: which class serves, what `predict` takes and gives.

Types become JSON Schema as far as their annotations can be told from the text; what cannot is left open (`{}`), and
the loader (`py_call`) tells it exactly, from the types themselves.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.core.schema import Parameter, Schema, Stream, Style
from corten.errors import UsageError

PREDICT, PREDICT_BATCH = "predict", "predict_batch"
_SERVED = frozenset({PREDICT, PREDICT_BATCH, "chat", "complete"})
_MAX_SOURCE_BYTES = 4 << 20
_SIMPLE: Mapping[str, Mapping[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    "None": {"type": "null"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
}
# By their last names: `Image.Image`, `np.ndarray`, `pd.DataFrame`.
_FOREIGN: Mapping[str, Mapping[str, Any]] = {
    "Image": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/*"},
    "ndarray": {"type": "array"},
    "NDArray": {"type": "array"},
    "DataFrame": {"type": "array", "items": {"type": "object"}, "x-corten-table": True},
}
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
}
_WORDS = {"pattern": "pattern", "description": "description", "title": "title"}
_SEQUENCES = frozenset({"list", "List", "Sequence", "Iterable", "Collection", "set", "frozenset"})
_MAPPINGS = frozenset({"dict", "Dict", "Mapping", "MutableMapping"})
_JOINED = frozenset({"ConcatenateIterator", "AsyncConcatenateIterator"})
_STREAMS = frozenset({"Iterator", "Generator", "AsyncIterator", "AsyncGenerator", "AsyncIterable"}) | _JOINED
_MAX_DEPTH = 16


@dataclass(frozen=True, slots=True)
class Served:
    """A class that can be served: its name, line and the definitions of its methods."""

    name: str
    line: int
    node: ast.ClassDef
    methods: Mapping[str, ast.FunctionDef | ast.AsyncFunctionDef]


def parse(path: Path) -> ast.Module:
    """The syntax tree of a file. Raises UsageError (`adapter.syntax`) with the line."""
    try:
        if path.stat().st_size > _MAX_SOURCE_BYTES:
            raise UsageError("adapter.syntax", f"`{path.name}` is too long for a source file", where=str(path))
        with warnings.catch_warnings():
            # `"\\d"` and the like are for the author's own tools to speak of.
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes(), filename=path.name)
    except SyntaxError as error:
        raise UsageError(
            "adapter.syntax",
            f"`{path.name}` is not valid Python",
            where=f"{path}:{error.lineno or 1}",
            why=error.msg,
        ) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise UsageError("adapter.syntax", f"`{path.name}` is not Python", where=str(path), why=str(error)) from error


def served_class(tree: ast.Module, path: Path, entry: str) -> Served:
    """The class called `entry`, or the only one with `predict`. Raises UsageError when there is none or several."""
    nodes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    classes = [_served(node, nodes) for node in nodes.values()]
    able = [found for found in classes if found.methods.keys() & _SERVED]
    if entry:
        chosen = next((found for found in classes if found.name == entry), None)
        if chosen is None:
            raise _no_class(path, f"`{path.name}` has no class `{entry}`", [found.name for found in able])
        if chosen not in able and not chosen.node.bases:
            raise _no_class(path, f"`{entry}` has no method `{PREDICT}`", [found.name for found in able])
        return chosen
    # A base class of another one is not meant.
    bases = {base.id for found in able for base in found.node.bases if isinstance(base, ast.Name)}
    able = [found for found in able if found.name not in bases]
    if len(able) != 1:
        what = f"`{path.name}` has {len(able) or 'no'} classes with a method `{PREDICT}`"
        raise _no_class(path, what, [found.name for found in able])
    return able[0]


def _no_class(path: Path, what: str, names: list[str]) -> UsageError:
    return UsageError(
        "adapter.no_class",
        what,
        where=str(path),
        why=f"classes with one: {', '.join(names)}" if names else "no class in it has one",
        hint=f"name it: `{path.name}:{names[0]}`" if names else "write `class Model:` with `def predict(self, ...)`",
    )


def _served(node: ast.ClassDef, nodes: Mapping[str, ast.ClassDef]) -> Served:
    """A class with its methods, inherited ones of the same file too."""
    methods: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    line, seen = [node], {node.name}
    while line:
        current = line.pop(0)
        for item in current.body:
            if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                methods.setdefault(item.name, item)
        for base in current.bases:
            if isinstance(base, ast.Name) and base.id in nodes and base.id not in seen:
                seen.add(base.id)
                line.append(nodes[base.id])
    return Served(node.name, node.lineno, node, methods)


def is_python(path: Path) -> bool:
    """Whether it is a Python file: that is what its name says, since only `.py` files can be imported."""
    return path.suffix == ".py" and path.is_file()


def check_contract(served: Served, path: Path, *, given: tuple[str, ...] = ("models",)) -> None:
    """Refuse what cannot be served: arguments nobody would give, batches beside `async` or piece by piece.

    `given` are the arguments `__init__` and `setup` get.
    """
    for name in ("__init__", "setup"):
        if function := served.methods.get(name):
            needed = [name for name, _, default in _parameters(function) if default is None and name not in given]
            if needed:
                raise _breach(
                    path,
                    function,
                    f"`{served.name}.{name}` needs `{needed[0]}`",
                    "it is called without arguments, but for `models`, the folder of the model files",
                    "give the parameter a default value",
                )
    batched = PREDICT_BATCH in served.methods
    for name in (PREDICT, PREDICT_BATCH):
        if function := served.methods.get(name):
            _check_predict(served, function, path, batched=batched)


def _check_predict(
    served: Served, function: ast.FunctionDef | ast.AsyncFunctionDef, path: Path, *, batched: bool
) -> None:
    what = f"`{served.name}.{function.name}`"
    arguments = function.args
    if batched and isinstance(function, ast.AsyncFunctionDef):
        why = f"`{PREDICT_BATCH}` is given many calls at once, `async` methods many side by side"
        raise _breach(path, function, f"{what} is `async`", why, f"write it without, or leave `{PREDICT_BATCH}` out")
    if batched and yields(function):
        why = f"with `{PREDICT_BATCH}` answers are given whole, one for each call"
        raise _breach(path, function, f"{what} is a generator", why, f"return it, or leave `{PREDICT_BATCH}` out")
    if arguments.vararg or arguments.kwarg or len(arguments.posonlyargs) > 1:
        raise _breach(
            path,
            function,
            f"{what} takes `*`, `**` or positional-only arguments",
            "each key of a request's JSON object is one named argument",
            "name and annotate each argument",
        )
    if function.name == PREDICT_BATCH and len(_parameters(function)) != 1:
        raise _breach(
            path, function, f"{what} must take one argument", "it is given the list of calls", "`calls: list[...]`"
        )


def _breach(path: Path, function: ast.FunctionDef | ast.AsyncFunctionDef, what: str, why: str, hint: str) -> UsageError:
    return UsageError("adapter.contract", what, where=f"{path}:{function.lineno}", why=why, hint=hint)


def yields(function: ast.AST) -> bool:
    """Whether a function is a generator."""
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in _own_nodes(function))


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions within it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            yield child
            yield from _own_nodes(child)


def _parameters(
    function: ast.FunctionDef | ast.AsyncFunctionDef,
) -> list[tuple[str, ast.expr | None, ast.expr | None]]:
    """Name, annotation and default of each parameter but `self`."""
    arguments = function.args
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    defaults += arguments.defaults
    is_static = any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in function.decorator_list)
    pairs = list(zip(plain, defaults, strict=True))[0 if is_static else 1 :]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [(argument.arg, argument.annotation, _default(default)) for argument, default in pairs]


def _default(node: ast.expr | None) -> ast.expr | None:
    """A default; what Cog's `Input(...)` has as one stands for it."""
    if not isinstance(node, ast.Call) or _last_name(node.func) != "Input":
        return node
    named = next((word.value for word in node.keywords if word.arg == "default"), None)
    return node.args[0] if node.args else named


def static_schema(tree: ast.Module, served: Served) -> Schema | None:
    """The schema as the text tells it; None when the class inherits the method that serves."""
    types = _Types(tree)
    if predict := served.methods.get(PREDICT):
        return _static(types, predict)
    batch = served.methods.get(PREDICT_BATCH)
    if batch is None:
        talking = served.methods.get("chat") or served.methods.get("complete")
        return _static(types, talking) if talking is not None else None
    call = types.schema(_parameters(batch)[0][1]).get("items", {})
    required = call.get("required", ())
    parameters = tuple(
        Parameter(name, schema, required=name in required) for name, schema in call.get("properties", {}).items()
    )
    return Schema(Style.CALL, parameters=parameters, returns=types.schema(batch.returns).get("items", {}))


def _static(types: _Types, method: ast.FunctionDef | ast.AsyncFunctionDef) -> Schema:
    parameters = tuple(
        Parameter(name, types.with_default(types.schema(annotation), default), required=default is None)
        for name, annotation, default in _parameters(method)
    )
    returns = method.returns
    if isinstance(returns, ast.Constant) and isinstance(returns.value, str):
        returns = _expression(returns.value)
    outer = _last_name(returns.value) if isinstance(returns, ast.Subscript) else ""
    if outer not in _STREAMS and not yields(method):
        return Schema(Style.CALL, parameters=parameters, returns=types.schema(returns))
    piece: ast.expr | None = None
    if outer in _STREAMS | _SEQUENCES and isinstance(returns, ast.Subscript):
        piece = returns.slice.elts[0] if isinstance(returns.slice, ast.Tuple) else returns.slice
    stream = Stream.TEXT if outer in _JOINED else Stream.LIST
    return Schema(Style.CALL, parameters=parameters, returns=types.schema(piece), stream=stream)


class _Types:
    """Annotations to JSON Schema, with the classes of the same file."""

    def __init__(self, tree: ast.Module) -> None:
        self._classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self._aliases = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        }

    def schema(self, node: ast.expr | None, depth: int = 0) -> dict[str, Any]:
        """The JSON Schema of an annotation; empty (anything) for what is not understood."""
        if depth > _MAX_DEPTH:
            return {}
        match node:
            case ast.Constant(value=None):
                return dict(_SIMPLE["None"])
            case ast.Constant(value=str(text)):
                return self.schema(_expression(text), depth + 1)
            case ast.Name(id=name) if name in _SIMPLE:
                return dict(_SIMPLE[name])
            case ast.Name(id=name) if name in self._classes:
                return self._object(self._classes[name], depth)
            case ast.Name(id=name) if name in self._aliases:
                return self.schema(self._aliases[name], depth + 1)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return _any_of(self.schema(left, depth + 1), self.schema(right, depth + 1))
            case ast.Name() | ast.Attribute() if _last_name(node) in _FOREIGN:
                return dict(_FOREIGN[_last_name(node)])
            case ast.Subscript(value=outer, slice=inner):
                return self._generic(_last_name(outer), inner, depth + 1)
            case _:
                return {}

    def _generic(self, outer: str, inner: ast.expr, depth: int) -> dict[str, Any]:
        arguments = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if outer in _SEQUENCES:
            return {"type": "array", "items": self.schema(arguments[0], depth)}
        if outer in _MAPPINGS and len(arguments) == 2:
            return {"type": "object", "additionalProperties": self.schema(arguments[1], depth)}
        if outer == "Optional":
            return _any_of(self.schema(arguments[0], depth), dict(_SIMPLE["None"]))
        if outer == "Union":
            return _any_of(*(self.schema(argument, depth) for argument in arguments))
        if outer == "Literal" and all(isinstance(argument, ast.Constant) for argument in arguments):
            return {"enum": [argument.value for argument in arguments if isinstance(argument, ast.Constant)]}
        if outer == "Annotated":
            return _bounded(self.schema(arguments[0], depth), arguments[1:])
        return dict(_FOREIGN[outer]) if outer in {"NDArray", "ndarray"} else {}

    def _object(self, node: ast.ClassDef, depth: int) -> dict[str, Any]:
        """A dataclass, TypedDict or Struct of the same file, by its annotated fields."""
        if {_last_name(base) for base in node.bases} & {"Enum", "StrEnum", "IntEnum"}:
            values = [item.value for item in node.body if isinstance(item, ast.Assign)]
            known = [value.value for value in values if isinstance(value, ast.Constant)]
            return {"title": node.name, "enum": known} if known and len(known) == len(values) else {}
        marks = {_last_name(mark.func if isinstance(mark, ast.Call) else mark) for mark in node.decorator_list}
        bases = {_last_name(base) for base in node.bases}
        if not (marks & {"dataclass", "dataclass_transform"} or bases & {"TypedDict", "Struct", "BaseModel"}):
            return {}
        fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
        schemas = {
            field.target.id: self.with_default(self.schema(field.annotation, depth + 1), field.value)
            for field in fields
            if isinstance(field.target, ast.Name)
        }
        required = [field.target.id for field in fields if isinstance(field.target, ast.Name) and field.value is None]
        return {"title": node.name, "type": "object", "properties": schemas, "required": required}

    @staticmethod
    def with_default(schema: dict[str, Any], default: ast.expr | None) -> dict[str, Any]:
        if isinstance(default, ast.Constant) and isinstance(default.value, (str, int, float, bool, type(None))):
            return {**schema, "default": default.value}
        return schema


def _bounded(schema: dict[str, Any], metadata: Sequence[ast.expr]) -> dict[str, Any]:
    """A schema with the constraints of `Meta(ge=1)`, `Field(ge=1)` and the like, as far as they are constants."""
    found = dict(schema)
    for call in metadata:
        for word in call.keywords if isinstance(call, ast.Call) else ():
            value = word.value.value if isinstance(word.value, ast.Constant) else None
            if word.arg in _BOUNDS and type(value) in {int, float}:
                found[_BOUNDS[word.arg]] = value
            elif word.arg in _WORDS and isinstance(value, str):
                found[_WORDS[word.arg]] = value
            elif word.arg in {"min_length", "max_length"} and type(value) is int:
                side = word.arg[:3]
                found[f"{side}Items" if schema.get("type") == "array" else f"{side}Length"] = value
    return found


def _any_of(*schemas: dict[str, Any]) -> dict[str, Any]:
    # One side that may be anything makes the whole anything.
    return {"anyOf": list(schemas)} if all(schemas) else {}


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _expression(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return None
