"""Types beyond JSON in a signature: described, made, checked, given back. (Images and frames: tests/integration.)"""

from __future__ import annotations

import io
from dataclasses import dataclass
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


def test_a_missing_number_in_an_array_is_nan():
    assert np.isnan(answer(NDArray[np.float32], [1, None])[1])


@pytest.mark.parametrize(
    ("kind", "value", "path", "said"),
    [
        (
            Annotated[NDArray[np.float32], (None, 3)],
            [[1, 2]],
            "x",
            "expected float32 of shape [-1, 3], got shape [1, 2]",
        ),
        (NDArray[np.float32], ["1"], "x", "expected float32"),
        (NDArray[np.float32], [1, None, "1"], "x", "expected numbers"),
        (NDArray[np.float32], [[1], [1, 2]], "x", "equal lengths"),
        (NDArray[np.int8], [300], "x", "does not fit int8"),
        (NDArray[np.uint8], [-1], "x", "does not fit uint8"),
        (NDArray[np.int64], [1.5], "x", "expected int64, got float64"),
        (PIXELS, [[1, 2, 3]], "x", "of shape [-1, 2]"),
        (Box, {"corners": ["a"]}, "x.corners", "expected float32"),
        (list[Box], [{"corners": [1]}, {"corners": [1], "color": "green"}], "x[1].color", "green"),
        (Color, "green", "x", "green"),
        (bytes, "?", "x", "base64"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "x", ">= 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_said_with_its_place(kind, value, path, said):
    where, message = answer(kind, value)
    assert where == path
    assert said in message


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
