"""From the process that trained a model straight to an image, with its versions and its answers recorded."""

from __future__ import annotations

import html
import importlib.util
import inspect as introspection
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from corten import plugin
from corten.adapters.base import Inspection, Source
from corten.builder.acceleration import Converted
from corten.builder.inspecting import inspect
from corten.builder.plan import distribution
from corten.builder.source import read_project
from corten.core.acceleration import ONNX_FILE, Accelerate
from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.model import Example, ModelSpec
from corten.core.name import suggest_name
from corten.core.schema import Schema, Style
from corten.errors import UsageError
from corten.ops.build import build
from corten.ops.built import Built
from corten.ops.class_source import MAIN, standalone_source

if TYPE_CHECKING:
    from corten.ops.deploy import Deployed

# Enough rows to tell whether the image computes the same; they are part of the image and replayed at every start.
_MAX_EXAMPLE_ROWS = 16
# What a pickled estimator's results depend on, besides its own package.
_PINNED = ("scikit-learn", "numpy", "scipy")


@dataclass(frozen=True, slots=True)
class Packaged:
    """An image of a model, in the local store. `example` is what every replica must reproduce before it is ready."""

    built: Built
    example: Example | None
    home: Home

    @property
    def name(self) -> str:
        """The name it is deployed under."""
        return self.built.name

    @property
    def digest(self) -> Digest:
        """The image's digest."""
        return self.built.digest

    @property
    def reference(self) -> str:
        """`NAME@sha256:...`."""
        return self.built.reference

    @property
    def size_bytes(self) -> int:
        """What a registry would send."""
        return self.built.size_bytes

    def deploy(self, replicas: int = 1, *, port: int | None = None, listen: Listener = nobody) -> Deployed:
        """Run it behind the gateway, as `corten.deploy` does; raises what that raises."""
        from corten.ops.deploy import deploy

        settings = replace(self.built.project.settings, replicas=replicas, most_replicas=replicas)
        return deploy(self.digest, self.name, settings, home=self.home, port=port, listen=listen)

    def __repr__(self) -> str:
        return f"Packaged({self.reference}, {self.size_bytes / 1e6:.1f} MB)"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        recorded = "none" if self.example is None else "replayed before every start"
        rows = [
            ("image", self.reference),
            ("size", f"{self.size_bytes / 1e6:.1f} MB in {len(self.built.layers)} layers"),
            ("example", recorded),
            *(("note", note) for note in self.built.plan.notes),
            *(("warning", warning) for warning in self.built.warnings),
        ]
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
        return f"<table>{cells}</table>"


@dataclass(frozen=True, slots=True)
class _Saved:
    """A model on its way to the builder: its source, the object in this process if it has one, exact versions."""

    source: str
    name: str
    live: Any = None
    pins: tuple[str, ...] = ()


def package(
    model: Any,
    *,
    name: str = "",
    example: Any = None,
    method: str = "",
    home: Home | None = None,
    requirements: Iterable[str] = (),
    base: str = "",
    accelerate: Accelerate | str = Accelerate.OFF,
    trust: Iterable[str] = (),
    listen: Listener = nobody,
) -> Packaged:
    """Build an image of a model in this process: a scikit-learn estimator, an ONNX model, an object with `predict`.

    `model` may also be a path, or a class. Of an object of your own the class goes into the image, not its
    attributes: it is made anew there. `example` are inputs (rows, a data frame, a dict of arguments); what the model
    answers to them here, now, is recorded, and each replica must answer the same before it gets requests.
    `method` is the estimator's to call (default `predict`). The versions of this process are pinned; `requirements`
    are added and win over them. `base` is an image to build on instead of Debian's packages. `accelerate` (`auto`,
    `require`) exchanges the model for its ONNX form where that answers the same; with skl2onnx and onnxruntime
    installed here it is done here, else in a sandbox. `trust` are digests or paths of model files that may name what no
    model needs.

    Raises UsageError `package.unknown_model`, `package.no_source`, `package.bad_example`, and what `build` raises.
    """
    home = home or Home.from_env(os.environ, uid=os.getuid())
    with tempfile.TemporaryDirectory(prefix="corten-package-") as folder:
        saved = _save(model, Path(folder))
        wish, trusted = Accelerate(accelerate), tuple(trust)
        project = read_project(saved.source, name=name or saved.name, method=method, trust=trusted)
        source, inspection = inspect(project.source, cache=home.cache)
        recorded = None if example is None else _record(saved, source, inspection, example, listen)
        converted = None if wish is Accelerate.OFF else _converted(saved, source, inspection, recorded, Path(folder))
        declared = tuple(requirements)
        named = {distribution(line) for line in declared}
        built = build(
            saved.source,
            home=home,
            name=project.name,
            requirements=(*(pin for pin in saved.pins if distribution(pin) not in named), *declared),
            method=method,
            example=recorded,
            base=base,
            accelerate=wish,
            converted=converted,
            trust=trusted,
            listen=listen,
        )
    return Packaged(built, recorded, home)


