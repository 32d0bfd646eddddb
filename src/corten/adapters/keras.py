"""Models of Keras 3 (`.keras`), without TensorFlow: run by OpenVINO, or by JAX or PyTorch where one is declared."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from corten.adapters.base import InputError, Inspection, Source, SourceFile
from corten.adapters.distributions import distribution, installed, numbers
from corten.adapters.keras_file import OUTPUT, KerasFile, is_hdf5, is_keras, read_keras
from corten.adapters.threads import threads
from corten.adapters.weights import declared, once_each
from corten.core.model import ModelSpec
from corten.core.schema import Schema, Style
from corten.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

_OPENVINO = "openvino"
# Other backends a user may prefer, each its distribution's name.
_BACKENDS = ("jax", "torch")
# The first whose OpenVINO backend was found to run the usual layers; it reads what all earlier ones of version 3 wrote.
_FIRST_KERAS = "3.15"
_SAVED_MODEL = "saved_model.pb"
_ENDING = ".keras"


class Keras:
    """A file written by `model.save("model.keras")`."""

    name: ClassVar[str] = "keras"

    def detect(self, source: Source) -> bool:
        """Whether it is one of Keras's zip files; its older formats too, which are refused with words."""
        if source.path.is_dir():
            return (source.path / _SAVED_MODEL).is_file()
        return source.path.is_file() and (is_keras(source.path) or is_hdf5(source.path))

    def inspect(self, source: Source) -> Inspection:
        """Release, layers and inputs from the file alone. Raises UsageError and PolicyError for what is refused."""
        path = source.path
        if path.is_dir() or is_hdf5(path):
            raise _older(path)
        if source.method not in ("", "predict"):
            raise UsageError(
                "adapter.unknown_method",
                f"a model of Keras has no method `{source.method}`",
                where=str(path),
                hint="leave `method` out: `predict` answers",
            )
        model = read_keras(path)
        release, warnings = _release(model, path)
        named = {distribution(line) for line in source.requirements}
        backend = next((name for name in _BACKENDS if name in named), _OPENVINO)
        return Inspection(
            adapter=self.name,
            # Keras imports scipy with each of its backends, and does not ask for it.
            requirements=(release, "numpy", "scipy", *((_OPENVINO,) if backend == _OPENVINO else ())),
            weights=once_each((SourceFile(path, _name(path)), *declared(source))),
            schema=Schema(Style.ROWS, inputs=model.inputs, outputs=model.outputs),
            notes=tuple(_notes(model, backend)),
            warnings=warnings,
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> KerasModel:
        """Judge the file once more and load it; raises what Keras raises."""
        del app
        return KerasModel(models / spec.files[0])


def _name(path: Path) -> str:
    """The file's name in the image. Keras goes by its ending alone (keras/src/saving/saving_api.py)."""
    return path.name if path.name.endswith(_ENDING) else f"{path.name}{_ENDING}"


def _older(path: Path) -> UsageError:
    if path.is_dir():
        return UsageError(
            "adapter.not_a_model",
            f"`{path.name}` is a SavedModel of TensorFlow",
            where=str(path / _SAVED_MODEL),
            why="TensorFlow alone runs it, and it is not put into images",
            hint=f"export it to ONNX: `python -m tf2onnx.convert --saved-model {path.name} --output model.onnx`",
        )
    return UsageError(
        "adapter.not_a_model",
        f"`{path.name}` is HDF5: Keras's format before version 3, or weights alone",
        where=str(path),
        why="it tells neither its release nor, without code, its layers",
        hint=f'save it anew by Keras 3: `keras.saving.load_model("{path.name}").save("model.keras")`',
    )


def _release(model: KerasFile, path: Path) -> tuple[str, tuple[str, ...]]:
    """The requirement for Keras, and warnings that name both releases where there are two."""
    told, here = model.version, installed("keras")
    if not told or numbers(told) < (3,):
        raise UsageError(
            "adapter.not_a_model",
            f"`{path.name}` was written by Keras {told or 'of an unknown release'}",
            where=str(path),
            why="Keras before version 3 is TensorFlow's",
            hint=f'save it anew by Keras 3: `keras.saving.load_model("{path.name}").save("model.keras")`',
        )
    if numbers(told) < numbers(_FIRST_KERAS):
        said = f"the file was written by Keras {told}; the image gets {_FIRST_KERAS} or newer, which reads it"
        return f"keras>={_FIRST_KERAS},<4", (said,)
    if here and here != told:
        return f"keras=={told}", (f"Keras {here} is installed here; the image gets the file's {told}",)
    return f"keras=={told}", ()


def _notes(model: KerasFile, backend: str) -> list[str]:
    taken = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in model.inputs).replace("None", "?")
    how = "OpenVINO runs it, without TensorFlow" if backend == _OPENVINO else f"{backend} runs it, as declared"
    return [
        f"Keras {model.version}, {model.kind} of {model.layers} layers, from {taken}",
        f"made with Keras {model.version}, as its metadata says; {how}",
    ]


class KerasModel:
    """A loaded model and the backend that is there."""

    def __init__(self, path: Path) -> None:
        file = read_keras(path)
        usual = next((name for name in _BACKENDS if importlib.util.find_spec(name)), _OPENVINO)
        backend = os.environ.setdefault("KERAS_BACKEND", usual)
        if backend == _OPENVINO:
            _exact()
        import keras

        self.schema = Schema(Style.ROWS, inputs=file.inputs, outputs=file.outputs)
        self._by_name = file.inputs_by_name
        self._model = keras.saving.load_model(path, compile=False, safe_mode=True)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Rows in, what `predict` says of them out."""
        arrays = [inputs[tensor.name] for tensor in self.schema.inputs]
        given: Any = arrays[0] if len(arrays) == 1 else arrays
        if self._by_name:
            given = {tensor.name: array for tensor, array in zip(self.schema.inputs, arrays, strict=True)}
        try:
            answer = self._model.predict_on_batch(given)
        except ValueError as error:
            raise InputError(str(error).partition("\n")[0], path="inputs") from error
        return _named(answer, [tensor.name for tensor in self.schema.outputs])


def _exact() -> None:
    """Let OpenVINO count in float32, as the model was trained: of its own it takes bfloat16 where a processor has it.

    Keras hands no settings on (keras/src/backend/openvino/trainer.py), and answers would differ by 0.006.
    """
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads(os.environ)}
    openvino.compile_model = functools.partial(openvino.compile_model, config=settings)


def _named(answer: Any, names: list[str]) -> dict[str, np.ndarray]:
    import numpy as np

    if isinstance(answer, dict):
        return {str(name): np.asarray(value) for name, value in answer.items()}
    if isinstance(answer, (list, tuple)):
        return {name: np.asarray(value) for name, value in zip(names, answer, strict=True)}
    return {OUTPUT: np.asarray(answer)}
