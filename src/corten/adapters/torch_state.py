"""The weights of a module by themselves: what a safetensors file or a state dict of `torch.save` holds, by name.

Nothing is unpickled: a state dict's names are read by the static reader, its tensors by PyTorch with `weights_only`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.adapters.broken_zip import BROKEN_ZIP
from corten.adapters.corrupt import corrupt
from corten.adapters.pickles import read_inner_pickle
from corten.adapters.safetensors_file import is_safetensors, read_safetensors
from corten.adapters.standins import Global, Made
from corten.adapters.torch_file import Form, form_of
from corten.errors import UsageError

# Where training scripts put the state dict in a checkpoint, beside the optimizer's (PyTorch's tutorial, Lightning).
WRAPPERS = ("state_dict", "model_state_dict", "model")
# What DistributedDataParallel and torch.compile put before each name.
PREFIXES = ("module.", "_orig_mod.")
_ORDERED = Global("collections", "OrderedDict")
_TENSOR_MAKERS = frozenset({"_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter", "_rebuild_qtensor"})


@dataclass(frozen=True, slots=True)
class StateFile:
    """Weights without a program: the names of the tensors, without what wrappers put before them."""

    path: Path
    names: tuple[str, ...]

    @property
    def is_safetensors(self) -> bool:
        """Whether it is safetensors, else a state dict of `torch.save`."""
        return is_safetensors(self.path)


def is_state(path: Path) -> bool:
    """Whether a file holds weights and no program, by its first bytes or members. Never raises for content."""
    return path.is_file() and (is_safetensors(path) or form_of(path) is Form.TENSORS)


def read_state(path: Path) -> StateFile:
    """The names of the tensors. Raises UsageError `adapter.corrupt_model`, `adapter.not_a_model` for other objects."""
    if is_safetensors(path):
        return StateFile(path, bare_names(read_safetensors(path).tensors))
    root = unwrapped(_saved(path))
    if not root or not all(_is_tensor(value) for value in root.values()):
        raise UsageError(
            "adapter.not_a_model",
            f"`{path.name}` holds {_described(_saved(path))}, not the weights of a module alone",
            where=str(path),
            why="what `torch.save(module)` writes runs code when it is loaded; `weights_only` refuses it",
            hint="save the weights: `torch.save(module.state_dict(), PATH)`, or a program by `torch.export.save`",
        )
    return StateFile(path, bare_names(root))


def unwrapped(state: Any) -> dict[str, Any]:
    """The state dict in what was saved: itself, or a checkpoint's; empty for other objects."""
    if not isinstance(state, dict):
        return {}
    for key in WRAPPERS:
        if isinstance(inner := _plain(state.get(key)), dict):
            return {str(name): value for name, value in inner.items()}
    return {str(name): value for name, value in state.items()}


def bare_names(names: Mapping[str, Any]) -> tuple[str, ...]:
    """The names without a prefix that all of them have."""
    found = tuple(names)
    for prefix in PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            found = tuple(name.removeprefix(prefix) for name in found)
    return found


def _saved(path: Path) -> object:
    """What the pickle in the file makes, as stand-ins."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(info for info in archive.infolist() if info.filename.partition("/")[2] == "data.pkl")
            with archive.open(member) as stream:
                return _plain(read_inner_pickle(stream, member.file_size, path).root)  # type: ignore[arg-type]  # IO[bytes]
    except (*BROKEN_ZIP, StopIteration) as error:
        hint = "save it again, and copy it in binary mode"
        raise corrupt(path, "is not a complete file of PyTorch", error, hint=hint) from error


def _plain(value: object) -> object:
    """An OrderedDict as the dict it is."""
    return value.state or {} if isinstance(value, Made) and value.maker == _ORDERED else value


def _is_tensor(value: object) -> bool:
    return isinstance(value, Made) and isinstance(value.maker, Global) and value.maker.name in _TENSOR_MAKERS


def _described(root: object) -> str:
    if isinstance(root, Made) and isinstance(root.maker, Global):
        return f"an object of `{root.maker}`"
    if isinstance(root, dict):
        return "a dict with " + ", ".join(f"`{str(key)[:30]}`" for key in list(root)[:5])
    return f"a {type(root).__name__}"
