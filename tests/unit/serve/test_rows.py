from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corten.core.schema import DType, Tensor
from corten.serve.job import ModelOutputError, RequestError
from corten.serve.rows import RowsRunner

ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["x", "a", "b", "inputs", "é"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def ask(runner, value):
    """One request alone; its outputs, or the exception."""
    result = runner.run([runner.decode(value if isinstance(value, bytes) else json.dumps(value).encode())]).results[0]
    if isinstance(result, BaseException):
        raise result
    return strict(result)["outputs"]


def strict(body):
    """JSON as the standard has it: Python's reader would take NaN."""

    def refuse(text):
        raise AssertionError(text)

    return json.loads(body, parse_constant=refuse)


def refusal(runner, value):
    with pytest.raises(RequestError) as caught:
        ask(runner, value)
    return caught.value.status, caught.value.path, caught.value.message


def test_rows_are_answered_by_rows(doubling):
    assert ask(RowsRunner(doubling), {"inputs": [[1, 2, 3], [0.5, 0, -1]]}) == [[2, 4, 6], [1, 0, -2]]


def test_rows_may_be_given_by_the_name_of_the_input(doubling):
    assert ask(RowsRunner(doubling), {"inputs": {"x": [[1, 2, 3]]}}) == [[2, 4, 6]]


def test_both_forms_may_meet_in_one_batch(doubling):
    runner = RowsRunner(doubling)
    batch = [runner.decode(b'{"inputs":[[1,2,3]]}'), runner.decode(b'{"inputs":{"x":[[4,5,6],[7,8,9]]}}')]
    outcome = runner.run(batch)
    assert [strict(body)["outputs"] for body in outcome.results] == [[[2, 4, 6]], [[8, 10, 12], [14, 16, 18]]]
    assert doubling.calls == [3]


def test_records_are_put_in_the_order_of_the_columns(rows_model, tensor):
    x = tensor("float64", (None, 2), columns=("age", "body height (cm)"))
    runner = RowsRunner(rows_model(lambda x: {"y": x[:, 0] * 1000 + x[:, 1]}, x))
    assert ask(runner, {"inputs": [{"body height (cm)": 2, "age": 1}]}) == [1002]
    assert ask(runner, {"inputs": [[1, 2]]}) == [1002]
    status, path, message = refusal(runner, {"inputs": [{"age": 1}]})
    assert (status, path) == (422, "inputs[0]")
    assert "body height (cm)" in message
    assert refusal(runner, {"inputs": [{"age": 1, "body height (cm)": "x"}]})[:2] == (422, "inputs[0].body height (cm)")
    assert refusal(runner, {"inputs": [{"age": 1, "body height (cm)": 2}, [1, 2]]})[:2] == (422, "inputs[1]")
    assert refusal(runner, {"inputs": [[1, 2], {"age": 1, "body height (cm)": 2}]})[:2] == (422, "inputs[1]")


def test_records_name_the_inputs_where_each_takes_one_value_a_row(rows_model, tensor):
    job = tensor("string", (None, 1), name="job")
    age = tensor("int64", (None,), name="age")
    runner = RowsRunner(
        rows_model(lambda job, age: {"y": [f"{j}{a}" for j, a in zip(job[:, 0], age, strict=True)]}, job, age)
    )
    assert ask(runner, {"inputs": [{"job": "cook", "age": 3}, {"age": 4, "job": "king"}]}) == ["cook3", "king4"]
    assert ask(runner, {"inputs": {"job": [["cook"]], "age": [3]}}) == ["cook3"]
    assert refusal(runner, {"inputs": [[1, 2]]})[0] == 422
    assert refusal(runner, {"inputs": {"job": [["a"], ["b"]], "age": [3]}})[:2] == (422, "inputs")


def test_several_outputs_come_by_name(rows_model, tensor):
    runner = RowsRunner(rows_model(lambda x: {"a": x[:, 0], "b": x.sum(axis=1) > 3}, tensor()))
    assert ask(runner, {"inputs": [[1, 1, 1], [2, 2, 2]]}) == {"a": [1, 2], "b": [False, True]}


@pytest.mark.parametrize(
    ("body", "status", "path"),
    [
        (b"", 400, ""),
        (b"{", 400, ""),
        (b"nonsense", 400, ""),
        (b'{"inputs":[[1,2,NaN]]}', 400, ""),
        (b'{"inputs":[[1,2,3]]} x', 400, ""),
        (b'{"inputs":[[1,2,"\xff"]]}', 422, "inputs[0][2]"),
        (b"[" * 100_000, 422, ""),
        (b"[]", 422, ""),
        (b"{}", 422, ""),
        (b'{"inputs":[[1,2,3]],"other":1}', 422, ""),
        (b'{"inputs":3}', 422, "inputs"),
        (b'{"inputs":[]}', 422, "inputs"),
        (b'{"inputs":[[1,2,3],[1,2]]}', 422, "inputs[1]"),
        (b'{"inputs":[[1,2,3,4]]}', 422, "inputs[0]"),
        (b'{"inputs":[1,2,3]}', 422, "inputs[0]"),
        (b'{"inputs":[[1,2,"3"]]}', 422, "inputs[0][2]"),
        (b'{"inputs":[[1,2,true]]}', 422, "inputs[0][2]"),
        (b'{"inputs":[[1,2,[3]]]}', 422, "inputs[0][2]"),
        (b'{"inputs":[[1,2,1e400]]}', 422, "inputs[0][2]"),
        (b'{"inputs":[[1,2,3],[0,1e300,0]]}', 422, "inputs[1][1]"),
        (b'{"inputs":{"y":[[1,2,3]]}}', 422, "inputs"),
        (b'{"inputs":{"x":[[1,2]]}}', 422, "inputs.x[0]"),
        (b'{"inputs":{"x":[]}}', 422, "inputs.x"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(doubling, body, status, path):
    assert refusal(RowsRunner(doubling), body)[:2] == (status, path)
    assert doubling.calls == []


def test_a_message_says_what_was_expected_and_seen(doubling):
    runner = RowsRunner(doubling)
    assert refusal(runner, {"inputs": [[1, 2, "x"]]})[2] == "expected a number or null, got a string"
    assert refusal(runner, {"inputs": [[1, 2]]})[2] == "expected 3 values, got 2"
    assert refusal(runner, {"inputs": [[1, 2, 1e300]]})[2] == "1e+300 does not fit float32"


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("uint8", [0, 255], [256, -1, 1.5, "1", True, None]),
        ("int64", [-(1 << 63), (1 << 63) - 1], [1 << 63, 0.5, "x"]),
        ("uint64", [(1 << 64) - 1], [1 << 64, -1]),
        ("bool", [True, False], [0, 1, "true", None]),
        ("string", ["", "é"], [1, None, []]),
        ("float16", [65504, 0.1], [1e6, "x"]),
        ("float64", [1e308, -0.0], [False, {}]),
    ],
)
def test_each_type_takes_its_own_values_only(rows_model, tensor, dtype, good, bad):
    runner = RowsRunner(rows_model(lambda x: {"y": x}, tensor(dtype, (None,))))
    answered = ask(runner, {"inputs": good})
    assert answered == [pytest.approx(value, rel=1e-3) if isinstance(value, float) else value for value in good]
    for value in bad:
        assert refusal(runner, {"inputs": [good[0], value]})[:2] == (422, "inputs[1]"), value


def test_integers_stay_integers_and_floats_are_exact(rows_model, tensor):
    runner = RowsRunner(rows_model(lambda x: {"i": x.astype(np.int64), "f": x}, tensor("float32", (None,))))
    result = runner.run([runner.decode(b'{"inputs":[3,0.1]}')]).results[0]
    assert b'"i":[3,0]' in result
    third = strict(result)["outputs"]["f"][1]
    assert third == float(np.float32(0.1))


def test_null_is_a_missing_number_and_not_a_number_comes_back_as_null(doubling):
    assert ask(RowsRunner(doubling), {"inputs": [[None, 1, 3e38]]}) == [[None, 2, None]]


def test_a_model_that_takes_no_missing_values_makes_it_the_fault_of_the_request(rows_model, tensor):
    def refuse(x):
        if np.isnan(x).any():
            raise ValueError("Input contains NaN")
        raise ValueError("broken")

    runner = RowsRunner(rows_model(refuse, tensor()))
    assert refusal(runner, {"inputs": [[None, 1, 2]]})[:2] == (422, "inputs")
    with pytest.raises(ValueError, match="broken"):
        ask(runner, {"inputs": [[0, 1, 2]]})


def test_json_elements_are_passed_on_as_they_are(rows_model, tensor):
    runner = RowsRunner(rows_model(lambda x: {"y": x}, tensor("json", (None, 2))))
    value = [[{"a": [1]}, [1, [2]]], [None, "x"]]
    assert ask(runner, {"inputs": value}) == value
    assert refusal(runner, {"inputs": [[1, 2], [1]]})[:2] == (422, "inputs[1]")


def test_one_bad_request_fails_alone(rows_model, tensor):
    def touchy(x):
        if (x == 13).any():
            raise RuntimeError("unlucky")
        return {"y": x}

    model = rows_model(touchy, tensor("float32", (None,)))
    runner = RowsRunner(model)
    results = runner.run([runner.decode(b'{"inputs":[%d]}' % number) for number in (1, 13, 3)]).results
    assert [type(result) for result in results] == [bytes, RuntimeError, bytes]
    assert model.calls == [3, 1, 1, 1]


def test_a_number_too_large_is_refused_before_it_joins_a_batch(doubling):
    with pytest.raises(RequestError) as refused:
        RowsRunner(doubling).decode(b'{"inputs":[[1,2,1e300]]}')
    assert (refused.value.status, refused.value.path) == (422, "inputs[0][2]")


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70) | st.none()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(_NUMBERS, min_size=3, max_size=3), min_size=1, max_size=3))
def test_rows_read_one_by_one_are_those_numpy_makes_of_all(rows_model, tensor, dtype, rows):
    runner = RowsRunner(rows_model(lambda x: {"y": x}, tensor(dtype)))
    floats = [[math.nan if cell is None else float(cell) for cell in row] for row in rows]
    try:
        with np.errstate(over="raise"):
            expected = np.asarray(floats, dtype=dtype)
    except (FloatingPointError, OverflowError):
        with pytest.raises(RequestError):
            runner.decode(json.dumps({"inputs": rows}).encode())
        return
    array = runner.arrays(runner.decode(json.dumps({"inputs": rows}).encode()).values)["x"]
    assert array.dtype == expected.dtype
    assert array.flags.writeable
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize(
    "output",
    [
        pytest.param(lambda x: {"y": x[:1]}, id="too-few"),
        pytest.param(lambda x: {"y": np.concatenate([x, x])}, id="too-many"),
        pytest.param(lambda x: {"y": 3}, id="no-array"),
        pytest.param(lambda x: {}, id="none"),
    ],
)
def test_outputs_that_do_not_belong_to_the_rows_are_the_models_fault(rows_model, tensor, output):
    runner = RowsRunner(rows_model(output, tensor("float32", (None,))))
    with pytest.raises(ModelOutputError):
        ask(runner, {"inputs": [1, 2, 3]})


