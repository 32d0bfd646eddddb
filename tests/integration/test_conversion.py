"""A model and its ONNX form give the same answers and the same refusals, or there is no ONNX form."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from corten.adapters.agreement import Comparison, DisagreementError
from corten.adapters.base import InputError, Source
from corten.adapters.converted import ConvertedModel, stands_for
from corten.adapters.onnx_session import open_session
from corten.adapters.sklearn import Sklearn, SklearnModel
from corten.core.model import Example
from corten.serve.convert import attempt

pytestmark = [
    pytest.mark.examples,
    pytest.mark.filterwarnings(
        "ignore:overflow encountered", "ignore:Found unknown categories", "ignore:Ignoring params"
    ),
]
DIGEST = "sha256:" + "0" * 64


def data(name):
    import sklearn.datasets

    return getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)


def table(rows=400):
    import pandas as pd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 80, rows).astype(float),
            "income": rng.normal(3e4, 1e4, rows),
            "city": rng.choice(["Bern", "Genf", "Zürich"], rows),
        }
    )
    return frame, np.where((frame.age > 40) ^ (frame.city == "Bern"), "yes", "no")


def columns(numbers, categories):
    from sklearn.compose import ColumnTransformer

    return ColumnTransformer([("n", numbers, ["age", "income"]), ("c", categories, ["city"])])


@pytest.fixture(scope="module")
def models():
    """Fitted models by name, with rows they were fitted on."""
    for needed in ("skl2onnx", "pandas"):
        pytest.importorskip(needed)
    from sklearn.ensemble import (
        ExtraTreesClassifier,
        GradientBoostingClassifier,
        RandomForestClassifier,
        RandomForestRegressor,
    )
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn.tree import DecisionTreeClassifier

    digits, tumours, diabetes = data("digits"), data("breast_cancer"), data("diabetes")
    few = digits[0][:300] / 16, digits[1][:300]
    frame, said = table()
    filled = make_pipeline(SimpleImputer(), StandardScaler())
    made = {
        "linear": (LogisticRegression(C=0.1), few),
        "linear, text labels": (LogisticRegression(C=0.1), (few[0], np.array([f"n{v}" for v in few[1]]))),
        "scaled": (make_pipeline(StandardScaler(), LogisticRegression()), tumours),
        "imputed": (make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), tumours),
        "ridge": (Ridge(), diabetes),
        "tree": (DecisionTreeClassifier(random_state=0), tumours),
        "forest": (RandomForestClassifier(20, random_state=0), digits),
        "forest of two classes": (RandomForestClassifier(30, random_state=0), tumours),
        "shallow forest": (ExtraTreesClassifier(10, max_depth=4, random_state=0), tumours),
        "scaled forest": (make_pipeline(StandardScaler(), RandomForestClassifier(30, random_state=0)), tumours),
        "regression forest": (RandomForestRegressor(20, random_state=0), diabetes),
        "boosting": (GradientBoostingClassifier(n_estimators=10, random_state=0), tumours),
        "table": (make_pipeline(columns(filled, OneHotEncoder(handle_unknown="ignore")), LogisticRegression()), (frame, said)),
        "strict table": (
            make_pipeline(columns(StandardScaler(), OneHotEncoder()), RandomForestClassifier(10, random_state=0)),
            (frame, said),
        ),
        "neighbours": (KNeighborsClassifier(), tumours),
    }  # fmt: skip
    return {name: (model.fit(*given), given[0]) for name, (model, given) in made.items()}


@pytest.fixture
def pair(models, tmp_path):
    """A model as it is served, its verdict and its ONNX form as that is served."""

    def make(name, method="predict", example=None):
        import joblib

        estimator, rows = models[name]
        joblib.dump(estimator, tmp_path / "model.joblib")
        schema = Sklearn().inspect(Source(tmp_path / "model.joblib", method=method)).schema
        before = SklearnModel(estimator, method, schema)
        verdict, written = attempt(before, method, example, DIGEST)
        if not written:
            return before, verdict, None, rows
        session = open_session(written)
        return before, verdict, ConvertedModel(session, stands_for(session), schema), rows

    return make


def run(model, rows):
    values = rows.to_numpy(dtype=object) if hasattr(rows, "columns") else rows
    return model.run({"inputs": values})["outputs"]


def said(model, rows):
    """Its answer, or its refusal."""
    try:
        return run(model, rows).tolist()
    except InputError as error:
        return error.message, error.path


CONVERTED = [
    "linear", "linear, text labels", "scaled", "imputed", "tree", "forest", "forest of two classes",
    "shallow forest", "scaled forest", "boosting", "table", "strict table",
]  # fmt: skip


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_the_form_answers_real_data_as_the_model_does(name, method, pair):
    before, verdict, after, rows = pair(name, method)
    assert verdict.reason == ""
    expected, seen = run(before, rows), run(after, rows)
    assert seen.shape == expected.shape
    assert seen.dtype.kind == expected.dtype.kind or {seen.dtype.kind, expected.dtype.kind} == {"U", "O"}
    if method == "predict":
        assert seen.tolist() == expected.tolist()
    else:
        assert np.allclose(seen, expected, rtol=1e-6, atol=1e-6)
    assert verdict.agreement.rows > 1000
    assert verdict.agreement.largest <= verdict.agreement.tolerance
    assert verdict.speed.row_after_us > 0


@pytest.mark.parametrize("name", ["ridge", "regression forest"])
def test_a_regression_is_the_same_number(name, pair):
    before, verdict, after, rows = pair(name)
    assert verdict.reason == ""
    assert np.allclose(run(after, rows), run(before, rows), rtol=1e-6)
    assert run(after, rows).dtype == np.float64


def test_trees_behind_a_scaler_decide_on_both_sides_of_each_split_as_scikit_learn_does(pair, models):
    """The trap: skl2onnx's float32 model, and its float64 model as written, flip rows that lie near a split."""
    before, _, after, rows = pair("scaled forest")
    scaler, forest = (step for _, step in models["scaled forest"][0].steps)
    near = []
    for number, tree in enumerate(forest.estimators_):
        node = int(np.flatnonzero(tree.tree_.feature >= 0)[0])
        row = scaler.transform(rows[number : number + 1])[0]
        row[tree.tree_.feature[node]] = tree.tree_.threshold[node]
        near.append(row)
    exact = scaler.inverse_transform(np.array(near))
    for rows_near in (exact, np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf)):
        assert run(after, rows_near).tolist() == run(before, rows_near).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
