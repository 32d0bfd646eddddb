"""PyTorch on the CPU: exported programs (`torch.export.save`) and TorchScript."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from corten.adapters.base import InputError, Inspection, Source, SourceFile
from corten.adapters.distributions import installed
from corten.adapters.threads import threads
from corten.adapters.torch_file import OUTPUT, Exported, Form, form_of, read_exported
from corten.adapters.weights import declared, once_each
from corten.core.model import ModelSpec
from corten.core.schema import DType, Schema, Style, Tensor
from corten.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

_INPUT = "inputs"
_MAX_CODE_BYTES = 16 << 20


class Torch:
    """A file of PyTorch that holds a program."""

    name: ClassVar[str] = "torch"

    def detect(self, source: Source) -> bool:
        """Whether it is one of PyTorch's zip files, by their members."""
        return source.path.is_file() and form_of(source.path) is not None

    def inspect(self, source: Source) -> Inspection:
        """Version, inputs and outputs from the file alone. Raises UsageError for files without a program."""
        path = source.path
        form = form_of(path)
        if source.method not in ("", "predict"):
            raise UsageError(
                "adapter.unknown_method",
                f"a program of PyTorch has no method `{source.method}`",
                where=str(path),
                hint="leave `method` out: `forward` answers",
            )
        if form is Form.EXPORTED:
            program = read_exported(path)
            return self._inspection(source, program.version, _schema(program), _notes(program), ())
        if form is Form.SCRIPT:
            said = "TorchScript tells no shapes: rows are taken as they come, as float32; `torch.export` tells them"
            return self._inspection(source, "", _free_schema(), ["TorchScript, run by torch.jit"], (said,))
        raise UsageError(
            "adapter.not_a_model",
            f"`{path.name}` holds tensors or a pickled object, and no program",
            where=str(path),
            why="a state dict needs its class, and a pickled module the code it was made with",
            hint="save a program by `torch.export.save`, or write a class that loads it: `corten up file.py:Class`",
        )

    def _inspection(
        self, source: Source, version: str, schema: Schema, notes: list[str], warnings: tuple[str, ...]
    ) -> Inspection:
        here = installed("torch")
        if version and here and here != version:
            warnings += (f"PyTorch {here} is installed here; the image gets the model's {version}",)
        release = version or here
        told = "made with" if version else "the file does not tell its version of PyTorch: taking"
        line = f"{told} PyTorch {release}" if release else f"{told} the newest; declare `requirements`"
        return Inspection(
            adapter=self.name,
            requirements=(f"torch=={release}" if release else "torch", "numpy"),
            weights=once_each((SourceFile(source.path, source.path.name), *declared(source))),
            schema=schema,
            notes=(*notes, *([line] if version else [])),
            warnings=(*warnings, *([] if version else [line])),
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> ExportedModel | ScriptModel:
        """Load the program; raises what PyTorch raises."""
        del app
        path = models / spec.files[0]
        return ExportedModel(path) if form_of(path) is Form.EXPORTED else ScriptModel(path)


def _schema(program: Exported) -> Schema:
    return Schema(Style.ROWS, inputs=program.inputs, outputs=program.outputs)


def _free_schema() -> Schema:
    """Rows of any shape; what TorchScript itself says of its tensors."""
    return Schema(
        Style.ROWS,
        inputs=(Tensor(_INPUT, DType.JSON, (None,)),),
        outputs=(Tensor(OUTPUT, DType.JSON, (None,)),),
    )


def _notes(program: Exported) -> list[str]:
    notes = [f"PyTorch, exported program of {', '.join(tensor.name for tensor in program.inputs)}"]
    if fixed := [tensor.name for tensor in program.inputs if tensor.shape[0] is not None]:
        notes.append(f"the first dimension of {', '.join(fixed)} is fixed, so requests are not joined into batches")
    if program.most_rows:
        notes.append(f"it takes {program.most_rows} rows at once; more are given to it in turns")
    return notes


def _import_torch() -> Any:
    import torch

    torch.set_num_threads(threads(os.environ))
    return torch


class ExportedModel:
    """An exported program."""

    def __init__(self, path: Path) -> None:
        self._torch = _import_torch()
        program = read_exported(path)
        self.schema = _schema(program)
        self._most_rows = program.most_rows
        # Weights and sample inputs are read as tensors only (`weights_only`), the graph is JSON: nothing is unpickled.
        self._module = self._torch.export.load(path).module()

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """One call of the program, or several where it takes no more rows."""
        import numpy as np

        arrays = [inputs[tensor.name] for tensor in self.schema.inputs]
        rows, most = len(arrays[0]), self._most_rows
        if most is None or rows <= most:
            return self._call(arrays)
        parts = [self._call([array[start : start + most] for array in arrays]) for start in range(0, rows, most)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _call(self, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
        tensors = [self._torch.from_numpy(array) for array in arrays]
        try:
            with self._torch.inference_mode():
                answers = self._torch.utils._pytree.tree_leaves(self._module(*tensors))  # noqa: SLF001  # its public form is private
        except AssertionError as error:
            # What an exported program says of shapes it was not exported for: "Guard failed: x.size()[0] <= 64".
            raise InputError(str(error), path=_INPUT) from error
        names = [tensor.name for tensor in self.schema.outputs]
        return {name: answer.numpy() for name, answer in zip(names, answers, strict=True)}


class ScriptModel:
    """A TorchScript program of one tensor."""

    def __init__(self, path: Path) -> None:
        self._torch = _import_torch()
        self.schema = _free_schema()
        self._module = self._torch.jit.load(path, map_location="cpu").eval()
        self._dtype = self._torch.int64 if _looks_up(path) else self._torch.float32

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """One call of the program with all rows."""
        try:
            rows = self._torch.tensor(inputs[_INPUT].tolist(), dtype=self._dtype)
        except (ValueError, TypeError) as error:
            raise InputError(f"the rows make no array of numbers: {error}", path=_INPUT) from error
        with self._torch.inference_mode():
            answer = self._module(rows)
        if isinstance(answer, (list, tuple)):
            return {f"output_{index}": item.numpy() for index, item in enumerate(answer)}
        if isinstance(answer, dict):
            return {str(name): item.numpy() for name, item in answer.items()}
        return {OUTPUT: answer.numpy()}


def _looks_up(path: Path) -> bool:
    """Whether the program looks its input up in a table, so that it takes whole numbers."""
    with zipfile.ZipFile(path) as archive:
        code = (info for info in archive.infolist() if info.filename.endswith(".py"))
        return any(b"torch.embedding(" in archive.read(info) for info in code if info.file_size < _MAX_CODE_BYTES)
