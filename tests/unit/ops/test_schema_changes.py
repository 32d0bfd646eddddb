"""Which changes of a schema break a client."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from corten.core.schema import DType, Parameter, Schema, Stream, Style, Tensor
from corten.ops.schema_changes import schema_changes

X = Tensor("x", DType.FLOAT64, (None, 4), ("a", "b", "c", "d"))
Y = Tensor("y", DType.INT64, (None,))
ROWS = Schema(Style.ROWS, (X,), (Y,))
TEXT = Parameter("text", {"type": "string"})
ANSWER = {"type": "object", "properties": {"label": {"type": "string"}}}
CALL = Schema(Style.CALL, parameters=(TEXT,), returns=ANSWER)


def inputs(*tensors):
    return replace(ROWS, inputs=tensors)


def outputs(*tensors):
    return replace(ROWS, outputs=tensors)


def parameters(*found):
    return replace(CALL, parameters=found)


BREAKING = [
    (ROWS, CALL),
    (ROWS, None),
    (ROWS, inputs()),
    (ROWS, inputs(X, replace(X, name="z"))),
    (ROWS, inputs(replace(X, dtype=DType.FLOAT32))),
    (ROWS, inputs(replace(X, shape=(None, 5)))),
    (ROWS, inputs(replace(X, shape=(8, 4)))),
    (ROWS, inputs(replace(X, columns=("b", "a", "c", "d")))),
    (ROWS, outputs(replace(Y, name="z"))),
    (outputs(replace(Y, shape=(None, 3))), outputs(replace(Y, shape=(None, None)))),
    (CALL, parameters()),
    (CALL, parameters(TEXT, Parameter("top", {"type": "integer"}))),
    (CALL, parameters(replace(TEXT, json_schema={"type": "integer"}))),
    (parameters(replace(TEXT, required=False)), CALL),
    (CALL, replace(CALL, returns={"type": "string"})),
    # A field may be called as a keyword is.
    (CALL, replace(CALL, returns={"type": "object", "properties": {"title": {"type": "string"}}})),
    (CALL, replace(CALL, stream=Stream.LIST)),
    (replace(CALL, stream=Stream.LIST), replace(CALL, stream=Stream.TEXT)),
]
HARMLESS = [
    (inputs(replace(X, shape=(8, 4))), ROWS),
    (ROWS, outputs(Y, replace(Y, name="z"))),
    (outputs(replace(Y, shape=(None, None))), outputs(replace(Y, shape=(None, 3)))),
    (CALL, parameters(TEXT, Parameter("top", {"type": "integer"}, required=False))),
    (CALL, parameters(replace(TEXT, required=False))),
    (CALL, replace(CALL, returns={"type": "object", "properties": {**ANSWER["properties"], "p": {"type": "number"}}})),
]


@pytest.mark.parametrize(("before", "after"), BREAKING)
def test_what_refuses_a_client_or_surprises_it_breaks(before, after):
    changes = schema_changes(before, after)
    assert changes
    assert changes[0].breaking


@pytest.mark.parametrize(("before", "after"), HARMLESS)
def test_what_only_allows_or_tells_more_does_not_break(before, after):
    changes = schema_changes(before, after)
    assert changes
    assert not any(change.breaking for change in changes)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ROWS),
        (CALL, parameters(replace(TEXT, json_schema={"type": "string", "title": "Text", "default": "x"}))),
    ],
)
def test_a_description_is_no_change(before, after):
    assert schema_changes(before, after) == ()


@given(st.sampled_from([one for pair in (*BREAKING, *HARMLESS) for one in pair]))
@settings(max_examples=25)
def test_a_schema_does_not_differ_from_itself(schema):
    assert schema_changes(schema, schema) == ()
