"""Real models answer requests that were joined as they answer each alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corten.builder.inspecting import inspect
from corten.builder.plan import spec_of
from corten.builder.source import read_project
from corten.plugin import find
from corten.serve.job import RequestError
from corten.serve.rows import RowsRunner

pytestmark = pytest.mark.filterwarnings("ignore")  # the frameworks' own, of the training
# Numbers of a joined call may differ from those of a lone one in the last digits: BLAS sums in another order.
TOLERANCE = 1e-5
JOINING = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=5
)


def logistic(folder):
    return dump(folder, "LogisticRegression", "linear_model", max_iter=200), "predict_proba"


def forest(folder):
    return dump(folder, "RandomForestClassifier", "ensemble", n_estimators=10, random_state=0), "predict_proba"


def boosted(folder):
    return dump(folder, "HistGradientBoostingClassifier", "ensemble", max_iter=10), "predict_proba"


def labels(folder):
    return dump(folder, "SVC", "svm"), "predict"


def network(folder):
    import numpy as np
    import onnx
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    rows, answers = data()
    model = MLPClassifier((32, 32), max_iter=20, random_state=0)
    model.fit(rows, answers)
    onnx.save(to_onnx(model, rows[:1].astype(np.float32), options={"zipmap": False}), folder / "m.onnx")
    return folder / "m.onnx", ""


def xgboost(folder):
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=5).fit(*data())
    model.save_model(folder / "m.json")
    return folder / "m.json", "predict_proba"


def lightgbm(folder):
    lightgbm = pytest.importorskip("lightgbm")
    lightgbm.LGBMClassifier(n_estimators=5, verbose=-1).fit(*data()).booster_.save_model(folder / "m.txt")
    return folder / "m.txt", ""


def data():
    from sklearn.datasets import load_wine

    return load_wine(return_X_y=True)


def dump(folder, name, module, **parameters):
    import importlib

    import joblib
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    made = getattr(importlib.import_module(f"sklearn.{module}"), name)(**parameters)
    joblib.dump(make_pipeline(StandardScaler(), made).fit(*data()), folder / "m.joblib")
    return folder / "m.joblib"


@pytest.fixture(
    scope="module",
    params=[
        *(pytest.param(make, marks=pytest.mark.examples) for make in (logistic, forest, boosted, labels, network)),
        *(pytest.param(make, marks=pytest.mark.frameworks) for make in (xgboost, lightgbm)),
    ],
    ids=lambda make: make.__name__,
)
def runner(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    path, method = request.param(folder)
    project = read_project(path, method=method)
    _, inspection = inspect(project.source, cache=folder / "cache")
    spec = spec_of(project, inspection, None)
    return RowsRunner(find("adapters", spec.adapter)().load(spec, folder, folder))


def same(one, other):
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == pytest.approx(other, rel=TOLERANCE, abs=TOLERANCE) if isinstance(one, float) else one == other


@JOINING
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=9), start=st.integers(0, 100))
def test_joined_requests_are_answered_as_each_alone(runner, sizes, start):
    rows = data()[0].tolist()
    requests = []
    for size in sizes:
        requests.append(json.dumps({"inputs": [rows[(start + i) % len(rows)] for i in range(size)]}).encode())
        start += size
    inputs = [runner.decode(request) for request in requests]
    together = runner.run(inputs).results
    for request, joined in zip(requests, together, strict=True):
        (alone,) = runner.run([runner.decode(request)]).results
        assert same(json.loads(alone)["outputs"], json.loads(joined)["outputs"])


@JOINING
@given(bad=st.integers(0, 4))
def test_a_request_that_does_not_fit_fails_alone(runner, bad):
    rows = data()[0].tolist()
    bodies = [json.dumps({"inputs": [rows[i]]}).encode() for i in range(5)]
    bodies[bad] = json.dumps({"inputs": [[1e300] * 13]}).encode()  # no float32; for doubles a strange row, no more
    inputs = {}
    for i, body in enumerate(bodies):
        try:
            inputs[i] = runner.decode(body)
        except RequestError:
            assert i == bad
    for i, result in zip(inputs, runner.run([*inputs.values()]).results, strict=True):
        if i != bad:
            (alone,) = runner.run([runner.decode(bodies[i])]).results
            assert same(json.loads(alone), json.loads(result))
