"""What can be saved of a call of scikit-learn without changing a bit of its answer. Runs in the image only.

Measured for one row (bench/accelerate): a forest of 100 trees spends 5 ms in joblib and in 100 checks of the same row,
its trees a tenth of that; a pool of threads (`n_jobs=-1`) is made anew for each call. Not worth it: `assume_finite`
saves a linear model 6 of 100 us in a context (and set for good, it would let through what pipelines refuse midway);
`skip_parameter_validation` is about `fit`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from corten.adapters.sklearn_frame import parts

if TYPE_CHECKING:
    import numpy as np

_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier", "RandomForestRegressor", "ExtraTreesRegressor")
_LARGEST_FLOAT32 = 3.4028234663852886e38
_PROBES = 24


def settle(estimator: Any) -> None:
    """Let an estimator and all within it answer in the calling thread, and forests without joblib. Changes them."""
    for part in list(parts(estimator)):
        if getattr(part, "n_jobs", None) not in (None, 1):
            part.n_jobs = 1
        if type(part).__name__ in _FORESTS and type(part).__module__ == "sklearn.ensemble._forest":
            _without_joblib(part)


def is_plain(rows: np.ndarray) -> bool:
    """Whether every number is finite, in float32 too: there is nothing a check could refuse."""
    return rows.dtype.kind == "f" and rows.size > 0 and bool(abs(rows).max() <= _LARGEST_FLOAT32)


def _without_joblib(forest: Any) -> None:
    """Put a plain loop over its trees in place of a forest's methods, where the answers to probes are equal."""
    import numpy as np

    if getattr(forest, "n_outputs_", 0) != 1 or not hasattr(forest, "n_features_in_"):
        return
    methods = {"predict_proba": _average, "predict": _first_of} if hasattr(forest, "classes_") else {"predict": _mean}
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(_PROBES, forest.n_features_in_)) * 10.0 ** rng.integers(-2, 4, (_PROBES, 1))
    for name, make in methods.items():
        original, quick = getattr(forest, name), make(forest)
        expected, seen = original(rows), quick(rows)
        if expected.dtype == seen.dtype and np.array_equal(expected, seen):
            setattr(forest, name, _either(original, quick, forest.n_features_in_))


def _either(original: Callable[[Any], Any], quick: Callable[[Any], Any], width: int) -> Callable[[Any], Any]:
    import numpy as np

    def answer(rows: Any) -> Any:
        # Anything else (missing values, frames, sparse or short rows) is for the original to take or refuse.
        fits = type(rows) is np.ndarray and rows.ndim == 2 and rows.shape[1] == width
        return quick(rows) if fits and is_plain(rows) else original(rows)

    return answer


def _average(forest: Any) -> Callable[[Any], Any]:
    """The mean of what its trees say, added up in their order, as `_accumulate_prediction` does with one thread."""
    import numpy as np

    trees = [tree.tree_.predict for tree in forest.estimators_]

    def answer(rows: Any) -> Any:
        single = np.ascontiguousarray(rows, dtype=np.float32)
        total = trees[0](single).astype(np.float64)
        for tree in trees[1:]:
            total += tree(single)
        return total / len(trees)

    return answer


def _first_of(forest: Any) -> Callable[[Any], Any]:
    added, classes = _average(forest), forest.classes_
    return lambda rows: classes.take(added(rows).argmax(axis=1), axis=0)


def _mean(forest: Any) -> Callable[[Any], Any]:
    added = _average(forest)
    return lambda rows: added(rows)[:, 0]
