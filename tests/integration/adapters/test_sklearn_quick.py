"""Calls of scikit-learn that cost less and answer bit for bit what they answered."""

import copy

import numpy as np
import pytest

from corten.adapters.base import InputError
from corten.adapters.sklearn import SklearnModel
from corten.adapters.sklearn_quick import settle

pytestmark = [
    pytest.mark.examples,
    pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:invalid value encountered"),
]


@pytest.fixture(scope="module")
def fitted():
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    digits, tumours = load_digits(return_X_y=True), load_breast_cancer(return_X_y=True)
    made = {
        "forest": (RandomForestClassifier(30, random_state=0, n_jobs=2), digits),
        "forest of texts": (RandomForestClassifier(7, random_state=0), (tumours[0], np.where(tumours[1], "b", "m"))),
        "shallow": (RandomForestClassifier(25, max_depth=3, random_state=0), tumours),
        "regression": (ExtraTreesRegressor(20, random_state=0), tumours),
        "behind a scaler": (make_pipeline(StandardScaler(), RandomForestClassifier(10, random_state=0)), tumours),
        "linear": (LogisticRegression(C=0.1), (digits[0][:300] / 16, digits[1][:300])),
        "ridge": (Ridge(), tumours),
        "logarithm": (make_pipeline(FunctionTransformer(np.log), Ridge()), (tumours[0] + 1, tumours[1])),
    }
    return {name: (model.fit(*given), given[0]) for name, (model, given) in made.items()}


CALLS = [
    (name, method)
    for name in (
        "forest",
        "forest of texts",
        "shallow",
        "regression",
        "behind a scaler",
        "linear",
        "ridge",
        "logarithm",
    )
    for method in ("predict", "predict_proba")
    if method == "predict" or name not in ("regression", "ridge", "logarithm")
]


def quick(estimator, method):
    """A model as the image serves it."""
    own = copy.deepcopy(estimator)
    settle(own)
    return SklearnModel(own, method)


def said(answer, rows):
    try:
        return answer(rows).tolist()
    except (InputError, ValueError) as error:
        return str(error)


@pytest.mark.parametrize(("name", "method"), CALLS)
def test_the_answer_is_the_same_to_the_last_bit(name, method, fitted):
    estimator, rows = fitted[name]
    original = copy.deepcopy(estimator)
    for part in [original, *[step for _, step in getattr(original, "steps", ())]]:
        part.__dict__.get("n_jobs") and setattr(part, "n_jobs", 1)  # threads add up in any order
    served = quick(estimator, method)
    near = np.random.default_rng(0).normal(rows.mean(axis=0), rows.std(axis=0) + 1e-3, (200, rows.shape[1]))
    near = np.abs(near) if name == "logarithm" else near
    for given in (rows[:1], rows, near, np.asfortranarray(near), near.astype(np.float32)):
        expected, seen = getattr(original, method)(given), served.run({"inputs": given})["outputs"]
        assert seen.dtype == expected.dtype
        assert np.array_equal(seen, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, 3.5e38])
@pytest.mark.parametrize("name", ["forest", "behind a scaler", "linear", "ridge", "logarithm"])
def test_what_was_refused_is_refused_in_the_same_words_between_calls_that_are_not(name, value, fitted):
    estimator, rows = fitted[name]
    original, served = copy.deepcopy(estimator), quick(estimator, "predict")
    spoilt = rows[:2].copy()
    spoilt[1, 2] = value

    def answer(given):
        return served.run({"inputs": given})["outputs"]

    for given in (rows[:2], spoilt, rows[:2], spoilt):
        assert said(answer, given) == said(original.predict, given)


def test_infinity_made_within_a_pipeline_is_still_refused(fitted):
    estimator, rows = fitted["logarithm"]
    zero = rows[:1].copy()
    zero[0, 0] = 0.0
    with np.errstate(divide="ignore"), pytest.raises(InputError, match="infinity"):
        quick(estimator, "predict").run({"inputs": zero})


def test_a_pool_of_threads_is_not_made_for_each_call(fitted):
    estimator, _ = fitted["forest"]
    served = quick(estimator, "predict")
    assert served.estimator.n_jobs == 1


def test_the_forest_is_asked_without_joblib(fitted, monkeypatch):
    """Else the equal answers above would prove nothing."""
    import sklearn.ensemble._forest as forests

    def refused(*args, **options):
        raise AssertionError("joblib was asked")

    estimator, rows = fitted["forest"]
    served = quick(estimator, "predict")
    monkeypatch.setattr(forests, "Parallel", refused)
    assert len(served.run({"inputs": rows[:5]})["outputs"]) == 5
