"""What can be told of a fitted scikit-learn estimator from its stand-in: version, inputs, outputs, parts.

Attribute names are scikit-learn's own (developer guide, "Estimators": fitted attributes end in `_`), and the same in
every release since 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from corten.adapters.standins import Array, Global, Made, as_array, as_int, everything
from corten.core.schema import DType, Schema, Style, Tensor

if TYPE_CHECKING:
    from corten.adapters.xgboost_file import XgboostFile

# Attributes under which meta-estimators keep what they fitted, outermost first.
_INNER = ("best_estimator_", "estimator_", "regressor_", "base_estimator_", "estimator", "base_estimator")
_TEXT = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})
_TRANSFORMERS = (
    "sklearn.preprocessing.", "sklearn.decomposition.", "sklearn.feature_extraction.", "sklearn.feature_selection.",
    "sklearn.impute.", "sklearn.random_projection", "sklearn.kernel_approximation", "sklearn.manifold.",
    "sklearn.compose._column_transformer",
)  # fmt: skip
_LABELS_INT32 = ("sklearn.cluster.",)
_LABELS_INT64 = frozenset(
    {
        "BayesianGaussianMixture",
        "EllipticEnvelope",
        "GaussianMixture",
        "IsolationForest",
        "LocalOutlierFactor",
        "OneClassSVM",
        "SGDOneClassSVM",
    }
)
_KINDS = {"f": "float", "i": "int", "u": "uint"}
_MAX_INNER = 20
# What pickles of XGBoost and LightGBM have on top when no wrapper is around it.
BOOSTERS = frozenset({Global("xgboost.core", "Booster"), Global("lightgbm.basic", "Booster")})


@dataclass(frozen=True, slots=True)
class Facts:
    """What a stand-in of an estimator tells. `n_features` and `n_outputs` are None when it does not."""

    cls: Global
    final: Global
    steps: tuple[str, ...]
    version: str
    other_versions: tuple[str, ...]
    text: bool
    n_features: int | None
    columns: tuple[str, ...]
    needs_frame: bool
    mixed: bool
    label_dtype: DType | None
    n_classes: int | None
    n_outputs: int | None


def facts_of(root: Made, cls: Global) -> Facts:
    """Gather the facts of an estimator of class `cls`."""
    final = _final(root)
    first = _first(root)
    found = tuple(value for value in everything(root) if isinstance(value, Made))
    versions = sorted({text for made in found if isinstance(text := made.attributes.get("_sklearn_version"), str)})
    own = root.attributes.get("_sklearn_version")
    version = own if isinstance(own, str) else (versions[-1] if versions else "")
    labels = _labels(root)
    return Facts(
        cls=cls,
        final=final.cls or cls,
        steps=tuple(step.cls.name for step in _steps(root) if step.cls is not None),
        version=version,
        other_versions=tuple(text for text in versions if text != version),
        text=first.cls is not None and first.cls.name in _TEXT,
        n_features=next((n for made in _chain(root) if (n := _n_features(made))), None),
        columns=next((names for made in _chain(root) if (names := _columns(made))), ()),
        needs_frame=any(_selects_by_name(made) for made in found),
        # Columns that are picked by name may be of any type, those that are not picked too.
        mixed=any(_selects_by_name(made) or _has_text_categories(made) for made in found),
        label_dtype=_dtype(labels) if labels else None,
        n_classes=labels.length if labels else None,
        n_outputs=_n_outputs(final),
    )


def with_booster(facts: Facts, booster: XgboostFile | None) -> Facts:
    """The facts with those of the booster in it: wrappers of XGBoost keep them there and nowhere else."""
    if booster is None or facts.cls.root != "xgboost":
        return facts
    is_classifier = facts.final.name.endswith("Classifier")
    return replace(
        facts,
        n_features=facts.n_features or booster.n_features,
        columns=facts.columns or booster.columns,
        label_dtype=facts.label_dtype or (DType.INT64 if is_classifier else None),
        n_classes=facts.n_classes or (max(booster.n_classes, 2) if is_classifier else None),
        n_outputs=facts.n_outputs or booster.n_targets,
    )


def default_method(facts: Facts) -> str:
    """`predict`, or `transform` for what has no `predict`."""
    is_transformer = facts.final.module.startswith(_TRANSFORMERS) and facts.label_dtype is None
    return "transform" if is_transformer else "predict"


def schema_of(facts: Facts, method: str) -> Schema:
    """The arrays that go in and come out of `method`. Free where the file does not tell."""
    if facts.text:
        inputs = Tensor("inputs", DType.STRING, (None,))
    else:
        dtype = DType.JSON if facts.mixed else DType.FLOAT64
        columns = facts.columns if len(facts.columns) == facts.n_features else ()
        inputs = Tensor("inputs", dtype, (None, facts.n_features), columns)
    return Schema(Style.ROWS, inputs=(inputs,), outputs=(_output(facts, method),))


def _output(facts: Facts, method: str) -> Tensor:
    match method:
        case "predict":
            several = facts.n_outputs is not None and facts.n_outputs > 1
            return Tensor("outputs", _predicted(facts), (None, facts.n_outputs) if several else (None,))
        case "predict_proba" | "predict_log_proba":
            return Tensor("outputs", DType.FLOAT64, (None, facts.n_classes))
        case "decision_function" if facts.n_classes is None or facts.n_classes == 2:
            return Tensor("outputs", DType.FLOAT64, (None,))
        case _:
            return Tensor("outputs", DType.FLOAT64, (None, None))


def _predicted(facts: Facts) -> DType:
    if facts.label_dtype is not None:
        return facts.label_dtype
    if facts.final.module.startswith(_LABELS_INT32):
        return DType.INT32
    return DType.INT64 if facts.final.name in _LABELS_INT64 else DType.FLOAT64


def _steps(made: Made) -> list[Made]:
    """The parts of a pipeline, in order; empty for everything else."""
    steps = made.attributes.get("steps")
    if made.cls is None or made.cls.name != "Pipeline" or not isinstance(steps, list):
        return []
    parts = (step[1] for step in steps if isinstance(step, tuple) and len(step) == 2)
    return [part for part in parts if isinstance(part, Made)]


def _inner(made: Made) -> Made | None:
    for name in _INNER:
        if isinstance(inner := made.attributes.get(name), Made):
            return inner
    several = made.attributes.get("estimators_")
    if isinstance(several, list) and several and isinstance(several[0], Made):
        return several[0]
    return None


def _chain(root: Made) -> Iterator[Made]:
    """The estimator, then what sees its input first: first steps of pipelines, what searches hold."""
    current: Made | None = root
    for _ in range(_MAX_INNER):
        if current is None:
            return
        yield current
        steps = _steps(current)
        current = steps[0] if steps else _inner(current)


def _first(root: Made) -> Made:
    return list(_chain(root))[-1] if _steps(root) else root


def _final(root: Made) -> Made:
    """What makes the output: the last step of a pipeline, the best estimator of a search."""
    current = root
    for _ in range(_MAX_INNER):
        steps = _steps(current)
        best = current.attributes.get("best_estimator_")
        if steps:
            current = steps[-1]
        elif isinstance(best, Made):
            current = best
        else:
            break
    return current


def _labels(root: Made) -> Array | None:
    """The class labels of a classifier, where it or what is in it keeps them."""
    current: Made | None = _final(root)
    for _ in range(_MAX_INNER):
        if current is None:
            return None
        for owner in (current, current.attributes.get("_label_encoder"), current.attributes.get("le_")):
            for name in ("classes_", "_classes"):  # the second is LightGBM's
                if isinstance(owner, Made) and isinstance(found := as_array(owner.attributes.get(name)), Array):
                    return found
        # Only a wrapper around classifiers hands on their labels: a transformer's estimator predicts nothing here.
        current = _inner(current) if current.cls is not None and "Classifier" in current.cls.name else None
    return None


def _dtype(labels: Array) -> DType:
    kind, size = labels.dtype.kind, labels.dtype.size_bytes
    if kind == "b":
        return DType.BOOL
    if kind in _KINDS and size in (1, 2, 4, 8):
        return DType.FLOAT64 if (kind, size) == ("f", 1) else DType(f"{_KINDS[kind]}{size * 8}")
    values = labels.values() or ()
    if kind == "U" or (kind == "O" and values and all(isinstance(value, str) for value in values)):
        return DType.STRING
    return DType.JSON


def _n_features(made: Made) -> int | None:
    for name in ("n_features_in_", "_n_features_in"):  # the second is LightGBM's
        if (count := as_int(made.attributes.get(name))) is not None:
            return count
    return None


def _columns(made: Made) -> tuple[str, ...]:
    names = as_array(made.attributes.get("feature_names_in_"))
    values = (names.values() if names else None) or ()
    texts = tuple(value for value in values if isinstance(value, str))
    return texts if len(texts) == len(values) and len(set(texts)) == len(texts) else ()


def _selects_by_name(made: Made) -> bool:
    """A ColumnTransformer that picks columns by name works on data frames only."""
    if made.cls is None or made.cls.name != "ColumnTransformer":
        return False
    parts = made.attributes.get("transformers")
    wanted = (
        (part[2] for part in parts if isinstance(part, tuple) and len(part) == 3) if isinstance(parts, list) else ()
    )
    return any(
        isinstance(names, (str, Made))  # Made: a make_column_selector, an Index
        or (isinstance(names, (list, tuple)) and any(isinstance(name, str) for name in names))
        for names in wanted
    )


def _has_text_categories(made: Made) -> bool:
    """An encoder or imputer fitted on text: the input is not numbers only."""
    categories = made.attributes.get("categories_")
    arrays = [as_array(item) for item in categories] if isinstance(categories, list) else []
    arrays.append(as_array(made.attributes.get("statistics_")))
    return any(
        array is not None and (array.dtype.kind in "US" or any(isinstance(value, str) for value in array.items or ()))
        for array in arrays
    )


def _n_outputs(final: Made) -> int | None:
    count = as_int(final.attributes.get("n_outputs_"))
    if count is not None:
        return count
    # Linear models keep one row of coefficients a target, but classifiers one a class.
    coefficients = as_array(final.attributes.get("coef_"))
    is_classifier = "classes_" in final.attributes
    if coefficients is not None and len(coefficients.shape) == 2 and not is_classifier:
        return coefficients.shape[0]
    several = final.attributes.get("estimators_")
    if final.cls is not None and final.cls.name.startswith("MultiOutput") and isinstance(several, list):
        return len(several)
    return None
