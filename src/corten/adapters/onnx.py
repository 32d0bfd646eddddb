"""ONNX models, run by ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from corten.adapters.base import InputError, Inspection, Source, SourceFile
from corten.adapters.converted import ConvertedModel, stands_for
from corten.adapters.onnx_session import open_session
from corten.core.model import ModelSpec
from corten.core.schema import DType, Schema, Style, Tensor
from corten.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from corten.adapters.onnx_file import OnnxFile

# Operator sets ONNX Runtime's CPU build has; others need a library the model file does not bring.
_KNOWN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.preview",
        "ai.onnx.preview.training",
        "ai.onnx.training",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
    }
)


class Onnx:
    """A file in ONNX format, with its external data files if it has any."""

    name: ClassVar[str] = "onnx"

    def detect(self, source: Source) -> bool:
        """Whether the file starts as an ONNX model does."""
        from corten.adapters.onnx_file import is_onnx  # the builder's: `load` reads files by ONNX Runtime

        return source.path.is_file() and is_onnx(source.path)

    def inspect(self, source: Source) -> Inspection:
        """Inputs, outputs and weights from the file alone. Raises UsageError for broken or incomplete ones."""
        from corten.adapters.corrupt import corrupt
        from corten.adapters.onnx_external import external_files
        from corten.adapters.onnx_file import read_onnx
        from corten.adapters.weights import declared, once_each

        path = source.path
        model = read_onnx(path)
        if not model.inputs or not model.outputs:
            raise corrupt(
                path,
                f"has {len(model.inputs)} inputs and {len(model.outputs)} outputs",
                "a model to serve needs one of each at least",
                hint="export the model again",
            )
        if source.method not in ("", "predict"):
            raise UsageError(
                "adapter.unknown_method",
                f"an ONNX model has no method `{source.method}`",
                where=str(path),
                hint="leave `method` out: all outputs are answered",
            )
        return Inspection(
            adapter=self.name,
            requirements=("onnxruntime", "numpy"),
            weights=once_each((SourceFile(path, path.name), *external_files(path, model), *declared(source))),
            schema=Schema(Style.ROWS, inputs=model.inputs, outputs=model.outputs),
            notes=tuple(_notes(path, model)),
            warnings=tuple(_warnings(model)),
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> OnnxModel | ConvertedModel:
        """Open a session on the file; one that stands for another model answers as that one does."""
        del app
        path = models / spec.files[0]
        session = open_session(path)
        if spec.schema is not None and (original := stands_for(session)):
            return ConvertedModel(session, original, spec.schema)
        return OnnxModel(session, path, spec.schema)


def _notes(path: Path, model: OnnxFile) -> list[str]:
    opsets = ", ".join(dict.fromkeys(f"{domain or 'ai.onnx'} {version}" for domain, version in model.opsets))
    notes = [f"ONNX, IR version {model.ir_version}, operator sets {opsets or 'none'}"]
    if model.producer:
        notes.append(f"made by {model.producer}")
    if model.external:
        notes.append(f"weights of `{path.name}` in {', '.join(model.external)}")
    if fixed := [tensor.name for tensor in model.inputs if tensor.shape and tensor.shape[0] is not None]:
        notes.append(f"the first dimension of {', '.join(fixed)} is fixed, so requests are not joined into batches")
    return notes


def _warnings(model: OnnxFile) -> list[str]:
    unknown = sorted(domain for domain, _ in model.opsets if domain not in _KNOWN_DOMAINS)
    return [f"operators of `{domain}` are not part of ONNX Runtime; the model may not load" for domain in unknown]


class OnnxModel:
    """A model of ONNX Runtime, asked by the names and types of its own inputs."""

    def __init__(self, session: Any, path: Path, schema: Schema | None = None) -> None:
        self._session = session
        if schema is None:
            from corten.adapters.onnx_file import read_onnx

            model = read_onnx(path)
            schema = Schema(Style.ROWS, inputs=model.inputs, outputs=model.outputs)
        self.schema = schema
        self._names = [tensor.name for tensor in self.schema.outputs]
        self._dtypes = {tensor.name: _numpy_name(tensor) for tensor in self.schema.inputs}

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """One call of the session."""
        import numpy as np

        feeds = {name: np.asarray(inputs[name], dtype=dtype) for name, dtype in self._dtypes.items()}
        try:
            answers = self._session.run(self._names, feeds)
        except Exception as error:
            # The runtime's exceptions have no common base; the one for wrong shapes and types is told by its name.
            if type(error).__name__ == "InvalidArgument":
                raise InputError(_reason(str(error)), path="inputs") from error
            raise
        return {name: _array(answer) for name, answer in zip(self._names, answers, strict=True)}


def _reason(text: str) -> str:
    """The runtime's message without its code in front and its advice to the modeller behind."""
    told = text.partition("INVALID_ARGUMENT : ")[2] or text
    return " ".join(told.partition("Please fix")[0].split())


def _numpy_name(tensor: Tensor) -> str:
    return "object" if tensor.dtype in (DType.STRING, DType.JSON) else tensor.dtype.value


def _array(answer: Any) -> np.ndarray:
    """A tensor as it is; sequences (of maps, from `ZipMap`, or of tensors) as an array of JSON values."""
    import numpy as np

    if isinstance(answer, np.ndarray):
        return answer
    items = answer if isinstance(answer, list) else [answer]
    joined = np.empty(len(items), dtype=object)
    joined[:] = [_json(item) for item in items]
    return joined


def _json(item: Any) -> Any:
    if isinstance(item, dict):
        return {str(key): _json(value) for key, value in item.items()}
    return item.tolist() if hasattr(item, "tolist") else item