def _save(model: Any, folder: Path) -> _Saved:
    """Put the model where the builder can read it."""
    if isinstance(model, (str, Path)):
        return _Saved(str(model), "")
    if hasattr(model, "get_params") and hasattr(model, "fit") and not isinstance(model, type):
        import joblib

        joblib.dump(model, folder / "model.joblib")
        return _Saved(
            str(folder / "model.joblib"), suggest_name(type(model).__name__), live=model, pins=_installed(_PINNED)
        )
    if hasattr(model, "SerializeToString") and hasattr(model, "graph"):
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        name = suggest_name(str(getattr(model.graph, "name", "")) or "model")
        return _Saved(str(folder / "model.onnx"), name, pins=_installed(("onnxruntime", "numpy")))
    return _save_class(model, folder)


def _save_class(model: Any, folder: Path) -> _Saved:
    cls = model if isinstance(model, type) else type(model)
    if not callable(getattr(cls, "predict", None)) and not callable(getattr(cls, "predict_batch", None)):
        raise UsageError(
            "package.unknown_model",
            f"do not know how to package a `{cls.__module__}.{cls.__qualname__}`",
            why="expected a scikit-learn estimator, an ONNX model, a path, or an object with `predict`",
            hint="wrap it in a class with `def predict(self, ...)`",
        )
    if "." in cls.__qualname__:
        raise UsageError(
            "package.no_source",
            f"`{cls.__qualname__}` is defined within something else",
            why="only classes on the top level of a module can be imported by name",
            hint="move the class to the top level",
        )
    if cls.__module__ in MAIN:
        path = folder / f"{suggest_name(cls.__name__).replace('-', '_')}_model.py"
        path.write_text(standalone_source(cls), encoding="utf-8")
    else:
        path = Path(introspection.getsourcefile(cls) or "")
    live = None if isinstance(model, type) else model
    return _Saved(f"{path}:{cls.__name__}", suggest_name(cls.__name__), live=live)


def _installed(names: Iterable[str]) -> tuple[str, ...]:
    """Exact versions, as this process has them."""
    from importlib.metadata import PackageNotFoundError, version

    lines = []
    for name in names:
        try:
            # A local version (`2.1+cpu`) names a build of one index; the release is what matters.
            lines.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return tuple(lines)


def _record(saved: _Saved, source: Source, inspection: Inspection, example: Any, listen: Listener) -> Example:
    """Ask the model in this process, through the code that answers requests in the image."""
    from corten.serve.calls import CallsRunner
    from corten.serve.job import Reply
    from corten.serve.rows import RowsRunner

    if inspection.adapter == "onnx" and importlib.util.find_spec("onnxruntime") is None:
        note = "onnxruntime is not installed here: that the model answers is checked, not what it answers"
        listen(Event("example", Phase.WARNING, note))
        return Example(_body(example, inspection.schema))
    model = _loaded(saved, source, inspection)
    body = _body(example, model.schema)
    runner = CallsRunner(model) if model.schema.style is Style.CALL else RowsRunner(model)
    try:
        result = runner.run([runner.decode(msgspec.json.encode(body))]).results[0]
    except Exception as error:
        raise _bad_example(error) from error
    if isinstance(result, BaseException):
        raise _bad_example(result) from result
    answer = result.body if isinstance(result, Reply) else result
    assert isinstance(answer, bytes)  # noqa: S101 - asked without a sink
    return Example(body, msgspec.json.decode(answer)["outputs"])


