"""What a model is asked when nobody said what to ask."""

import pytest

from corten.core.model import ModelSpec
from corten.core.schema import DType, Parameter, Schema, Style, Tensor
from corten.ops.sample import sample_body


def spec(*parameters):
    return ModelSpec(name="m", adapter="pyclass", schema=Schema(style=Style.CALL, parameters=parameters))


@pytest.mark.parametrize(
    ("json_schema", "value"),
    [
        ({"type": "number"}, 0.0),
        ({"type": ["integer", "null"]}, 0),
        ({"type": "string", "enum": ["a", "b"]}, "a"),
        ({"anyOf": [{"type": "array"}, {"type": "null"}]}, []),
    ],
)
def test_a_value_of_the_type_that_is_told(json_schema, value):
    assert sample_body(spec(Parameter("x", json_schema))) == {"x": value}


def test_what_may_be_left_out_is_left_out():
    assert sample_body(spec(Parameter("x", {"type": "string"}, required=False))) == {}


def test_nothing_is_made_up_for_an_input_of_which_nothing_is_told():
    assert sample_body(spec(Parameter("x", {"type": "number"}), Parameter("y", {"title": "Y"}))) is None


def test_no_row_is_made_up_where_neither_its_shape_nor_its_type_is_told():
    free, told = Tensor("x", DType.JSON, (None,)), Tensor("x", DType.FLOAT32, (None, 2))
    for inputs, body in (((free,), None), ((told, free), None), ((told,), {"inputs": [[0.0, 0.0]]})):
        model = ModelSpec(name="m", adapter="torch", schema=Schema(Style.ROWS, inputs=inputs))
        assert sample_body(model) == body