def test_a_model_made_for_one_batch_size_is_never_joined(rows_model, tensor):
    assert not RowsRunner(rows_model(lambda x: {"y": x}, tensor("float32", (1, 3)))).joinable


def test_only_inputs_of_one_shape_may_be_joined(rows_model, tensor):
    runner = RowsRunner(rows_model(lambda x: {"y": x.sum(axis=1)}, tensor("int64", (None, None))))
    short, long = runner.decode(b'{"inputs":[[1,2]]}'), runner.decode(b'{"inputs":[[1,2,3]]}')
    assert short.shape_key != long.shape_key
    assert refusal(runner, {"inputs": [[1, 2], [1, 2, 3]]})[:2] == (422, "inputs[1]")


def test_strings_and_bytes_of_numpy_are_written_as_text(rows_model, tensor):
    runner = RowsRunner(
        rows_model(
            lambda x: {"u": np.array(["a"]), "s": np.array([b"b"]), "o": np.array([np.float32(1)], dtype=object)},
            tensor("float32", (None,)),
        )
    )
    assert ask(runner, {"inputs": [1]}) == {"u": ["a"], "s": ["b"], "o": [1]}


@pytest.mark.parametrize("count", [255, 256, 257, 4095, 4096, 4097, 9000])
def test_answers_of_any_length_are_whole_and_in_order(rows_model, tensor, count):
    x = tensor("float32", (None, 1))
    rows = [[float(number)] for number in range(count)]
    assert ask(RowsRunner(rows_model(lambda x: {"y": x}, x)), {"inputs": rows}) == rows
    two = RowsRunner(rows_model(lambda x: {'a"b': x, "c": x[:, 0] * 2}, x))
    assert ask(two, {"inputs": rows}) == {'a"b': rows, "c": [2 * row[0] for row in rows]}


