"""A forest is exchanged for its ONNX form in a sandbox: same answers, same digest, smaller image; or it stays."""

import json
import shutil

import pytest
from stories import ask

pytestmark = [pytest.mark.network, pytest.mark.bwrap, pytest.mark.examples]


def packages(corten, image):
    return {one["name"] for one in corten.run("inspect", image, "--json").json["packages"]}


@pytest.mark.envoy
def test_the_form_takes_the_models_place_and_nobody_notices(corten, port, folder, digits_model):
    path, model, rows = digits_model["paths"][0], digits_model["models"][0], digits_model["rows"]
    plain = corten.run("build", path, "--name", "plain", "--json").json
    up = corten.up(path, "--name", "fast", "--accelerate", "require", "--port", port)
    verdict = up["build"]["acceleration"]
    assert verdict["accelerated"]
    assert verdict["agreement"]["rows"] > 3000
    assert verdict["speed"]["row_after_us"] < verdict["speed"]["row_before_us"]
    assert ask(up["url"], {"inputs": rows.tolist()}) == (200, {"outputs": model.predict(rows).tolist()})
    wrong = rows[:1].tolist()
    wrong[0][3] = 1e39
    status, answer = ask(up["url"], {"inputs": wrong})
    assert status == 422
    assert "too large" in json.dumps(answer)

    digest = up["build"]["digest"]
    assert up["build"]["size_bytes"] < plain["size_bytes"]
    assert "onnxruntime" in packages(corten, digest)
    assert not packages(corten, digest) & {"scikit-learn", "scipy", "skl2onnx", "onnx"}
    seen = corten.run("inspect", digest, "--json").json
    assert seen["acceleration"]["original_file"] == "digits.joblib"
    assert [one["name"] for one in seen["files"]] == ["/app/corten.json", "/models/model.onnx"]
    assert "original" in corten.run("inspect", digest).out
    assert "accelerated" in corten.run("diff", "plain", "fast").out

    # The same digest from another conversion, another folder, another day.
    shutil.rmtree(corten.home / "cache" / "conversions")
    copied = shutil.copy(path, folder / "digits.joblib")
    again = corten.run("build", copied, "--name", "fast", "--accelerate", "auto", "--json", "--offline").json
    assert again["digest"] == digest
    corten.run("rebuild", "fast", "--verify")


@pytest.mark.envoy
@pytest.mark.frameworks
def test_trees_of_xgboost_are_exchanged_too_and_asked_by_two_workers(corten, port, folder):
    import xgboost
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True)
    model = xgboost.XGBClassifier(n_estimators=10, max_depth=3).fit(rows, labels)
    model.save_model(folder / "trees.json")
    settings = 'name = "trees"\nsource = "trees.json"\nworkers = 2\naccelerate = "require"\n'
    (folder / "corten.toml").write_text(settings)
    up = corten.up(folder, "--port", port)
    assert up["build"]["acceleration"]["accelerated"]
    assert ask(up["url"], {"inputs": rows.tolist()}) == (200, {"outputs": model.predict(rows).tolist()})
    assert "onnxruntime" in packages(corten, up["build"]["digest"])
    assert not packages(corten, up["build"]["digest"]) & {"xgboost", "xgboost-cpu", "scikit-learn"}


def test_without_a_sandbox_nothing_of_the_model_runs_and_it_stays(corten, digits_model):
    path = digits_model["paths"][1]
    words = ("build", path, "--name", "kept", "--json", "--accelerate")
    built = corten.run(*words, "auto", env={"CORTEN_SANDBOX": "none"}).json
    assert built["adapter"] == "sklearn"
    assert "no sandbox" in built["acceleration"]["reason"]
    refused = corten.run(*words, "require", env={"CORTEN_SANDBOX": "none"}, code=1).json
    assert refused["error"]["code"] == "build.not_accelerated"


def test_a_trusted_file_runs_what_it_names_and_says_so(corten, port, folder):
    import joblib
    from scipy.stats import uniform
    from sklearn.datasets import load_iris
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import RandomizedSearchCV

    rows, labels = load_iris(return_X_y=True)
    model = RandomizedSearchCV(Ridge(), {"alpha": uniform(0.1, 2)}, n_iter=2, random_state=0).fit(rows, labels)
    path = folder / "search.joblib"
    joblib.dump(model, path)
    refused = corten.run("build", path, "--json", code=7).json["error"]
    assert refused["code"] == "adapter.refused_global"
    digest = refused["hint"].rpartition("--trust ")[2]
    (folder / "corten.toml").write_text(f'name = "search"\nsource = "search.joblib"\ntrust = ["{digest}"]\n')
    up = corten.up(folder, "--port", port)
    status, answer = ask(up["url"], {"inputs": rows[:3].tolist()})
    assert status == 200, answer
    assert answer["outputs"] == pytest.approx(model.predict(rows[:3]).tolist())
    seen = corten.run("inspect", "search", "--json").json
    assert seen["model"]["trusted"] == [digest]
    assert seen["provenance"]["parameters"]["trust"] == [digest]
    joblib.dump(model.best_estimator_, path)
    corten.run("build", folder)  # harmless: needs no trust
    joblib.dump(RandomizedSearchCV(Ridge(), {"alpha": uniform(0.2, 2)}, n_iter=2).fit(rows, labels), path)
    assert corten.run("build", folder, "--json", code=7).json["error"]["code"] == "adapter.refused_global"
