"""PyTorch on the CPU: exported programs (`torch.export.save`) and TorchScript."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from corten.adapters.base import InputError, Inspection, Source, SourceFile
from corten.adapters.distributions import declares, installed
from corten.adapters.torch_file import Exported, Form, form_of, read_exported
from corten.adapters.torch_run import INPUT, FreeModel, free_schema, import_torch
from corten.adapters.torch_state import StateFile, is_state, read_state
from corten.adapters.weights import declared, once_each
from corten.core.model import ModelSpec
from corten.core.schema import Schema, Style
from corten.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

_MAX_CODE_BYTES = 16 << 20


class Torch:
    """A file of PyTorch that holds a program."""

    name: ClassVar[str] = "torch"

    def detect(self, source: Source) -> bool:
        """Whether it is one of PyTorch's zip files, by their members, or safetensors (which are refused with words)."""
        return source.path.is_file() and (form_of(source.path) is not None or is_state(source.path))

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
            return self._inspection(source, "", free_schema(), ["TorchScript, run by torch.jit"], (said,))
        raise _without_program(read_state(path))

    def _inspection(
        self, source: Source, version: str, schema: Schema, notes: list[str], warnings: tuple[str, ...]
    ) -> Inspection:
        here = installed("torch")
        if version and here and here != version and not declares(source.requirements, "torch"):
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
            warnings=(*warnings, *([] if version or declares(source.requirements, "torch") else [line])),
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> ExportedModel | FreeModel:
        """Load the program; raises what PyTorch raises."""
        del app
        path = models / spec.files[0]
        if form_of(path) is Form.EXPORTED:
            return ExportedModel(path)
        torch = import_torch()
        program = torch.jit.load(path, map_location="cpu").eval()
        return FreeModel(program, {INPUT: torch.int64 if _looks_up(path) else torch.float32})


def _without_program(state: StateFile) -> UsageError:
    from corten.adapters.hf_folder import is_hf

    path = state.path
    kind = "a safetensors file" if state.is_safetensors else "a state dict"
    names = ", ".join(state.names[:3]) + (" ..." if len(state.names) > 3 else "")
    if state.is_safetensors and is_hf(path.parent):
        hint = f"give the Hugging Face folder it is in: `corten up {path.parent}`"
    else:
        hint = (
            f'give its class with it: `corten up net.py:Net --file {path.name}` (`files = ["{path.name}"]` in '
            "corten.toml); or save a program: `torch.export.save(torch.export.export(module, (rows,)), PATH)`"
        )
    return UsageError(
        "adapter.not_a_model",
        f"`{path.name}` is {kind}: weights and no program",
        where=str(path),
        why=f"{len(state.names)} tensors ({names}), and nothing that says what is done with them",
        hint=hint,
    )


def _schema(program: Exported) -> Schema:
    return Schema(Style.ROWS, inputs=program.inputs, outputs=program.outputs)


def _notes(program: Exported) -> list[str]:
    notes = [f"PyTorch, exported program of {', '.join(tensor.name for tensor in program.inputs)}"]
    if fixed := [tensor.name for tensor in program.inputs if tensor.shape[0] is not None]:
        notes.append(f"the first dimension of {', '.join(fixed)} is fixed, so requests are not joined into batches")
    if program.most_rows:
        notes.append(f"it takes {program.most_rows} rows at once; more are given to it in turns")
    return notes


class ExportedModel:
    """An exported program."""

    def __init__(self, path: Path) -> None:
        self._torch = import_torch()
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
            raise InputError(str(error), path=INPUT) from error
        names = [tensor.name for tensor in self.schema.outputs]
        return {name: answer.numpy() for name, answer in zip(names, answers, strict=True)}


def _looks_up(path: Path) -> bool:
    """Whether the program looks its input up in a table, so that it takes whole numbers."""
    with zipfile.ZipFile(path) as archive:
        code = (info for info in archive.infolist() if info.filename.endswith(".py"))
        return any(b"torch.embedding(" in archive.read(info) for info in code if info.file_size < _MAX_CODE_BYTES)
