"""Pipelines that pick columns by name get data frames, with the types they were fitted on."""

import pytest

from corten.adapters.base import InputError
from corten.adapters.sklearn import Sklearn
from corten.core.model import ModelSpec
from corten.core.schema import DType

pytestmark = pytest.mark.examples
pd = pytest.importorskip("pandas", reason="pandas is not installed")


@pytest.fixture(scope="module")
def table():
    return pd.DataFrame({"city": ["a", "b", "a", "c"] * 5, "age": [1, 2, 3, 4] * 5, "height": [1.5, 2, 3, None] * 5})


@pytest.fixture(params=["names", "selector", "numbers only"])
def pipeline(request, table):
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "height"])
    texts = OneHotEncoder(handle_unknown="ignore")
    steps = {
        "names": [("texts", texts, ["city"]), numbers],
        "selector": [("texts", texts, make_column_selector(dtype_exclude="number")), numbers],
        "numbers only": [numbers],
    }[request.param]
    return make_pipeline(ColumnTransformer(steps), LogisticRegression()).fit(table, ["x", "y", "x", "y"] * 5)


@pytest.fixture
def loaded(pipeline, saved):
    import joblib

    source = saved(pipeline, dump=joblib.dump)
    found = Sklearn().inspect(source)
    spec = ModelSpec("m", "sklearn", (source.path.name,), method="predict_proba", schema=found.schema)
    return found, Sklearn().load(spec, source.path.parent, source.path.parent)


def rows_of(*rows):
    import numpy as np

    return {"inputs": np.array(rows, dtype=object)}


def test_any_value_may_stand_in_a_column_and_pandas_goes_along(loaded):
    found, _ = loaded
    (tensor,) = found.schema.inputs
    assert tensor.dtype is DType.JSON
    assert tensor.columns == ("city", "age", "height")
    assert any(line.startswith("pandas==") for line in found.requirements)


def test_answers_are_those_of_the_frame(loaded, pipeline, table):
    _, model = loaded
    answers = model.run(rows_of(*table.astype(object).where(table.notna(), None).to_numpy()))["outputs"]
    assert answers.tolist() == pipeline.predict_proba(table).tolist()


def test_one_row_with_null_is_answered_as_in_a_frame(loaded, pipeline):
    _, model = loaded
    answers = model.run(rows_of(["a", 2, None]))["outputs"]
    frame = pd.DataFrame({"city": ["a"], "age": [2], "height": [float("nan")]})
    assert answers.tolist() == pipeline.predict_proba(frame).tolist()
    assert model.run(rows_of([None, 2, None]))["outputs"].shape == (1, 2)


def test_text_where_a_number_belongs_is_the_requests_fault(loaded):
    with pytest.raises(InputError, match="old"):
        loaded[1].run(rows_of(["a", "old", 1.0]))
