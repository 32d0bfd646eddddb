from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.schema import DType, Tensor
from corten.serve.calls import CallsRunner
from corten.serve.job import RequestError
from corten.serve.media import decode_as_declared
from corten.serve.npy import read_npy
from corten.serve.rows import RowsRunner


class Asked:
    """What is read of a request."""

    def __init__(self, body, kind="application/json", accept="", **headers):
        self.body = body
        self.headers = {"content-type": kind, "accept": accept, **headers}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def ask(model, *request, **headers):
    runner = RowsRunner(model)
    result = runner.run([decode_as_declared(runner, Asked(*request, **headers))]).results[0]
    if isinstance(result, BaseException):
        raise result
    return result


def test_a_table_is_answered_with_a_table(doubling):
    answer = ask(doubling, b"a,b,c\r\n1,2,\r\n", "text/csv", "text/csv")
    assert answer.content_type == "text/csv; charset=utf-8; header=present"
    assert answer.body == b"y_0,y_1,y_2\r\n2.0,4.0,\r\n"


def test_an_array_is_answered_with_an_array(doubling):
    answer = ask(doubling, npy(np.array([[1, 2, 3]], np.float32)), "application/x-npy", "application/x-npy")
    array = np.load(io.BytesIO(answer.body), allow_pickle=False)
    assert array.dtype == np.float32
    assert array.tolist() == [[2, 4, 6]]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/csv, */*", "text/csv"),
        ("*/*, text/csv", None),
        ("text/csv;q=0, application/x-npy", "application/x-npy"),
        ("image/png", None),
        ("", None),
    ],
)
def test_the_first_type_that_is_had_is_given(doubling, accept, kind):
    answer = ask(doubling, b'{"inputs": [[1, 2, 3]]}', "application/json", accept)
    if kind is None:
        assert json.loads(answer) == {"outputs": [[2, 4, 6]]}
    else:
        assert answer.content_type.startswith(kind)


@pytest.mark.parametrize("array", [np.array([[1, 2, 3]]), np.asfortranarray([[1, 2, 3], [4, 5, 6]], ">f8")])
def test_arrays_of_other_layouts_and_whole_numbers_are_taken(doubling, array):
    answer = ask(doubling, npy(array), "application/x-npy")
    assert json.loads(answer)["outputs"] == (array * 2).tolist()


def test_texts_are_taken_and_given_as_arrays(rows_model):
    model = rows_model(lambda x: {"y": x}, Tensor("x", DType.STRING, (None,)))
    answer = ask(model, npy(np.array(["a", "né"])), "application/x-npy", "application/x-npy")
    assert np.load(io.BytesIO(answer.body)).tolist() == ["a", "né"]


def test_an_answer_without_such_a_form_is_not_acceptable(rows_model):
    x = Tensor("x", DType.FLOAT32, (None,))
    for outputs in (lambda x: {"a": x, "b": x}, lambda x: {"a": np.array([[1], {}], dtype=object)[: len(x)]}):
        with pytest.raises(RequestError) as caught:
            ask(rows_model(outputs, x), b'{"inputs": [1]}', "application/json", "application/x-npy")
        assert caught.value.status == 406


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\x93NUMPY", 400),
        (npy(np.zeros((1, 3)))[:-1], 400),
        (npy(np.zeros((1, 3))) + b"\0", 400),
        (npy(np.zeros((1, 3))).replace(b"(1, 3)", b"(9999999999999, 3)"), 400),
        (npy(np.zeros((1, 3))).replace(b"\x01\x00", b"\x03\x00", 1), 400),
        (npy(np.zeros((1, 2))), 422),
        (npy(np.zeros((0, 3))), 422),
        (npy(np.full((1, 3), 1e300)), 422),
        (npy(np.array([["a", "b", "c"]])), 422),
        (npy(np.zeros((1, 3), complex)), 422),
    ],
)
def test_what_is_no_such_array_is_refused(doubling, body, status):
    with pytest.raises(RequestError) as caught:
        ask(doubling, body, "application/x-npy")
    assert caught.value.status == status


def test_nothing_is_unpickled(doubling):
    body = io.BytesIO()
    np.save(body, np.array([[print, 1, 2]], dtype=object), allow_pickle=True)
    with pytest.raises(RequestError, match="arrays of object are not taken"):
        ask(doubling, body.getvalue(), "application/x-npy")


@given(st.binary(max_size=300))
def test_any_bytes_are_an_array_or_refused(data):
    for body in (data, b"\x93NUMPY\x01\x00" + data):
        with pytest.raises(RequestError):
            read_npy(body, (Tensor("x", DType.FLOAT32, (None, 3)),))


def test_other_types_are_refused(doubling, calls_model):
    for kind, headers in {"image/png": {}, "application/json": {"content-encoding": "gzip"}}.items():
        with pytest.raises(RequestError) as caught:
            ask(doubling, b"{}", kind, **headers)
        assert caught.value.status == 415
    runner = CallsRunner(calls_model(lambda x: x, x="number"))
    with pytest.raises(RequestError, match="no argument of this model is a file"):
        decode_as_declared(runner, Asked(b"x\n1\n", "text/csv"))
    assert decode_as_declared(runner, Asked(b'{"x": 1}', accept="text/csv")).values == {"x": 1}
