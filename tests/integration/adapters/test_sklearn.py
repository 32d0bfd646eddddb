"""The scikit-learn adapter: told by content, told from the file, served as the framework would answer."""

import io
import pickle
import shutil
import subprocess
import sys
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from corten.adapters.base import InputError, Source
from corten.adapters.sklearn import Sklearn, SklearnModel
from corten.adapters.skops_file import read_skops
from corten.adapters.standins import Global
from corten.core.model import ModelSpec
from corten.core.schema import DType, Tensor
from corten.errors import PolicyError, UsageError

pytestmark = pytest.mark.examples


class Custom:
    """A class of the user's own, in a module Corten does not know."""


@pytest.fixture
def load():
    """Inspect and load a source as builder and image would."""

    def run(source, method=""):
        adapter = Sklearn()
        found = adapter.inspect(replace(source, method=method))
        spec = ModelSpec("m", "sklearn", (source.path.name,), method=found.method, schema=found.schema)
        return adapter.load(spec, source.path.parent, source.path.parent)

    return run


def dumps():
    import joblib
    import skops.io

    return {"pickle": None, "joblib": joblib.dump, "skops": skops.io.dump}


@pytest.mark.parametrize("how", ["pickle", "joblib", "skops"])
def test_the_kind_is_told_by_content_whatever_the_file_is_called(how, trained, saved):
    source = saved(trained["pipeline"], "weights.onnx", dump=dumps()[how])
    assert Sklearn().detect(source)
    assert Sklearn().inspect(source).notes[0].startswith("Pipeline (StandardScaler → LogisticRegression)")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" + b"\0" * 40, b"import os\n", b"\x08\x0a\x12\x04", b"\x1f\x8bxx"])
