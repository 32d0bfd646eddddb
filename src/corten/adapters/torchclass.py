"""A module of PyTorch as its class and its weights: `net.py:Net` with safetensors or a state dict beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec.structs import replace

from corten.adapters.base import Inspection, Source, SourceFile
from corten.adapters.distributions import distribution, installed
from corten.adapters.py_inspection import inspection
from corten.adapters.py_shapes import MODULE, shape_of
from corten.adapters.py_source import PREDICT, PREDICT_BATCH, Served, check_contract, is_python, parse, served_class
from corten.core.model import ModelSpec
from corten.errors import UsageError

if TYPE_CHECKING:
    # Imported for a module only, as all below: this adapter is asked about every class, and most are none.
    from corten.adapters.torch_run import FreeModel
    from corten.adapters.torch_state import StateFile

_FORWARD = "forward"
# What an annotation says of a tensor's numbers; any other is float32, or int64 for a module that looks things up.
_DTYPES = {
    "LongTensor": "int64", "IntTensor": "int32", "DoubleTensor": "float64", "HalfTensor": "float16",
    "BoolTensor": "bool", "FloatTensor": "float32",
}  # fmt: skip
_REGISTERS = frozenset({"register_buffer", "register_parameter", "register_module", "add_module"})


class TorchClass:
    """A subclass of `torch.nn.Module` without a `predict` of its own."""

    name: ClassVar[str] = "torchclass"

    def detect(self, source: Source) -> bool:
        """Whether the file's class is a module, told by its bases."""
        if not is_python(source.path):
            return False
        try:
            return bool(_modules(parse(source.path), source.entry))
        except UsageError:
            return False  # for the adapter of plain classes to say

    def inspect(self, source: Source) -> Inspection:
        """Class, code and weights; nothing is run. Raises UsageError for what cannot be served."""
        from corten.adapters.torch_run import free_schema

        path = source.path.absolute()
        tree = parse(path)
        served = served_class(tree, path, _only(tree, source, path))
        check_contract(served, path, given=())
        inputs = _inputs(served, path)
        found = inspection(self.name, source, served, free_schema(tuple(inputs)))
        state = _state(found.weights, served, path)
        requirements, said = _requirements(found.requirements, source, state)
        return replace(
            found,
            requirements=requirements,
            weights=tuple(sorted(found.weights, key=lambda file: file.path != state.path)),
            notes=(
                f"a module of PyTorch, {_FORWARD}({', '.join(inputs)})",
                f"{len(state.names)} tensors in `{state.path.name}`, "
                + ("safetensors" if state.is_safetensors else "a state dict, read with weights_only"),
                *found.notes,
                *said,
            ),
            warnings=(
                *found.warnings,
                *_doubts(tree, served, state),
                "a module tells no shapes: rows are taken as they come; `torch.export` tells them",
            ),
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> FreeModel:
        """Import the class, make it, give it its weights.

        Raises UsageError `adapter.wrong_weights` where they are not those of the class, and what the class raises.
        """
        from corten.adapters.py_call import make_class
        from corten.adapters.torch_run import FreeModel, import_torch

        torch = import_torch()
        module = make_class(spec.entry, app)()
        _fill(module, models / spec.files[0], torch)
        looks_up = any(isinstance(part, torch.nn.Embedding) for part in module.modules())
        told = _types_in(app, spec.entry)
        usual = "int64" if looks_up else "float32"
        return FreeModel(module.eval(), {name: getattr(torch, kind or usual) for name, kind in told.items()})


def _modules(tree: ast.Module, entry: str) -> list[str]:
    """The classes that are modules and have no `predict`: `entry`, or those no other of them is made of."""
    nodes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    own = {
        name: node
        for name, node in nodes.items()
        if shape_of(tree, name) == MODULE and not {PREDICT, PREDICT_BATCH} & _functions(node)
    }
    if entry:
        return [entry] if entry in own else []
    if any(_functions(node) & {PREDICT, PREDICT_BATCH} for node in nodes.values()):
        return []  # that one serves, and has the modules it needs
    used = {
        word.id
        for name, node in nodes.items()
        for word in ast.walk(node)
        if isinstance(word, ast.Name) and word.id != name
    }
    return [name for name in own if name not in used]


def _functions(node: ast.ClassDef) -> set[str]:
    return {item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))}


def _only(tree: ast.Module, source: Source, path: Path) -> str:
    names = _modules(tree, source.entry)
    if len(names) > 1:
        raise UsageError(
            "adapter.no_class",
            f"`{path.name}` has {len(names)} modules of PyTorch",
            where=str(path),
            why=", ".join(names),
            hint=f"name it: `{path.name}:{names[-1]}`",
        )
    return names[0]


def _forward(served: Served, path: Path) -> ast.FunctionDef | ast.AsyncFunctionDef:
    if _FORWARD not in served.methods:
        raise UsageError(
            "adapter.contract",
            f"`{served.name}` has no method `{_FORWARD}` in this file",
            where=f"{path}:{served.line}",
            hint=f"write `def {_FORWARD}(self, x: torch.Tensor)`, or a class with a typed `predict`",
        )
    return served.methods[_FORWARD]