@pytest.mark.parametrize("name", ["linear", "imputed", "forest", "boosting"])
def test_the_form_refuses_what_the_model_refuses_in_the_same_words(name, value, pair):
    before, _, after, rows = pair(name)
    spoilt = np.array(rows[:2], dtype=np.float64)
    spoilt[1, 3] = value
    assert said(after, spoilt) == said(before, spoilt)


def test_unknown_categories_are_ignored_or_refused_as_the_encoder_does(pair):
    row = np.array([[30.0, 1e4, "Atlantis"]], dtype=object)
    before, _, after, _ = pair("table")
    assert run(after, row).tolist() == run(before, row).tolist()
    before, _, after, _ = pair("strict table")
    with pytest.raises(InputError, match=r"Atlantis|unknown categories"):
        run(before, row)
    with pytest.raises(InputError, match="unknown categories"):
        run(after, row)
    with pytest.raises(InputError):
        run(after, np.array([["old", 1e4, "Bern"]], dtype=object))


def test_missing_numbers_of_a_table_are_imputed(pair):
    before, _, after, _ = pair("table")
    row = np.array([[None, 1e4, "Bern"], [40.0, None, "Genf"]], dtype=object)
    assert run(after, row).tolist() == run(before, row).tolist()


def test_recorded_inputs_are_among_those_that_are_asked(pair, models):
    rows = models["linear"][1][:16].tolist()
    _, verdict, _, _ = pair("linear", example=Example({"inputs": rows}))
    assert verdict.agreement.recorded == 16


