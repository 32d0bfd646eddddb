"""scikit-learn, and what follows its conventions: pickle, joblib and skops files."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from corten.adapters.allowlist import DISTRIBUTIONS, Verdict, judge
from corten.adapters.base import InputError, Inspection, RowsModel, Source, SourceFile
from corten.adapters.distributions import declares, installed, numbers
from corten.adapters.pickles import is_pickle, read_pickle
from corten.adapters.sklearn_facts import BOOSTERS, Facts, default_method, facts_of, schema_of, with_booster
from corten.adapters.sklearn_frame import Frames, wants_frame
from corten.adapters.sklearn_quick import settle
from corten.adapters.skops_file import is_skops, read_skops
from corten.adapters.standins import Contents, Global, Made
from corten.adapters.unpickle import is_trusted, load_pickle, refused
from corten.adapters.weights import declared, once_each
from corten.core.model import ModelSpec
from corten.core.schema import DType, Schema, Style, Tensor
from corten.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")
# The first scikit-learn wheels made with numpy 2, which run with both (its changelog, 1.4.2).
_FIRST_WITH_NUMPY_2 = (1, 4, 2)
# The first release with wheels for a Python, from the package index.
_FIRST_FOR_PYTHON_311 = (1, 1, 3)
# Comes with scikit-learn, so its version is the resolver's business.
_BROUGHT_ALONG = frozenset({"numpy", "scipy", "joblib", "scikit-learn"})


class Sklearn:
    """Estimators and pipelines saved by pickle, joblib or skops."""

    name: ClassVar[str] = "sklearn"

    def detect(self, source: Source) -> bool:
        """Whether it is a pickle (compressed or not) or a skops file, by content."""
        return source.path.is_file() and (is_pickle(source.path) or is_skops(source.path))

    def inspect(self, source: Source) -> Inspection:
        """Class, versions and schema from the file alone.

        Raises UsageError for broken files, other objects than estimators and code of the user's own, and PolicyError
        for files that name what no model needs.
        """
        # Imported here, as in `load`: a replica of any other estimator would pay for it at each start.
        from corten.adapters import pickled_boosters

        path = source.path
        contents = read_skops(path) if is_skops(path) else read_pickle(path)
        trusted = _trusted(contents, source)
        if not trusted:
            _check_globals(contents, source)
        root, cls = _estimator(contents, path)
        if cls in BOOSTERS:
            return pickled_boosters.inspection(self.name, source, cls)
        booster = (
            pickled_boosters.xgboost_of(path) if any(found.root == "xgboost" for found in contents.globals) else None
        )
        facts = with_booster(facts_of(root, cls), booster)
        method = source.method or default_method(facts)
        if method not in METHODS:
            raise UsageError(
                "adapter.unknown_method",
                f"`{method}` is not a method to serve",
                where=str(path),
                why="known: " + ", ".join(METHODS),
            )
        requirements, pinned = _requirements(
            contents, facts, pickled_boosters.requirement_of(booster), source.requirements
        )
        return Inspection(
            adapter=self.name,
            requirements=requirements,
            weights=once_each((SourceFile(path, path.name), *declared(source))),
            method=method,
            schema=schema_of(facts, method),
            python=pickled_boosters.python_of(booster),
            notes=tuple(_notes(contents, facts, method, source.requirements)),
            warnings=(*trusted, *_warnings(facts, source.requirements), *pinned),
            trusted=source.trusted if trusted else (),
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> RowsModel:
        """Load the file, letting it name only what a model needs."""
        del app
        path = models / spec.files[0]
        with warnings.catch_warnings():
            # The image has the file's own version of scikit-learn; what else it warns of was said at build time.
            warnings.simplefilter("ignore")
            estimator = _load_skops(path, spec.trusted) if is_skops(path) else load_pickle(path, spec.trusted)
        if Global(type(estimator).__module__, type(estimator).__name__) in BOOSTERS:
            from corten.adapters import pickled_boosters

            return pickled_boosters.model(estimator, path, spec)
        settle(estimator)
        return SklearnModel(estimator, spec.method, spec.schema)


def _judged(contents: Contents, verdict: Verdict) -> list[Global]:
    """The globals of a file of which this is thought, by name."""
    return sorted((found for found in contents.globals if judge(found) is verdict), key=str)


def _trusted(contents: Contents, source: Source) -> tuple[str, ...]:
    """What is said of a file that would be refused if its digest were not trusted; empty for all others."""
    unsafe, unknown = _judged(contents, Verdict.UNSAFE), _judged(contents, Verdict.UNKNOWN)
    if not (unsafe or unknown) or not is_trusted(source.path, source.trusted):
        return ()
    names = ", ".join(f"`{found}`" for found in (*unsafe, *unknown)[:5])
    roots = ", ".join(sorted({found.root for found in unknown}))
    return (
        f"the file is trusted by its digest and may run anything in the replica: it names {names}",
        *((f"`{roots}` must be in the image: declare the package it comes from (-r)",) if roots else ()),
    )


def _check_globals(contents: Contents, source: Source) -> None:
    """Refuse in the builder what the loader would refuse later; say how to bring code of one's own along."""
    path = source.path
    unsafe, unknown = _judged(contents, Verdict.UNSAFE), _judged(contents, Verdict.UNKNOWN)
    if unsafe and contents.format != "skops":  # skops has a list of its own, which its loader enforces
        raise refused(unsafe[0], path, source.trusted)
    if unknown:
        names = ", ".join(f"`{found}`" for found in unknown[:3])
        raise UsageError(
            "adapter.unknown_code",
            f"the model needs code that is not in it: {names}",
            where=str(path),
            why=f"`{unknown[0].root}` is no package Corten knows; a pickle only names its classes",
            hint="write a class with `predict` that loads the model, beside that code: `corten up file.py:Class`",
        )