def _inputs(served: Served, path: Path) -> dict[str, str]:
    """The tensors `forward` must be given, by name, and what their annotation says of their type (else empty)."""
    from corten.adapters.torch_run import INPUT

    function = _forward(served, path)
    plain = [*function.args.posonlyargs, *function.args.args][1:]
    needed = plain[: len(plain) - len(function.args.defaults)]
    if not needed:
        raise UsageError(
            "adapter.contract",
            f"`{served.name}.{_FORWARD}` takes no tensor that must be given",
            where=f"{path}:{function.lineno}",
            hint="name its inputs without defaults, or write a class with a typed `predict`",
        )
    told = {argument.arg: _DTYPES.get(_last_name(argument.annotation), "") for argument in needed}
    return told if len(told) > 1 else {INPUT: next(iter(told.values()))}


def _last_name(node: ast.expr | None) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case ast.Constant(value=str(text)):
            return text.rpartition(".")[2]
        case _:
            return ""


def _types_in(app: Path, entry: str) -> dict[str, str]:
    """The same for the class in the image, from its text."""
    module, _, name = entry.partition(":")
    place = app.joinpath(*module.split("."))
    path = place.with_suffix(".py") if place.with_suffix(".py").is_file() else place / "__init__.py"
    return _inputs(served_class(parse(path), path, name), path)


def _state(files: tuple[SourceFile, ...], served: Served, path: Path) -> StateFile:
    from corten.adapters.damage import damage
    from corten.adapters.torch_state import is_state, read_state

    found = [file.path for file in files if is_state(file.path)]
    if len(found) == 1:
        return read_state(found[0])
    if not found and (broken := next((error for file in files if (error := damage(file.path))), None)):
        raise broken
    others = ", ".join(f"`{file.name}`" for file in files[:5])
    lacks = (
        f"neither safetensors nor a state dict: {others}" if others else "a module answers nothing without its training"
    )
    raise UsageError(
        "adapter.missing_weights" if not found else "build.several_models",
        f"`{served.name}` has {len(found) or 'no'} files of weights",
        where=str(path),
        why=", ".join(file.name for file in found[:5]) or lacks,
        hint='name one in corten.toml: `files = ["weights.safetensors"]`, on the command line `--file PATH`, '
        "or put it into `model/` beside the class",
    )


def _requirements(found: tuple[str, ...], source: Source, state: StateFile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    named = {distribution(line) for line in (*found, *source.requirements)}
    lines, said = list(found), []
    if "torch" not in named:
        here = installed("torch")
        lines.append(f"torch=={here}" if here else "torch")
        said.append(f"PyTorch {f'{here}, which is installed here' if here else 'of the newest release'}")
    if state.is_safetensors and "safetensors" not in named:
        lines.append("safetensors")
        said.append("safetensors, which the weights are in")
    return tuple(lines), (f"added: {'; '.join(said)}",) if said else ()


def _doubts(tree: ast.Module, served: Served, state: StateFile) -> Iterator[str]:
    """Weights whose first name the class does not seem to have, as far as its text tells."""
    nodes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    if any(isinstance(base, ast.Name) and base.id not in nodes and base.id != "Module" for base in served.node.bases):
        return  # a base from elsewhere may have them
    own: set[str] = set()
    for method in served.methods.values():
        for node in ast.walk(method):
            match node:
                case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                    own.add(name)
                case ast.Call(func=ast.Attribute(attr=name), args=[first, *_]) if name in _REGISTERS:
                    if not isinstance(first, ast.Constant):
                        return
                    own.add(str(first.value))
                case ast.Call(func=ast.Name(id="setattr")):
                    return
                case _:
                    pass
    strangers = sorted({name.partition(".")[0] for name in state.names} - own)
    if strangers:
        yield f"`{state.path.name}` has {', '.join(f'`{name}`' for name in strangers[:4])}, `{served.name}` does not"


def _fill(module: Any, path: Path, torch: Any) -> None:
    from corten.adapters.torch_state import bare_names, is_state, read_state, unwrapped

    if is_state(path) and read_state(path).is_safetensors:
        from safetensors.torch import load_file

        saved: Mapping[str, Any] = load_file(path)
    else:
        # Opened here: PyTorch takes a file that is called `*.safetensors` for one.
        with path.open("rb") as stream:
            saved = torch.load(stream, map_location="cpu", weights_only=True)
    state = unwrapped(dict(saved))
    state = dict(zip(bare_names(state), state.values(), strict=True))
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:  # sizes
        raise _wrong(module, path, str(error).partition("\n")[2].strip() or str(error)) from error
    if missing or unexpected:
        lacks = f"it lacks {_some(missing)}" if missing else ""
        has = f"it has {_some(unexpected)}, which the class does not" if unexpected else ""
        raise _wrong(module, path, "; ".join(part for part in (lacks, has) if part))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(f"`{name}`" for name in sorted(names)[:4]) + more


def _wrong(module: Any, path: Path, why: str) -> UsageError:
    return UsageError(
        "adapter.wrong_weights",
        f"`{path.name}` does not hold the weights of `{type(module).__name__}`",
        where=str(path),
        why=why,
        hint="give the class the arguments it was trained with as defaults, or the weights of this class",
    )