def _converted(
    saved: _Saved, source: Source, inspection: Inspection, recorded: Example | None, folder: Path
) -> Converted | None:
    """The verdict on the model's ONNX form, found out in this process; None where the sandbox is to find it out.

    Only of an object of this process: a file is not to be loaded here.
    """
    here = all(importlib.util.find_spec(name) for name in ("skl2onnx", "onnxruntime"))
    if saved.live is None or inspection.adapter != "sklearn" or not here:
        return None
    from corten.serve.convert import attempt

    original = Digest.of_file(source.path)
    conversion, data = attempt(_loaded(saved, source, inspection), inspection.method, recorded, str(original))
    if not data:
        return Converted(conversion)
    (folder / ONNX_FILE).write_bytes(data)
    return Converted(conversion, folder / ONNX_FILE)


def _bad_example(error: BaseException) -> UsageError:
    path = getattr(error, "path", "")
    return UsageError(
        "package.bad_example",
        "the model does not answer the example",
        where=f"example, at {path}" if path else "example",
        why=str(error) if path else f"{type(error).__name__}: {error}",
        hint="give inputs as a request would have them: rows, a data frame, or a dict of arguments",
    )


def _loaded(saved: _Saved, source: Source, inspection: Inspection) -> Any:
    """The model as the image's server would have it, made of the very object where there is one."""
    if inspection.adapter == "sklearn" and saved.live is not None:
        from corten.adapters.sklearn import SklearnModel

        return SklearnModel(saved.live, inspection.method, inspection.schema)
    if inspection.adapter == "pyclass" and saved.live is not None:
        from corten.adapters.py_call import PyModel

        return PyModel(saved.live)
    spec = ModelSpec(
        name="",
        adapter=inspection.adapter,
        files=tuple(file.name for file in inspection.weights),
        entry=inspection.entry,
        method=inspection.method,
        schema=inspection.schema,
    )
    folder = source.path.parent
    models = folder / "model" if inspection.adapter == "pyclass" else folder
    return plugin.find("adapters", inspection.adapter)().load(spec, models, folder)


def _body(example: Any, schema: Schema | None) -> Any:
    """The example as the JSON body of a request."""
    if schema is not None and schema.style is Style.CALL:
        if isinstance(example, dict):
            return msgspec.to_builtins(example, enc_hook=_plain)
        return {schema.parameters[0].name: msgspec.to_builtins(example, enc_hook=_plain)}
    if isinstance(example, dict):
        inputs = example.get("inputs", example)
        if isinstance(inputs, dict):
            return {"inputs": {str(key): _rows(value, 1) for key, value in inputs.items()}}
        return {"inputs": _rows(inputs, 1)}
    tensor = schema.inputs[0] if schema is not None and schema.inputs else None
    if tensor is not None and tensor.columns and hasattr(example, "columns"):
        example = example[list(tensor.columns)]
    return {"inputs": _rows(example, len(tensor.shape) if tensor is not None else 1)}


def _rows(values: Any, rank: int) -> Any:
    """The first rows as lists; a lone row where rows are expected becomes one."""
    if hasattr(values, "toarray"):  # a sparse matrix
        values = values.toarray()
    if hasattr(values, "to_numpy"):  # a data frame or series
        values = values.to_numpy()
    plain = msgspec.to_builtins(values, enc_hook=_plain)
    if not isinstance(plain, Sequence) or isinstance(plain, str):
        plain = [plain]
    if rank == 2 and plain and not isinstance(plain[0], (list, tuple, dict)):
        plain = [plain]
    return list(plain[:_MAX_EXAMPLE_ROWS])


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's arrays and scalars
        return value.tolist()
    raise TypeError(f"`{type(value).__name__}` has no form in JSON")
