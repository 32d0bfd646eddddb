"""Models of other frameworks: trained in this process, packaged from their own files, equal in their answers."""

import json

import numpy as np
import pytest
from stories import ask

pytestmark = [pytest.mark.envoy, pytest.mark.network, pytest.mark.frameworks, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def tumours():
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    return rows, labels


def answers(up, rows):
    status, answer = ask(up["url"], {"inputs": rows})
    assert status == 200, answer
    return answer["outputs"]


def wheels(up):
    return " ".join(layer["title"] for layer in up["build"]["layers"] if layer["kind"] == "wheels")


@pytest.mark.parametrize("form", ["json", "ubj"])
def test_a_booster_of_xgboost_answers_the_same_and_brings_no_cuda(form, corten, port, folder, tumours):
    import xgboost

    rows, labels = tumours
    booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, xgboost.DMatrix(rows, labels), 20)
    booster.save_model(folder / f"tumours.{form}")
    # The name says nothing: it is told by content.
    path = (folder / f"tumours.{form}").rename(folder / "model.bin")
    up = corten.up(path, "--port", port, "--name", "tumours")
    expected = booster.predict(xgboost.DMatrix(rows))
    assert np.array_equal(np.float32(answers(up, rows.to_numpy().tolist())), expected)
    records = json.loads(rows[:5].to_json(orient="records"))
    assert np.array_equal(np.float32(answers(up, records)), expected[:5])
    holes = rows[:5].to_numpy().tolist()
    holes[2][3] = None
    missing = np.array(holes, dtype=float)
    matrix = xgboost.DMatrix(missing, feature_names=list(rows.columns))
    assert np.array_equal(np.float32(answers(up, holes)), booster.predict(matrix))
    assert "xgboost-cpu" in wheels(up)
    assert "nvidia" not in wheels(up)
    assert up["build"]["size_bytes"] < 90_000_000


def test_a_classifier_of_xgboost_gives_labels_and_on_demand_probabilities(corten, port, folder):
    import xgboost
    from sklearn.datasets import load_iris

    rows, labels = load_iris(return_X_y=True)
    model = xgboost.XGBClassifier(n_estimators=40, early_stopping_rounds=2, max_depth=2, learning_rate=1.0).fit(
        rows[::2], labels[::2], eval_set=[(rows[1::2], labels[1::2])], verbose=False
    )
    assert model.best_iteration < model.get_booster().num_boosted_rounds() - 1
    model.save_model(folder / "iris.ubj")
    up = corten.up(folder / "iris.ubj", "--port", port)
    assert answers(up, rows.tolist()) == model.predict(rows).tolist()
    up = corten.up(folder / "iris.ubj", "--port", port, "--method", "predict_proba")
    assert np.array_equal(np.float32(answers(up, rows.tolist())), model.predict_proba(rows))


def test_pickles_of_xgboost_answer_as_the_objects_they_were(corten, port, folder):
    import joblib
    import xgboost
    from sklearn.datasets import load_iris

    rows, labels = load_iris(return_X_y=True)
    model = xgboost.XGBClassifier(n_estimators=5).fit(rows, labels)
    joblib.dump(model, folder / "wrapped.joblib", compress=3)
    up = corten.up(folder / "wrapped.joblib", "--port", port, "--name", "pickled")
    assert answers(up, rows.tolist()) == model.predict(rows).tolist()
    joblib.dump(model.get_booster(), folder / "bare.joblib")
    up = corten.up(folder / "bare.joblib", "--port", port, "--name", "pickled")
    expected = model.get_booster().predict(xgboost.DMatrix(rows))
    assert np.array_equal(np.float32(answers(up, rows.tolist())), expected)


def test_a_booster_of_lightgbm_answers_the_same_from_its_text(corten, port, folder):
    import lightgbm
    from sklearn.datasets import load_iris

    rows, labels = load_iris(return_X_y=True, as_frame=True)
    data = lightgbm.Dataset(rows, labels)
    booster = lightgbm.train({"objective": "multiclass", "num_class": 3, "verbose": -1}, data, 10)
    booster.save_model(folder / "iris.txt")
    up = corten.up(folder / "iris.txt", "--port", port)
    assert np.allclose(answers(up, rows.to_numpy().tolist()), booster.predict(rows), rtol=0, atol=0)
    assert up["build"]["size_bytes"] < 90_000_000


def test_pickles_of_lightgbm_answer_as_the_objects_they_were(corten, port, folder, tumours):
    import joblib
    import lightgbm

    rows, labels = tumours
    names = np.where(labels, "benign", "malignant")
    model = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(rows.to_numpy(), names)
    joblib.dump(model, folder / "tumours.joblib")
    up = corten.up(folder / "tumours.joblib", "--port", port, "--name", "pickled")
    assert answers(up, rows.to_numpy().tolist()) == model.predict(rows.to_numpy()).tolist()
    joblib.dump(model.booster_, folder / "bare.joblib")
    up = corten.up(folder / "bare.joblib", "--port", port, "--name", "pickled")
    assert np.array_equal(answers(up, rows.to_numpy().tolist()), model.booster_.predict(rows.to_numpy()))