def test_blank_inputs_fit_the_schema(rows_model, tensor):
    runner = RowsRunner(
        rows_model(
            lambda a, b: {"y": [len(a)]}, tensor(shape=(None, 3), name="a"), tensor("string", (None, None), name="b")
        )
    )
    blank = runner.blank()
    assert blank.values["a"].shape == (1, 3)
    assert blank.values["b"].tolist() == [[""]]
    assert runner.run([blank]).results[0] == b'{"outputs":[1]}'


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    ANY_JSON | st.builds(lambda inner: {"inputs": inner}, ANY_JSON),
    st.sampled_from(["float32", "float64", "int8", "uint64", "bool", "string", "json"]),
    st.sampled_from([(None,), (None, 2), (None, None), (2, 1), (None, 2, 1)]),
)
def test_any_json_is_answered_or_refused(rows_model, value, dtype, shape):
    runner = RowsRunner(rows_model(lambda x: {"y": x}, Tensor("x", DType(dtype), shape)))
    try:
        outputs = ask(runner, value)
    except RequestError as error:
        assert error.status in {400, 422}  # noqa: PT017 - either of two outcomes is right
    else:
        given_rows = value["inputs"] if isinstance(value["inputs"], list) else value["inputs"]["x"]
        assert len(outputs) == len(given_rows)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.lists(
            st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_batch_answers_what_each_request_would_get_alone(doubling, requests):
    runner = RowsRunner(doubling)
    inputs = [runner.decode(json.dumps({"inputs": rows}).encode()) for rows in requests]
    with np.errstate(over="ignore"):
        together = runner.run(inputs).results
        alone = [runner.run([one]).results[0] for one in inputs]
    assert together == alone
    for body, rows in zip(together, requests, strict=True):
        with np.errstate(over="ignore"):
            doubled = np.asarray(rows, dtype=np.float32) * 2
        expected = [[value if math.isfinite(value) else None for value in row] for row in doubled.tolist()]
        assert strict(body)["outputs"] == expected
