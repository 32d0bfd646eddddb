from __future__ import annotations

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corten.core.schema import DType, Tensor
from corten.serve import oip_calls, oip_rows
from corten.serve.calls import CallsRunner
from corten.serve.job import RequestError
from corten.serve.oip_wire import parse, reply
from corten.serve.rows import RowsRunner


def question(inputs, *, raw=b"", **rest):
    text = json.dumps({"inputs": inputs, **rest}).encode()
    return parse(text + raw, str(len(text)) if raw else None)


def tensor_json(data, datatype="FP32", shape=None, name="x", **rest):
    return {"name": name, "datatype": datatype, "shape": shape or list(np.shape(data)), "data": data, **rest}


def ask_rows(model, asked):
    runner = RowsRunner(model)

    def form(arrays):
        return reply("toy", "1", asked, oip_rows.outputs(arrays, asked))

    result = runner.run([oip_rows.inputs(model.schema.inputs, asked, form)]).results[0]
    if isinstance(result, BaseException):
        raise result
    return result


def ask_calls(model, asked):
    runner = CallsRunner(model)

    def form(values):
        return reply("toy", "1", asked, oip_calls.outputs(values, model.schema, asked))

    result = runner.run([oip_calls.inputs(runner, asked, form)]).results[0]
    if isinstance(result, BaseException):
        raise result
    return result


def only(answer):
    (output,) = json.loads(answer.body)["outputs"]
    return output


@pytest.fixture
def echo(rows_model):
    def make(dtype, shape=(None,)):
        return rows_model(lambda x: {"y": x}, Tensor("x", dtype, shape), outputs=[Tensor("y", dtype, shape)])

    return make


def test_tensors_are_answered_with_tensors(doubling):
    answer = ask_rows(doubling, question([tensor_json([[1, 2, 3], [4, 5, 6]])], id="7"))
    assert json.loads(answer.body) == {
        "model_name": "toy",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 3], "data": [2, 4, 6, 8, 10, 12]}],
    }


def test_elements_may_be_flat_or_nested(doubling):
    nested = ask_rows(doubling, question([tensor_json([[1, 2, 3], [4, 5, 6]])]))
    flat = ask_rows(doubling, question([tensor_json([1, 2, 3, 4, 5, 6], shape=[2, 3])]))
    assert nested == flat


@pytest.mark.parametrize("kind", [kind for kind in oip_rows.DATATYPES if kind not in {DType.STRING, DType.JSON}])
def test_every_number_comes_back_as_it_was_sent_in_json_and_in_bytes(echo, kind):
    datatype = oip_rows.DATATYPES[kind]
    sent = np.array([0, 1, 1], dtype=kind.value)
    answer = only(ask_rows(echo(kind), question([tensor_json(sent.tolist(), datatype)])))
    assert (answer["datatype"], answer["data"]) == (datatype, sent.tolist())
    raw = sent.tobytes()
    head = {"name": "x", "datatype": datatype, "shape": [3], "parameters": {"binary_data_size": len(raw)}}
    answer = ask_rows(echo(kind), question([head], raw=raw, parameters={"binary_data_output": True}))
    size = int(dict(answer.headers)["Inference-Header-Content-Length"])
    output = json.loads(answer.body[:size])["outputs"][0]
    assert output["parameters"] == {"binary_data_size": len(raw)}
    assert answer.body[size:] == raw


