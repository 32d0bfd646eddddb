"""Run modules of PyTorch on rows, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from corten.adapters.base import InputError
from corten.adapters.threads import threads
from corten.adapters.torch_file import OUTPUT
from corten.core.schema import DType, Schema, Style, Tensor

if TYPE_CHECKING:
    import numpy as np

INPUT = "inputs"


def import_torch() -> Any:
    """The package, with as many threads as a call may take."""
    import torch

    torch.set_num_threads(threads(os.environ))
    return torch


def free_schema(names: Sequence[str] = (INPUT,)) -> Schema:
    """Rows of any shape: what a module itself says of its tensors."""
    return Schema(
        Style.ROWS,
        inputs=tuple(Tensor(name, DType.JSON, (None,)) for name in names),
        outputs=(Tensor(OUTPUT, DType.JSON, (None,)),),
    )


class FreeModel:
    """A module that tells no shapes: rows as they come, made into tensors of one type an input."""

    def __init__(self, module: Callable[..., Any], dtypes: Mapping[str, Any]) -> None:
        self._torch = import_torch()
        self.schema = free_schema(tuple(dtypes))
        self._module = module
        self._dtypes = dtypes

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """One call of the module with all rows."""
        tensors = [self._tensor(name, dtype, inputs[name].tolist()) for name, dtype in self._dtypes.items()]
        with self._torch.inference_mode():
            answer = self._module(*tensors)
        if isinstance(answer, (list, tuple)):
            return {f"output_{index}": item.numpy() for index, item in enumerate(answer)}
        if isinstance(answer, dict):
            return {str(name): item.numpy() for name, item in answer.items()}
        return {OUTPUT: answer.numpy()}

    def _tensor(self, name: str, dtype: Any, rows: list[Any]) -> Any:
        try:
            return self._torch.tensor(rows, dtype=dtype)
        except (ValueError, TypeError) as error:
            place = INPUT if name == INPUT else f"{INPUT}.{name}"
            raise InputError(f"the rows make no array of numbers: {error}", path=place) from error
