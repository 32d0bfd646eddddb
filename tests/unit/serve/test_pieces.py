"""Large bodies are read in pieces, and mean what they mean when they are read whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.core.schema import DType, Schema, Style, Tensor
from corten.serve import pieces, rows
from corten.serve.job import LARGE_BYTES, RequestError
from corten.serve.rows import RowsRunner


class Model:
    def __init__(self, *tensors):
        self.schema = Schema(Style.ROWS, tensors)

    def run(self, inputs):
        return inputs


def tensor(dtype=DType.FLOAT32, *shape, name="x", columns=()):
    return Tensor(name, dtype, (None, *shape), columns)


MODELS = {
    "floats": Model(tensor(DType.FLOAT32, 2)),
    "free": Model(tensor(DType.FLOAT64, None)),
    "cube": Model(tensor(DType.FLOAT32, 2, 2)),
    "flat": Model(tensor(DType.INT64)),
    "ints": Model(tensor(DType.INT8, 2)),
    "columns": Model(tensor(DType.FLOAT32, 2, columns=("a", "b"))),
    "two": Model(tensor(DType.FLOAT32, 1, name="a"), tensor(DType.INT64, name="b")),
}
NUMBERS = st.sampled_from(["1", "-2", "0.5", "null", "300", "1e300", "true", '"],"', "[1]", "", "1,", " 3 "])
LISTS = st.lists(NUMBERS, min_size=1, max_size=3).map(lambda cells: "[" + ",".join(cells) + "]")
RECORDS = st.tuples(NUMBERS, NUMBERS).map(lambda cells: f'{{"a":{cells[0]},"b":{cells[1]}}}')
ROWS = NUMBERS | LISTS | RECORDS | st.tuples(LISTS, LISTS).map(lambda pair: f"[{pair[0]},{pair[1]}]")
GAPS = st.sampled_from([",", ", ", " ,", ",\n  ", "", ",,"])
FORMS = st.sampled_from(
    [
        '{"inputs":[%s]}',
        ' { "inputs" : [ %s ] } ',
        '{"inputs":{"x":[%s]}}',
        '{"inputs":[%s],"y":1}',
        "[%s]",
        '{"inputs":[%s]',
    ]
)


def whole(runner, body):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "LARGE_BYTES", 1 << 40)
        return dict(runner.arrays(runner.decode(body).values))


def same(one, other):
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f")
        for name in one
    )


@given(model=st.sampled_from(sorted(MODELS)), given_rows=st.lists(ROWS, max_size=6), gap=GAPS, form=FORMS)
def test_what_is_read_in_pieces_is_what_is_read_whole(model, given_rows, gap, form):
    runner = RowsRunner(MODELS[model])
    body = (form % gap.join(given_rows)).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_PIECE_BYTES", 3)
        found = runner._pieces.read(body)
    if found is None:
        return  # it is read whole
    assert same(found, whole(runner, body))


@pytest.mark.parametrize("model", sorted(MODELS))
def test_a_large_body_is_read_in_pieces_in_each_form_it_is_usual_in(model, monkeypatch):
    monkeypatch.setattr(pieces, "_PIECE_BYTES", 4 << 10)
    runner = RowsRunner(MODELS[model])
    samples = {
        "floats": [0.25, -1], "free": [1, 2, 3], "cube": [[1, 2], [3, 4]], "flat": 1234567, "ints": [101, -102],
        "columns": {"a": 1, "b": None}, "two": {"a": 0.5, "b": 3},
    }  # fmt: skip
    many = [samples[model]] * 5_000
    for text in (json.dumps({"inputs": many}), json.dumps({"inputs": many}, separators=(",", ":"))):
        body = text.encode()
        found = runner._pieces.read(body)
        assert found is not None
        assert same(found, whole(runner, body))
        assert all(array.flags.writeable for array in found.values())


def test_a_model_of_texts_is_read_whole():
    runner = RowsRunner(Model(tensor(DType.STRING, 1)))
    assert runner._pieces.read(b'{"inputs":[["a"],["b"]]}') is None


def test_a_mistake_in_a_large_body_is_told_with_its_place():
    runner = RowsRunner(MODELS["floats"])
    many = [[1.0, 2.0]] * (LARGE_BYTES // 10)
    many[20_000] = [1.0, "x"]
    with pytest.raises(RequestError) as caught:
        runner.decode(json.dumps({"inputs": many}).encode())
    assert caught.value.path == "inputs[20000][1]"