def test_texts_travel_as_bytes_with_their_length_before_them(echo):
    raw = struct.pack("<I", 3) + "né".encode() + struct.pack("<I", 0)
    head = {"name": "x", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    asked = question([head], raw=raw, outputs=[{"name": "y", "parameters": {"binary_data": True}}])
    answer = ask_rows(echo(DType.STRING), asked)
    assert answer.body.endswith(raw)
    assert only(ask_rows(echo(DType.STRING), question([head], raw=raw)))["data"] == ["né", ""]


def test_bytes_are_not_copied_where_they_lie_straight_and_may_be_written_to(echo):
    sent = np.arange(4, dtype=np.float32)
    head = {"name": "x", "datatype": "FP32", "shape": [4], "parameters": {"binary_data_size": 16}}
    text = json.dumps({"inputs": [head]}).encode()
    text += b" " * (-len(text) % 16)
    body = bytearray(text + sent.tobytes())
    given = oip_rows.inputs(echo(DType.FLOAT32).schema.inputs, parse(body, str(len(text))), None)
    body[-4:] = struct.pack("<f", 9)
    assert given.values["x"].tolist() == [0, 1, 2, 9]


def test_only_wanted_outputs_are_given_in_the_wanted_order(rows_model):
    x = Tensor("x", DType.FLOAT32, (None,))
    model = rows_model(lambda x: {"a": x, "b": x + 1, "c": x}, x, outputs=[])
    asked = question([tensor_json([1.0])], outputs=[{"name": "b"}, {"name": "a"}])
    assert [output["name"] for output in json.loads(ask_rows(model, asked).body)["outputs"]] == ["b", "a"]
    with pytest.raises(RequestError, match="unknown output `z`; known: a, b, c"):
        ask_rows(model, question([tensor_json([1.0])], outputs=[{"name": "z"}]))


def test_parameters_it_does_not_know_are_ignored(doubling):
    asked = question([tensor_json([[1, 2, 3]], parameters={"x": 1})], parameters={"priority": 3}, surprise=1)
    assert only(ask_rows(doubling, asked))["data"] == [2, 4, 6]


def test_a_wider_number_is_taken_when_it_fits(doubling):
    assert only(ask_rows(doubling, question([tensor_json([[1, 2, 3]], "INT64")])))["datatype"] == "FP32"
    with pytest.raises(RequestError, match="do not fit FP32"):
        ask_rows(doubling, question([tensor_json([[1e300, 2, 3]], "FP64")]))


def test_missing_numbers_are_null(doubling):
    assert only(ask_rows(doubling, question([tensor_json([[1, None, 3]])])))["data"] == [2, None, 6]


@pytest.mark.parametrize(
    ("given", "message", "path"),
    [
        (tensor_json([[1, 2]]), "shape \\[1, 2\\], expected \\[-1, 3\\]", "inputs[0].shape"),
        (tensor_json([1, 2, 3]), "expected \\[-1, 3\\]", "inputs[0].shape"),
        (tensor_json([1, 2], shape=[1, 3]), "do not fit", "inputs[0]"),
        (tensor_json([], shape=[0, 3]), "at least one row", "inputs[0].shape"),
        (tensor_json([[1, "2", 3]]), "expected a number or null, got a string", "inputs[0].data[0][1]"),
        (tensor_json([[1, True, 3]]), "expected a number or null", "inputs[0].data[0][1]"),
        (tensor_json([[1.5, 2, 3]], "INT64"), "expected an integer", "inputs[0].data[0][0]"),
        (tensor_json([["a", "b", "c"]], "BYTES"), "datatype BYTES, expected FP32", "inputs[0].datatype"),
        (tensor_json([[1, 2, 3]], "BF16"), "`BF16` is not known", "inputs[0].datatype"),
        (tensor_json([[1, 2, 3]], shape=[-1, 3]), "expected lengths", "inputs[0].shape"),
        (tensor_json([[1, 2, 3]], name="z"), "unknown input `z`; known: x", "inputs[0].name"),
        ({"name": "x", "datatype": "FP32", "shape": [1, 3]}, "neither `data` nor", "inputs[0]"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused_with_its_place(doubling, given, message, path):
    with pytest.raises(RequestError, match=message) as caught:
        ask_rows(doubling, question([given]))
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("size", "raw", "message"),
    [
        (8, b"\0" * 8, "8 bytes, where shape and datatype make 12"),
        (12, b"\0" * 4, "not a size within the 4 bytes left"),
        (-1, b"\0" * 4, "not a size"),
        (True, b"\0", "not a size"),
        (12, b"\0" * 13, "1 bytes follow the last tensor"),
    ],
)
def test_bytes_that_do_not_add_up_are_refused(doubling, size, raw, message):
    head = {"name": "x", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": size}}
    with pytest.raises(RequestError, match=message):
        ask_rows(doubling, question([head], raw=raw))


@pytest.mark.parametrize("raw", [b"\1", b"\5\0\0\0ab", struct.pack("<I", 1) + b"a", b"\xff\xff\xff\xff"])
def test_texts_that_are_cut_off_or_too_few_are_refused(echo, raw):
    head = {"name": "x", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    with pytest.raises(RequestError):
        ask_rows(echo(DType.STRING), question([head], raw=raw))


@pytest.mark.parametrize("length", ["-1", "x", "999", "9" * 30, "²"])
def test_a_header_length_that_is_none_is_refused(length):
    with pytest.raises(RequestError, match="is not a length"):
        parse(b"{}", length)


@pytest.mark.parametrize("data", [[["a"], ["b", "c"]], [["a"], "b"], ["a", "b", "c"], [["a", "b"]]])
def test_texts_in_another_shape_than_declared_are_refused(echo, data):
    with pytest.raises(RequestError):
        ask_rows(echo(DType.STRING, (None, 1)), question([tensor_json(data, "BYTES", shape=[2, 1])]))
    with pytest.raises(RequestError):
        ask_rows(echo(DType.JSON, (None, 1)), question([tensor_json(data, "BYTES", shape=[2, 1])]))


def test_no_room_is_made_for_a_shape_that_is_only_claimed(echo):
    with pytest.raises(RequestError):
        ask_rows(echo(DType.STRING), question([tensor_json(["a"], "BYTES", shape=[10**15])]))


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_tensors = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "text", "z"]),
        "datatype": st.sampled_from(["FP32", "INT64", "BOOL", "BYTES", "BF16"]),
        "shape": st.lists(st.integers(-1, 3) | st.just(10**20), max_size=3),
    },
    optional={"data": _values, "parameters": st.dictionaries(st.just("binary_data_size"), _values)},
)


@given(
    inputs=st.lists(_tensors, max_size=2) | _values,
    raw=st.binary(max_size=24),
    kind=st.sampled_from(["float32", "string", "json"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # they make models, and keep nothing
def test_whatever_is_sent_is_answered_or_refused(rows_model, calls_model, inputs, raw, kind):
    x = Tensor("x", DType(kind), (None, 1))
    rows = rows_model(lambda x: {"y": x}, x)
    calls = calls_model(lambda text: text, text="string")
    for ask, model in ((ask_rows, rows), (ask_calls, calls)):
        try:
            ask(model, question(inputs, raw=raw))
        except RequestError:
            continue


@given(st.binary(max_size=40), st.none() | st.text(max_size=4))
def test_any_bytes_are_a_request_or_refused(body, length):
    with contextlib.suppress(RequestError):
        parse(body, length)


def test_a_joined_batch_answers_each_in_its_own_form(doubling):
    asked = question([tensor_json([[1, 2, 3]])])
    runner = RowsRunner(doubling)
    one = oip_rows.inputs(
        doubling.schema.inputs, asked, lambda arrays: reply("toy", "1", asked, oip_rows.outputs(arrays, asked))
    )
    mixed = runner.run([runner.decode(b'{"inputs":[[9,9,9]]}'), one, runner.decode(b'{"inputs":[[0,0,1]]}')]).results
    assert doubling.calls == [3]
    assert (mixed[0], mixed[2]) == (b'{"outputs":[[18.0,18.0,18.0]]}', b'{"outputs":[[0.0,0.0,2.0]]}')
    assert only(mixed[1])["data"] == [2, 4, 6]


def test_each_parameter_of_a_call_is_a_tensor(calls_model):
    model = calls_model(lambda text, top: f"{text}{top}", text="string", top="integer")
    asked = question([tensor_json(["a", "b"], "BYTES", name="text"), tensor_json([1, 2], "INT64", name="top")])
    assert only(ask_calls(model, asked))["data"] == ['"a1"', '"b2"']  # what it gives is not declared: JSON texts
    assert model.calls == [2]


def test_calls_take_bytes_too(calls_model):
    model = calls_model(lambda x, flag: [x, flag], x="number", flag="boolean")
    heads = [
        {"name": "x", "datatype": "FP64", "shape": [2], "parameters": {"binary_data_size": 16}},
        {"name": "flag", "datatype": "BOOL", "shape": [2, 1], "parameters": {"binary_data_size": 2}},
    ]
    answer = ask_calls(model, question(heads, raw=struct.pack("<dd??", 0.5, 2.0, True, False)))
    assert only(answer)["data"] == ["[0.5,true]", "[2.0,false]"]


def test_a_parameter_of_another_type_is_the_json_text_of_a_value(calls_model):
    model = calls_model(lambda obj: [len(obj)], obj="array")
    assert only(ask_calls(model, question([tensor_json(["[1, 2]"], "BYTES", name="obj")])))["data"] == ["[2]"]
    with pytest.raises(RequestError, match="JSON text") as caught:
        ask_calls(model, question([tensor_json(["[1, 2"], "BYTES", name="obj")]))
    assert caught.value.path == "inputs[0].data[0]"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([tensor_json(["a"], "BYTES", name="text")], "missing parameter `top`"),
        ([tensor_json([1], "INT64", name="text"), tensor_json([1], "INT64", name="top")], "expected BYTES"),
        ([tensor_json(["a"], "BYTES", name="text"), tensor_json([1, 2], "INT64", name="top")], "equally many"),
        ([tensor_json(["a"], "BYTES", name="who")], "unknown input `who`"),
        ([tensor_json(["a"], "BYTES", shape=[2], name="text")], "1 elements, where the shape makes 2"),
        ([], "missing parameter `text`"),
    ],
)
def test_calls_that_do_not_fit_are_refused(calls_model, inputs, message):
    model = calls_model(lambda text, top: text, text="string", top="integer")
    with pytest.raises(RequestError, match=message):
        ask_calls(model, question(inputs))