def test_other_files_are_left_to_other_adapters(data, tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(data)
    assert not Sklearn().detect(Source(path))
    assert not Sklearn().detect(Source(tmp_path))


@pytest.mark.parametrize("how", ["pickle", "joblib", "skops"])
def test_the_files_own_version_is_pinned_and_numpy_bound(how, trained, saved):
    import sklearn

    found = Sklearn().inspect(saved(trained["forest"], dump=dumps()[how]))
    assert f"scikit-learn=={sklearn.__version__}" in found.requirements
    assert found.warnings == ()
    if how == "skops":
        assert any(line.startswith("skops>=") for line in found.requirements)
    else:
        assert "numpy>=2" in found.requirements


def test_a_file_of_an_older_release_gets_that_release_and_numpy_1(trained, saved):
    data = pickle.dumps(trained["linear"]).replace(b"1.9.1", b"1.3.2").replace(b"numpy._core", b"numpy.core\0")
    # The length before the module's name counts its bytes: 23 with the underscore, 22 without.
    data = data.replace(b"\x8c\x16numpy.core\0.multiarray", b"\x8c\x15numpy.core.multiarray")
    source = saved(None)
    source.path.write_bytes(data)
    found = Sklearn().inspect(source)
    assert "scikit-learn==1.3.2" in found.requirements
    assert "numpy<2" in found.requirements
    assert any("the image gets the model's 1.3.2" in warning for warning in found.warnings)


EXPECTED = {
    "pipeline": ("predict", 30, DType.INT64, (None,)),
    "forest": ("predict", 4, DType.STRING, (None,)),
    "boosting": ("predict", 4, DType.INT64, (None,)),
    "linear": ("predict", 3, DType.FLOAT64, (None,)),
    "several targets": ("predict", 2, DType.FLOAT64, (None, 2)),
    "clusters": ("predict", 4, DType.INT32, (None,)),
    "outliers": ("predict", 4, DType.INT64, (None,)),
    "neighbours": ("predict", 4, DType.INT64, (None,)),
    "search": ("predict", 4, DType.STRING, (None,)),
    "scaler": ("transform", 4, DType.FLOAT64, (None, None)),
}


@pytest.mark.parametrize("how", ["pickle", "joblib"])
@pytest.mark.parametrize("name", EXPECTED)
def test_schema_and_answers_are_those_of_the_model(name, how, trained, saved, load):
    import numpy as np

    method, features, dtype, shape = EXPECTED[name]
    source = saved(trained[name], dump=dumps()[how])
    found = Sklearn().inspect(source)
    assert found.method == method
    assert found.schema.inputs == (Tensor("inputs", DType.FLOAT64, (None, features)),)
    assert found.schema.outputs == (Tensor("outputs", dtype, shape),)
    rows = np.random.default_rng(0).normal(size=(7, features))
    answers = load(source).run({"inputs": rows})["outputs"]
    assert np.array_equal(answers, getattr(trained[name], method)(rows))
    assert len(answers.shape) == len(shape)
    if dtype not in (DType.STRING, DType.JSON):
        assert answers.dtype.name == dtype.value


@pytest.mark.parametrize("method", ["predict_proba", "decision_function", "predict_log_proba"])
def test_other_methods_answer_on_request(method, trained, saved, load):
    import numpy as np
    from sklearn.datasets import load_breast_cancer

    source = saved(trained["pipeline"])
    rows = load_breast_cancer().data[100:110]
    model = load(source, method)
    assert np.array_equal(model.run({"inputs": rows})["outputs"], getattr(trained["pipeline"], method)(rows))
    (output,) = model.schema.outputs
    assert output.shape == ((None,) if method == "decision_function" else (None, 2))


def test_a_method_the_model_lacks_is_an_error_that_names_those_it_has(trained, saved, load):
    source = saved(trained["linear"])
    with pytest.raises(UsageError, match="known: predict"):
        Sklearn().inspect(replace(source, method="explode"))
    with pytest.raises(UsageError, match="methods it has: predict"):
        load(source, "predict_proba")


def test_rows_the_model_refuses_are_the_requests_fault(trained, saved, load):
    import numpy as np

    with pytest.raises(InputError, match="NaN") as caught:
        load(saved(trained["linear"])).run({"inputs": np.full((1, 3), np.nan)})
    assert caught.value.path == "inputs"


def test_several_classifications_at_once_keep_their_rows(load, saved):
    import numpy as np
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier

    rows = np.arange(20.0).reshape(10, 2)
    for targets in (np.array([[0, 0], [1, 1]] * 5), np.array([[0, 0], [1, 1], [0, 2], [1, 1], [0, 0]] * 2)):
        for kind in (RandomForestClassifier(n_estimators=2), KNeighborsClassifier(2)):
            source = saved(kind.fit(rows, targets))
            assert load(source).run({"inputs": rows})["outputs"].shape == (10, 2)
            answers = load(source, "predict_proba").run({"inputs": rows})["outputs"]
            assert len(answers) == 10
            assert len(answers.tolist()[0]) == 2


def test_sparse_answers_become_dense(load, saved):
    import numpy as np
    from sklearn.preprocessing import OneHotEncoder

    encoder = OneHotEncoder().fit(np.array([[0.0], [1.0]]))
    answers = load(saved(encoder)).run({"inputs": np.array([[1.0], [0.0]])})["outputs"]
    assert answers.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def test_texts_go_in_where_the_first_step_takes_texts(load, saved):
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(["good", "bad", "good good"], ["+", "-", "+"])
    source = saved(model)
    assert Sklearn().inspect(source).schema.inputs == (Tensor("inputs", DType.STRING, (None,)),)
    texts = ["good", "bad"]
    assert load(source).run({"inputs": np.array(texts)})["outputs"].tolist() == model.predict(texts).tolist()


@pytest.fixture
def named_columns():
    """A model fitted on named columns of numbers, without pandas: the names are set as fitting would."""
    import numpy as np
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(np.arange(8.0).reshape(4, 2), np.arange(4.0))
    model.feature_names_in_ = np.array(["age", "height"], dtype=object)
    return model


@pytest.mark.parametrize("how", ["pickle", "joblib", "skops"])
def test_names_of_columns_are_told_and_their_absence_is_no_warning(how, named_columns, saved, load):
    import numpy as np

    source = saved(named_columns, dump=dumps()[how])
    assert Sklearn().inspect(source).schema.inputs[0].columns == ("age", "height")
    assert load(source).run({"inputs": np.ones((1, 2))})["outputs"].shape == (1,)


@pytest.mark.parametrize("value", [{"model": 1}, [1, 2], "text", 3.5, None])
def test_what_is_no_estimator_is_described(value, saved):
    with pytest.raises(UsageError) as caught:
        Sklearn().inspect(saved(value))
    assert caught.value.code == "adapter.not_a_model"
    assert type(value).__name__ in caught.value.what or "dict" in caught.value.what


def test_code_of_the_users_own_leads_to_a_class_of_the_users_own(saved):
    with pytest.raises(UsageError) as caught:
        Sklearn().inspect(saved(Custom()))
    assert caught.value.code == "adapter.unknown_code"
    assert "Custom" in caught.value.what
    assert "file.py:Class" in caught.value.hint


def test_a_file_that_names_what_no_model_needs_is_refused_at_build_time(saved, tmp_path):
    marker = tmp_path / "marker"
    source = saved(None)
    source.path.write_bytes(b"\x80\x04cposix\nsystem\n(X\x05\0\0\0touchtR.")
    with pytest.raises(PolicyError, match=r"posix\.system") as caught:
        Sklearn().inspect(source)
    assert caught.value.where == str(source.path)
    assert not marker.exists()


def test_inspection_imports_no_framework(trained, saved):
    source = saved(trained["pipeline"])
    code = (
        "import sys; from pathlib import Path; from corten.adapters.base import Source\n"
        "from corten.adapters.sklearn import Sklearn\n"
        f"Sklearn().inspect(Source(Path({str(source.path)!r})))\n"
        "print(*sorted({'numpy', 'sklearn', 'joblib', 'scipy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == ""


def test_a_skops_file_needs_no_trust_for_what_the_list_has(trained, saved, load):
    import numpy as np

    source = saved(trained["boosting"], dump=dumps()["skops"])
    rows = np.ones((2, 4))
    assert np.array_equal(load(source).run({"inputs": rows})["outputs"], trained["boosting"].predict(rows))


def test_a_skops_file_with_a_gadget_is_refused(trained, saved, tmp_path):
    source = saved(trained["linear"], dump=dumps()["skops"])
    evil = tmp_path / "evil"
    with zipfile.ZipFile(source.path) as before, zipfile.ZipFile(evil, "w") as after:
        for name in before.namelist():
            data = before.read(name)
            if name == "schema.json":
                data = data.replace(b'"__class__": "LinearRegression"', b'"__class__": "system"').replace(
                    b'"__module__": "sklearn.linear_model._base"', b'"__module__": "os"'
                )
            after.writestr(name, data)
    with pytest.raises((PolicyError, UsageError)):
        Sklearn().inspect(Source(evil))
    with pytest.raises(PolicyError, match=r"os\.system"):
        Sklearn().load(ModelSpec("m", "sklearn", ("evil",)), tmp_path, tmp_path)


@given(data=st.data())
@settings(deadline=2000)
def test_a_damaged_skops_file_gives_a_value_or_an_error_of_ours(data, skops_bytes, tmp_path_factory):
    damaged = bytearray(skops_bytes)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.skops"
    path.write_bytes(damaged)
    try:
        code = read_skops(path).format
    except UsageError as error:
        code = error.code
    assert code in {"skops", "adapter.corrupt_model"}


@pytest.fixture(scope="module")
def skops_bytes(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("skops") / "file"
    dumps()["skops"](trained["pipeline"], path)
    return path.read_bytes()


@pytest.mark.parametrize(
    "schema", ["{", "[]", "{}", '{"__loader__": "ListNode"}', '{"__loader__":"JsonNode","content":"{"}', "[" * 100_000]
)
def test_a_schema_that_is_none_is_an_error_or_no_model(schema, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", schema)
    path = tmp_path / "file"
    path.write_bytes(buffer.getvalue())
    with pytest.raises(UsageError) as caught:
        Sklearn().inspect(Source(path))
    assert caught.value.code in {"adapter.corrupt_model", "adapter.not_a_model", "adapter.unknown_code"}


def test_a_deeply_nested_schema_is_refused(tmp_path):
    node = '{"__loader__": "ListNode", "content": [' * 400 + "]}" * 400
    path = tmp_path / "file"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", node)
    with pytest.raises(UsageError, match="nested too deep"):
        read_skops(path)


def test_extra_files_go_along_by_the_names_they_have_below_the_folder(trained, saved):
    source = saved(trained["linear"])
    folder = source.path.parent
    (folder / "data").mkdir()
    (folder / "data" / "a.txt").write_text("a")
    (folder / "data" / ".hidden").write_text("secret")
    found = Sklearn().inspect(replace(source, extra_files=(folder / "data",)))
    assert [file.name for file in found.weights] == ["model", "data/a.txt"]


def test_an_extra_file_that_is_not_there_is_named(trained, saved):
    source = saved(trained["linear"])
    with pytest.raises(UsageError, match=r"nothing\.txt"):
        Sklearn().inspect(replace(source, extra_files=(source.path.parent / "nothing.txt",)))


def test_two_files_cannot_have_one_name(trained, saved, tmp_path):
    source = saved(trained["linear"])
    other = tmp_path / "elsewhere"
    other.mkdir()
    shutil.copy(source.path, other / "model")
    (tmp_path / "inner").mkdir()
    inner = tmp_path / "inner" / "source"
    inner.write_bytes(source.path.read_bytes())
    with pytest.raises(UsageError) as caught:
        Sklearn().inspect(Source(inner, extra_files=(source.path, other / "model")))
    assert caught.value.code == "adapter.duplicate_file"


def test_a_model_without_a_schema_still_says_what_it_takes(named_columns):
    schema = SklearnModel(named_columns, "predict").schema
    assert schema.inputs[0] == Tensor("inputs", DType.FLOAT64, (None, 2), ("age", "height"))


def test_names_of_globals_are_written_with_their_module():
    assert str(Global("a.b", "C")) == "a.b.C"