def _estimator(contents: Contents, path: Path) -> tuple[Made, Global]:
    """The object on top, if it is an instance of a model package's class."""
    root = contents.root
    if isinstance(root, Made) and root.cls is not None and _is_estimator(root.cls):
        return root, root.cls
    raise UsageError(
        "adapter.not_a_model",
        f"`{path.name}` holds {_described(root)}, not a fitted estimator",
        where=str(path),
        why=f"read as {contents.format}",
        hint="save the estimator or pipeline itself: `joblib.dump(model, path)`",
    )


def _is_estimator(cls: Global) -> bool:
    return cls.root in DISTRIBUTIONS and DISTRIBUTIONS[cls.root] not in {"numpy", "scipy", "pandas", "joblib"}


def _described(root: object) -> str:
    match root:
        case Made(maker=Global()):
            return f"a `{root.maker}`"
        case dict():
            keys = ", ".join(f"`{str(key)[:30]}`" for key in list(root)[:4] if isinstance(key, str))
            return f"a dict of {len(root)} ({keys})" if keys else f"a dict of {len(root)}"
        case list() | tuple():
            return f"a {type(root).__name__} of {len(root)}"
        case _:
            return f"a value of type `{type(root).__name__}`"


def _requirements(
    contents: Contents, facts: Facts, xgboost: str, given: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """PEP 508 lines, and warnings about those without a version of their own."""
    lines = [f"scikit-learn=={facts.version}" if facts.version else "scikit-learn"]
    if bound := _numpy_bound(contents, facts):
        lines.append(bound)
    if contents.format == "skops":
        lines.append(f"skops>={contents.versions['skops']}" if "skops" in contents.versions else "skops")
    named = {DISTRIBUTIONS[found.root] for found in contents.globals if found.root in DISTRIBUTIONS}
    if facts.needs_frame:
        named.add("pandas")
    said = []
    if xgboost:
        named.remove("xgboost")
        lines.append(xgboost)
    for name in sorted(named - _BROUGHT_ALONG):
        version = installed(name)
        lines.append(f"{name}=={version}" if version else name)
        if declares(given, name):
            continue
        said.append(
            f"the file does not tell its version of {name}: "
            + (f"taking {version}, which is installed here" if version else "taking the newest")
        )
    return tuple(lines), tuple(said)


def _numpy_bound(contents: Contents, facts: Facts) -> str:
    modules = {found.module for found in contents.globals}
    if any(module.startswith("numpy._core") for module in modules):
        return "numpy>=2"
    if any(module.startswith("numpy.core") for module in modules):
        return "numpy<2"
    # Releases made for numpy 1 do not forbid numpy 2 in their metadata, yet crash with it.
    return "numpy<2" if facts.version and numbers(facts.version) < _FIRST_WITH_NUMPY_2 else ""


def _notes(contents: Contents, facts: Facts, method: str, given: Sequence[str]) -> list[str]:
    steps = f" ({' → '.join(facts.steps)})" if facts.steps else ""
    notes = [f"{facts.cls.name}{steps}, {contents.format}"]
    if facts.version:
        taken = "" if declares(given, "scikit-learn") else ", which goes into the image"
        notes.append(f"made with scikit-learn {facts.version}{taken}")
    if facts.n_features:
        named = f", named {', '.join(facts.columns[:3])} …" if facts.columns else ""
        notes.append(f"{facts.n_features} features{named}")
    if facts.n_classes:
        notes.append(f"{facts.n_classes} classes of type {facts.label_dtype.value if facts.label_dtype else 'json'}")
    notes.append(f"answers with `{method}`")
    if contents.format != "skops":
        notes.append(
            "a pickle runs what it names; it is let name only what models need. skops and ONNX files hold data"
        )
    return notes


def _warnings(facts: Facts, given: Sequence[str]) -> list[str]:
    found = []
    decided = declares(given, "scikit-learn")
    if not facts.version and not decided:
        found.append("the file does not tell its version of scikit-learn: taking the newest; declare `requirements`")
    elif facts.version and not decided and numbers(facts.version) < _FIRST_FOR_PYTHON_311:
        found.append(f"scikit-learn {facts.version} has no wheels for Python 3.11 or newer; declare `python`")
    if facts.other_versions:
        others = ", ".join(facts.other_versions)
        found.append(f"parts of the model were made with scikit-learn {others}, the whole with {facts.version}")
    here = installed("scikit-learn")
    if here and facts.version and not decided and here != facts.version:
        found.append(f"scikit-learn {here} is installed here; the image gets the model's {facts.version}")
    return found


def _load_skops(path: Path, trusted: Collection[str]) -> Any:
    import skops.io

    names = skops.io.get_untrusted_types(file=path)
    for name in () if is_trusted(path, trusted) else names:
        module, _, attribute = name.rpartition(".")
        if judge(Global(module, attribute)) is not Verdict.ALLOWED:
            raise refused(Global(module, attribute), path, trusted)
    return skops.io.load(path, trusted=names)


class SklearnModel:
    """A loaded estimator and the method that answers."""

    def __init__(self, estimator: Any, method: str, schema: Schema | None = None) -> None:
        answer = getattr(estimator, method, None)
        if not callable(answer):
            having = ", ".join(name for name in METHODS if callable(getattr(estimator, name, None))) or "none"
            raise UsageError(
                "adapter.unknown_method",
                f"`{type(estimator).__name__}` has no method `{method}`",
                why=f"methods it has: {having}",
                hint="set `method` to one it has",
            )
        self.estimator = estimator
        self._answer = answer
        self.schema = schema or _fallback_schema(estimator)
        tensor = self.schema.inputs[0]
        self._input = tensor.name
        self._output = self.schema.outputs[0].name
        self._frames = Frames(estimator, tensor.columns) if tensor.columns and wants_frame(estimator) else None

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Rows in, what the estimator says of each out."""
        rows = inputs[self._input]
        with warnings.catch_warnings():
            # Columns come in the order the estimator was fitted with, so that it misses their names is no news.
            warnings.filterwarnings("ignore", message="X does not have valid feature names")
            try:
                answer = self._answer(rows if self._frames is None else self._frames.make(rows))
            except (ValueError, TypeError) as error:
                raise InputError(str(error), path="inputs") from error
        return {self._output: _dense(answer)}


def _dense(answer: Any) -> np.ndarray:
    import numpy as np

    if hasattr(answer, "toarray"):
        return np.asarray(answer.toarray())
    if isinstance(answer, list):
        # predict_proba of a multi-output classifier: one (rows, classes) array a target, not always equally wide.
        if len({part.shape for part in answer}) == 1:
            return np.stack(answer, axis=1)
        joined = np.empty(len(answer[0]), dtype=object)
        joined[:] = [[part[row].tolist() for part in answer] for row in range(len(joined))]
        return joined
    return np.asarray(answer)


def _fallback_schema(estimator: Any) -> Schema:
    """When the builder told none: as many features as the estimator says, outputs free."""
    count = getattr(estimator, "n_features_in_", None)
    names = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
    return Schema(
        Style.ROWS,
        inputs=(Tensor("inputs", DType.FLOAT64, (None, count), names),),
        outputs=(Tensor("outputs", DType.JSON, (None,)),),
    )