def test_what_has_no_equal_keeps_the_original_and_says_why(pair):
    _, verdict, after, _ = pair("neighbours")
    assert after is None
    assert "slower" in verdict.reason
    _, verdict, after, _ = pair("linear", "decision_function")
    assert after is None
    assert "decision_function" in verdict.reason


def test_another_answer_is_found_out(pair, models):
    """The comparison itself: two models that differ in one weight, or one label, do not agree."""
    import copy

    estimator, rows = models["linear"]
    other = copy.deepcopy(estimator)
    other.coef_[0, 20] *= 1.01
    before, _, _, _ = pair("linear", "predict_proba")
    changed = SklearnModel(other, "predict_proba", before.schema)
    with pytest.raises(DisagreementError, match="more than 1e-05 apart"):
        Comparison(before, changed).same(np.array(rows), "rows")
    labels, _, _, _ = pair("linear")
    other.classes_ = other.classes_[::-1]
    with pytest.raises(DisagreementError, match="labels differ"):
        Comparison(labels, SklearnModel(other, "predict", labels.schema)).same(np.array(rows), "rows")


TWICE = """
import hashlib, sys, joblib
from pathlib import Path
from corten.adapters.base import Source
from corten.adapters.sklearn import Sklearn, SklearnModel
from corten.serve.convert import attempt
path = Path(sys.argv[1])
schema = Sklearn().inspect(Source(path)).schema
print(hashlib.sha256(attempt(SklearnModel(joblib.load(path), "predict", schema), "predict", None, "sha256:x")[1]).hexdigest())
"""


@pytest.mark.parametrize("name", ["forest", "table"])
def test_the_same_model_is_the_same_bytes_in_another_process(name, models, tmp_path):
    import joblib

    joblib.dump(models[name][0], tmp_path / "model.joblib")
    seen = {
        subprocess.run(
            [sys.executable, "-c", TWICE, tmp_path / "model.joblib"],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(seen) == 1


def test_the_file_says_what_it_stands_for(pair):
    before, verdict, _, _ = pair("linear")
    _, written = attempt(before, "predict", None, DIGEST)
    original = stands_for(open_session(written))
    assert original.digest == DIGEST
    assert {refusal.kind for refusal in original.refusals} == {"nan", "inf"}
    assert replace(verdict, reason="no").accelerated is False


@pytest.mark.frameworks
@pytest.mark.parametrize("kind", ["xgboost", "lightgbm"])
def test_boosters_answer_the_same_from_onnx(kind, tmp_path):
    pytest.importorskip("onnxmltools")
    from corten import plugin
    from corten.core.model import ModelSpec

    rows, labels = data("breast_cancer")
    path = tmp_path / ("model.ubj" if kind == "xgboost" else "model.txt")
    if kind == "xgboost":
        import xgboost

        xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, labels), 20).save_model(path)
    else:
        import lightgbm

        settings = {"objective": "binary", "verbose": -1}
        lightgbm.train(settings, lightgbm.Dataset(rows, labels), 20).save_model(str(path))
    adapter = plugin.find("adapters", kind)()
    schema = adapter.inspect(Source(path)).schema
    before = adapter.load(ModelSpec("x", kind, (path.name,), schema=schema), tmp_path, tmp_path)
    verdict, written = attempt(before, "predict", None, DIGEST)
    assert verdict.reason == ""
    session = open_session(written)
    after = ConvertedModel(session, stands_for(session), schema)
    given = {"inputs": rows.astype(schema.inputs[0].dtype.value)}
    assert np.allclose(after.run(given)["outputs"], before.run(given)["outputs"], rtol=1e-6, atol=1e-6)
