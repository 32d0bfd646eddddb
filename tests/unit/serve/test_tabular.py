from __future__ import annotations

import json

import pytest

from corten.core.schema import DType, Parameter, Schema, Style, Tensor
from corten.serve.job import RequestError
from corten.serve.tabular import Table, body_of, calls_of, of_records, of_split, read_csv


def rows_schema(dtype="float64", columns=(), width=2):
    return Schema(Style.ROWS, (Tensor("x", DType(dtype), (None, width), columns),))


def inputs_of(text, schema):
    return json.loads(body_of(read_csv(text.encode()), schema, texts=True))["inputs"]


def test_a_table_of_numbers_needs_no_header():
    assert inputs_of("1,2\r\n3,4.5\n", rows_schema()) == [[1, 2], [3, 4.5]]


def test_columns_are_put_in_the_models_order():
    assert inputs_of("b,a\n1,2\n", rows_schema(columns=("a", "b"))) == [[2, 1]]


def test_empty_cells_and_nan_are_missing_numbers():
    assert inputs_of("a,b\n,nan\n", rows_schema()) == [[None, None]]


def test_cells_have_their_columns_type():
    assert inputs_of("a,b\ntrue,0\n", rows_schema("bool")) == [[True, False]]
    assert inputs_of("a,b\n1,02\n", rows_schema("string")) == [["1", "02"]]
    assert inputs_of('a,b\n39,"x, y"\n,1.5\n', rows_schema("json")) == [[39, "x, y"], [None, 1.5]]


def test_each_column_may_be_an_input_of_its_own():
    schema = Schema(Style.ROWS, (Tensor("a", DType.INT64, (None, 1)), Tensor("b", DType.STRING, (None,))))
    assert inputs_of("b,a\nx,1\ny,2\n", schema) == {"a": [[1], [2]], "b": ["x", "y"]}


@pytest.mark.parametrize(
    ("text", "message", "path"),
    [
        ("a,b\n1,x\n", "`x` is not of the column's type", "rows[0].b"),
        ("a,b\n1,inf\n", "`inf` is not", "rows[0].b"),
        ("a,b\n1\n", "1 cells, where the first line has 2", "rows[0]"),
        ("a,a\n1,2\n", "the same column twice", "rows"),
        ("a,b\n", "at least one row", "rows"),
        ("a,z\n1,2\n", "missing columns: b", "rows"),
        ("a,b,z\n1,2,3\n", "unknown columns: z", "rows"),
        (",a,b\n0,1,2\n", "unknown columns: one without a name", "rows"),
        ("", "no lines", ""),
        ('"a', "not CSV", ""),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_place(text, message, path):
    with pytest.raises(RequestError, match=message) as caught:
        inputs_of(text, rows_schema(columns=("a", "b")))
    assert caught.value.path == path


def test_text_that_is_not_utf_8_is_refused():
    with pytest.raises(RequestError, match="not CSV"):
        read_csv(b"a\n\xff\n")


def test_records_and_split_frames_are_the_same_table():
    assert (
        of_records([{"a": 1, "b": 2}], "p") == of_split(["a", "b"], [[1, 2]], "p") == Table(("a", "b"), [[1, 2]], "p")
    )
    with pytest.raises(RequestError, match="same keys") as caught:
        of_records([{"a": 1}, {"b": 2}], "p")
    assert caught.value.path == "p[1]"
    with pytest.raises(RequestError, match="1 values for 2 columns"):
        of_split(["a", "b"], [[1]], "p")


def test_a_row_is_a_call_and_an_empty_cell_leaves_an_argument_out():
    kinds = {"text": "string", "top": "integer", "deep": "boolean"}
    schema = Schema(Style.CALL, parameters=tuple(Parameter(name, {"type": kind}) for name, kind in kinds.items()))
    table = read_csv(b"text,top,deep\n12,3,true\n,,\n")
    assert calls_of(table, schema, texts=True) == [{"text": "12", "top": 3, "deep": True}, {"text": ""}]
