"""Models of other frameworks: trained in this process, packaged from their own files, equal in their answers."""

import json

import numpy as np
import pytest
from stories import ask

pytestmark = [pytest.mark.envoy, pytest.mark.network, pytest.mark.frameworks]


@pytest.fixture(scope="module")
def tumours():
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    return rows, labels


def answers(up, rows):
    status, answer = ask(up["url"], {"inputs": rows})
    assert status == 200, answer
    return answer["outputs"]


def packages(corten, up):
    """Every package in the image, by name, as it says itself."""
    told = corten.run("inspect", up["build"]["digest"], "--json").json
    return {package["name"] for package in told["packages"]}


def has_cuda(names):
    return any(name.startswith(("nvidia", "cuda", "triton")) for name in names)


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
    names = packages(corten, up)
    assert "xgboost-cpu" in names
    assert not has_cuda(names)
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


@pytest.fixture
def save(folder):
    """Save a model by a flavor of MLflow, with signature and example."""
    import warnings

    from mlflow.models import infer_signature

    def run(flavor, model, rows, outputs, **more):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            signature = infer_signature(rows, outputs)
            flavor.save_model(path=folder / "saved", signature=signature, input_example=rows[:3], **more, **model)
        return folder / "saved"

    return run


def test_a_model_folder_of_mlflow_is_served_without_mlflow(corten, port, save, tumours):
    import mlflow
    from sklearn.linear_model import LogisticRegression

    rows, labels = tumours
    model = LogisticRegression(max_iter=5000).fit(rows, labels)
    form = {"serialization_format": "cloudpickle"}
    path = save(mlflow.sklearn, {"sk_model": model}, rows, model.predict(rows), **form)
    up = corten.up(path, "--port", port, "--name", "tumours")
    assert answers(up, json.loads(rows.to_json(orient="records"))) == model.predict(rows).tolist()
    assert not packages(corten, up) & {"mlflow", "mlflow-skinny", "pandas"}
    # The folder's own example is in the image, and replicas answer it before they are ready.
    assert any("input example" in note for note in up["build"]["notes"])


def test_a_boosters_folder_of_mlflow_is_served_by_the_library_alone(corten, port, save, tumours):
    import mlflow
    import xgboost

    rows, labels = tumours
    booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, labels), 5)
    expected = booster.predict(xgboost.DMatrix(rows))
    path = save(mlflow.xgboost, {"xgb_model": booster}, rows, expected)
    up = corten.up(path, "--port", port, "--name", "tumours")
    assert np.array_equal(np.float32(answers(up, rows.to_numpy().tolist())), expected)
    names = packages(corten, up)
    assert not names & {"mlflow", "mlflow-skinny", "scikit-learn"}
    assert not has_cuda(names)


def test_a_python_model_of_mlflow_is_loaded_by_mlflow_in_the_image(corten, port, folder, save):
    import mlflow
    import pandas as pd

    class Price(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            del context, params
            night = model_input["kind"].map({"suite": 90.0, "single": 40.0})
            return pd.DataFrame({"price": night * model_input["nights"], "kind": model_input["kind"].str.upper()})

    rows = pd.DataFrame({"kind": ["suite", "single", "suite"], "nights": [1, 2, 3]})
    expected = Price().predict(None, rows)
    path = save(mlflow.pyfunc, {"python_model": Price()}, rows, expected)
    up = corten.up(path, "--port", port, "--name", "prices")
    seen = answers(up, rows.to_dict(orient="records"))
    assert seen == {"price": expected["price"].tolist(), "kind": expected["kind"].tolist()}
    assert "the author's code" in " ".join(up["build"]["warnings"])
    refused, answer = ask(up["url"], {"inputs": [{"kind": "suite"}]})
    assert refused == 422
    assert "nights" in json.dumps(answer)


def test_a_predictor_of_cog_runs_unchanged_without_cog(corten, port, folder):
    (folder / "words.txt").write_text("hello")
    (folder / "predict.py").write_text(
        "from cog import BasePredictor, Input\n"
        "class Predictor(BasePredictor):\n"
        "    def setup(self):\n"
        "        self.word = open('words.txt').read()\n"
        "    def predict(self, name: str = Input(description='whom'), times: int = Input(default=1, le=3)) -> str:\n"
        "        return f'{self.word} {name} ' * times\n"
    )
    up = corten.up(folder / "predict.py", "--port", port, "--name", "greeter")
    assert ask(up["url"], {"name": "Ada", "times": 2}) == (200, {"outputs": "hello Ada hello Ada "})
    assert ask(up["url"], {"name": "Ada", "times": 4})[0] == 422
    assert up["build"]["adapter"] == "cog"
    assert "cog" not in packages(corten, up)


def test_an_api_of_litserve_runs_unchanged_without_litserve(corten, port, folder):
    (folder / "server.py").write_text(
        "import litserve as ls\n"
        "class API(ls.LitAPI):\n"
        "    def setup(self, device):\n"
        "        self.factor = 2\n"
        "    def decode_request(self, request):\n"
        "        return request['input']\n"
        "    def predict(self, x):\n"
        "        return x * self.factor\n"
        "    def encode_response(self, output):\n"
        "        return {'output': output}\n"
        "if __name__ == '__main__':\n"
        "    ls.LitServer(API(), accelerator='auto').run(port=8000)\n"
    )
    up = corten.up(folder / "server.py", "--port", port, "--name", "doubler")
    assert ask(up["url"], {"input": 21}) == (200, {"outputs": {"output": 42}})
    assert ask(up["url"], {"inptu": 21})[0] == 422
