"""Types beyond JSON in a signature: described, made, checked, given back. (Images and frames: tests/integration.)"""

from __future__ import annotations

import copy
import io
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Literal, Optional

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from corten.adapters.base import InputError
from corten.adapters.py_call import PyModel
from corten.adapters.py_types import json_schema


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Box:
    corners: NDArray[np.float32]
    color: Color = Color.RED


def model(kind, default=...):
    class Model:
        def predict(self, x):
            return x

    Model.predict.__annotations__ = {"x": kind, "return": kind}
    if default is not ...:
        Model.predict.__defaults__ = (default,)
    return PyModel(Model())


def answer(kind, value):
    (found,) = model(kind).call([{"x": value}])
    return (found.path, found.message) if isinstance(found, InputError) else found


@dataclass
class Box2:
    name: str = "a"
    sides: list[int] = field(default_factory=list)
    inner: list[Box2] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    boxes: dict[str, Box2]
    scale: float = 2.0


PIXELS = np.ndarray[tuple[int, Literal[2]], np.dtype[np.uint8]]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (np.ndarray, [[1, 2]], [[1, 2]]),
        (NDArray[np.float32], [1, 2.5], [1.0, 2.5]),
        (Annotated[NDArray[np.int16], (None, 2)], [[1, 2]], [[1, 2]]),
        (PIXELS, [[0, 255]], [[0, 255]]),
        (NDArray[np.bool_], [True], [True]),
        (NDArray[np.str_], ["a"], ["a"]),
        (NDArray[np.float64] | None, None, None),
        (list[NDArray[np.int64]], [[1], [2, 3]], [[1], [2, 3]]),
        (Color, "blue", "blue"),
        (Optional[Color], None, None),  # noqa: UP045 - as people write it
        (Literal["a", 1], 1, 1),
        (Box, {"corners": [1], "color": "blue"}, {"corners": [1.0], "color": "blue"}),
        (dict[str, bytes], {"a": "AAE="}, {"a": "AAE="}),
    ],
    ids=str,
)
def test_what_fits_becomes_what_the_signature_says(kind, value, expected):
    assert answer(kind, value) == expected


def test_what_is_left_out_of_a_dataclass_is_there_when_it_is_looked_at_or_given_back():
    given = {"boxes": {"one": {"inner": [{"sides": [1]}]}}}
    inner = {"name": "a", "sides": [1], "inner": []}
    whole = {"boxes": {"one": {"name": "a", "sides": [], "inner": [inner]}}, "scale": 2.0}
    assert answer(Frozen, given) == whole
    assert answer(list[Frozen] | None, [given]) == [whole]

    class Model:
        def predict(self, x: Frozen) -> dict:
            return vars(x.boxes["one"].inner[0])

    assert PyModel(Model()).call([{"x": given}]) == [inner]


def test_a_missing_number_in_an_array_is_nan():
    assert np.isnan(answer(NDArray[np.float32], [1, None])[1])


@pytest.mark.parametrize(
    ("kind", "value", "path", "said"),
    [
        (Annotated[NDArray[np.float32], (None, 3)], [[1, 2]], "x[0]", "float32 of shape [3], got shape [2]"),
        (Annotated[NDArray[np.float32], (2, 3)], [[1, 2, 3]], "x", "of shape [2, 3], got shape [1, 3]"),
        (Annotated[NDArray[np.float32], (None, 3)], [[1, 2, 3]] * 4 + [[1, "2", 3]], "x[4][1]", "got text"),
        (NDArray[np.float32], ["1"], "x[0]", "expected float32, got text"),
        (NDArray[np.float32], [1, None, "1"], "x[2]", "got text"),
        (NDArray[np.float32], [[1], [1, 2]], "x", "equal lengths"),
        (NDArray[np.float32], [[1, 2], [3, 1e300], [4, 5]], "x[1][1]", "does not fit float32"),
        (NDArray[np.float32], [1, {"a": 1}], "x[1]", "expected numbers"),
        (NDArray[np.int8], [300], "x[0]", "does not fit int8"),
        (NDArray[np.uint8], [1, 2, -1, 4], "x[2]", "does not fit uint8"),
        (NDArray[np.int64], [1.5], "x[0]", "expected int64, got float64"),
        (list[NDArray[np.int64]], [[1], [2, "3"]], "x[1][1]", "got text"),
        (PIXELS, [[1, 2, 3]], "x[0]", "of shape [2]"),
        (Box, {"corners": ["a"]}, "x.corners[0]", "expected float32"),
        (list[Box], [{"color": "red"}], "x[0].corners", "missing required field `corners`"),
        (dict[str, list[int]], {"a": [1], "b": [2, "c"], "d": [3]}, "x.b[1]", "expected an integer, got a string"),
        (dict[str, dict[str, Box]], {"a": {}, "b": {"c": {"corners": [[], "d"]}}}, "x.b.c.corners[1]", "got text"),
        (
            list[Box],
            [{"corners": [1]}, {"corners": [1], "color": "green"}],
            "x[1].color",
            "one of 'blue', 'red', got 'green'",
        ),
        (Color, "green", "x", "expected one of 'blue', 'red', got 'green'"),
        (dict[str, Color | None], {"a": None, "b": "green"}, "x.b", "expected one of 'blue', 'red', got 'green'"),
        (tuple[int, Literal["a"]], [1, "b"], "x[1]", "expected one of 'a', got 'b'"),
        (Literal[tuple(range(30))], 40, "x", "17, 18, 19, ..., got 40"),
        (bytes, "?", "x", "base64"),
        (bytes, 5, "x", "expected text in base64, got an integer"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "x", "expected an integer >= 1"),
        (Annotated[list[int], msgspec.Meta(max_length=1)], [1, 2], "x", "expected a list of length <= 1"),
        (float | None, "a", "x", "expected a number or null, got a string"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_with_its_place(kind, value, path, said):
    before = copy.deepcopy(value)
    where, message = answer(kind, value)
    assert where == path
    assert said.lower() in message.lower()
    assert value == before


def test_shapes_and_types_are_described():
    assert json_schema(Annotated[int, msgspec.Meta(ge=1)])["minimum"] == 1
    (parameter,) = model(Annotated[NDArray[np.float32], (None, 2)]).schema.parameters
    assert parameter.json_schema["items"] == {
        "type": "array",
        "items": {"type": ["number", "null"]},
        "minItems": 2,
        "maxItems": 2,
    }
    (parameter,) = model(Color, Color.BLUE).schema.parameters
    assert parameter.json_schema["default"] == "blue"


def test_arrays_may_come_as_a_file_of_numpys():
    stream = io.BytesIO()
    np.save(stream, np.array([1.5], np.float32))
    assert answer(NDArray[np.float32], stream.getvalue()) == [1.5]
    assert answer(NDArray[np.float32], b"\x93NUMPY\x01")[0] == "x"
    claiming = stream.getvalue().replace(b"(1,)", b"(9" + b"9" * 12 + b",)")
    assert answer(NDArray[np.float32], claiming)[0] == "x"
    assert answer(np.ndarray, b"PK\x03\x04")[0] == "x", "no archive of arrays either"
