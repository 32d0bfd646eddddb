"""`corten.package`: from an object in this process to an image that must answer as the object did."""

import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

import corten
from corten.core.home import Home
from corten.errors import UsageError

pytestmark = [pytest.mark.examples, pytest.mark.network]


class Shouter:
    """A class in a module of its own: this file."""

    def predict(self, text: str, times: int = 1) -> str:
        return text.upper() * times


@pytest.fixture(scope="module")
def home():
    folder = Path(tempfile.mkdtemp(prefix="corten-package-test-", dir="/tmp"))
    folder.chmod(0o755)
    yield Home(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def model():
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier

    rows, labels = load_iris(return_X_y=True)
    return RandomForestClassifier(5, random_state=0).fit(rows, labels)


def test_an_estimator_becomes_an_image_with_its_versions_and_answers(model, home):
    import numpy as np

    rows = np.array([[5.1, 3.5, 1.4, 0.2], [6.0, 2.0, 5.0, 1.5]])
    packaged = corten.package(model, name="iris", example=rows, method="predict_proba", home=home)
    assert packaged.name == "iris"
    assert packaged.example.inputs == {"inputs": rows.tolist()}
    assert packaged.example.outputs == model.predict_proba(rows).tolist()
    assert packaged.built.spec.example == packaged.example
    wheels = packaged.built.plan.describe()
    for name in ("scikit-learn", "numpy", "scipy"):
        assert version(name) in wheels
    assert packaged.size_bytes < 110_000_000
    assert packaged.reference in packaged._repr_html_()


def test_the_same_model_gives_the_same_image(model, home):
    once = corten.package(model, name="iris", home=home)
    again = corten.package(model, name="iris", home=home)
    assert once.digest == again.digest


def test_a_lone_row_is_one_row_and_many_are_a_few(model, home):
    import numpy as np

    assert corten.package(model, example=np.ones(4), home=home).example.inputs == {"inputs": [[1.0] * 4]}
    assert len(corten.package(model, example=np.ones((500, 4)), home=home).example.outputs) == 16


@pytest.mark.parametrize("example", [[[1.0, 2.0]], {"width": 1}, [["a", "b", "c", "d"]]])
def test_an_example_the_model_does_not_take_is_refused_before_anything_is_built(example, model, home):
    with pytest.raises(UsageError) as caught:
        corten.package(model, example=example, home=home)
    assert caught.value.code == "package.bad_example"


def test_a_class_of_a_module_goes_along_as_its_file(home):
    packaged = corten.package(Shouter(), example={"text": "ab", "times": 2}, home=home)
    assert packaged.name == "shouter"
    assert packaged.example.outputs == "ABAB"
    assert packaged.built.spec.entry == "test_package:Shouter"


def test_an_onnx_model_goes_along_as_its_bytes(model, home):
    import numpy as np
    from skl2onnx import to_onnx

    graph = to_onnx(model, np.zeros((1, 4), dtype="f4"), options={"zipmap": False})
    packaged = corten.package(graph, name="iris-onnx", example=np.ones((2, 4)), home=home)
    assert packaged.built.spec.adapter == "onnx"
    assert packaged.example.inputs == {"inputs": [[1.0] * 4] * 2}
    assert json.loads(json.dumps(packaged.built.as_dict()))["adapter"] == "onnx"


@pytest.mark.parametrize("thing", [3, "no-such-file", object(), [1, 2], dict])
def test_what_is_no_model_is_refused(thing, home):
    with pytest.raises(corten.CortenError) as caught:
        corten.package(thing, home=home)
    assert caught.value.code in {"package.unknown_model", "source.missing"}


def test_a_class_within_a_function_is_refused(home):
    class Inner:
        def predict(self, x: int) -> int:
            return x

    with pytest.raises(UsageError, match="top level"):
        corten.package(Inner(), home=home)


def test_what_was_trained_here_is_converted_here(model, home):
    import numpy as np
    from sklearn.datasets import load_iris

    rows, _ = load_iris(return_X_y=True)
    before = dict(vars(model))
    packaged = corten.package(
        model, name="iris", example=rows[:4], method="predict_proba", accelerate="require", home=home
    )
    verdict = packaged.built.acceleration.conversion
    assert verdict.agreement.recorded == 4
    assert packaged.built.spec.adapter == "onnx"
    assert packaged.built.spec.schema.inputs[0].shape == (None, 4)
    assert packaged.example.outputs == model.predict_proba(rows[:4]).tolist()
    assert {wheel.name for wheel in packaged.built.plan.lock.wheels}.isdisjoint({"scikit-learn", "scipy", "skl2onnx"})
    assert {name: value for name, value in vars(model).items() if not isinstance(value, np.ndarray)} == {
        name: value for name, value in before.items() if not isinstance(value, np.ndarray)
    }
