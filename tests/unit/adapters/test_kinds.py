"""Types beyond JSON in a signature: described, made, checked, given back."""

from __future__ import annotations

import base64
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
from corten.adapters.py_types import json_schema, plain

Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


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
        (Image.Image, "AAE=", "x", "expected an image"),
        (Image.Image, "?", "x", "expected base64"),
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
    (parameter,) = model(Image.Image).schema.parameters
    assert parameter.json_schema["contentMediaType"] == "image/*"
    assert model(Image.Image).schema.returns["contentMediaType"] == "image/png"
    (parameter,) = model(Color, Color.BLUE).schema.parameters
    assert parameter.json_schema["default"] == "blue"


def png(size=(3, 2)):
    stream = io.BytesIO()
    Image.new("RGB", size, (9, 8, 7)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("form", ["bytes", "base64", "data"])
def test_images_come_as_bytes_base64_or_a_data_uri_and_go_as_png(form):
    text = base64.b64encode(png()).decode()
    sent = {"bytes": png(), "base64": text, "data": f"data:image/png;base64,{text}"}[form]
    seen = Image.open(io.BytesIO(base64.b64decode(answer(Image.Image, sent))))
    assert (seen.size, seen.getpixel((0, 0))) == ((3, 2), (9, 8, 7))


def test_an_image_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "too large" in answer(Image.Image, png((6, 6)))[1]


def test_arrays_may_come_as_a_file_of_numpys():
    stream = io.BytesIO()
    np.save(stream, np.array([1.5], np.float32))
    assert answer(NDArray[np.float32], stream.getvalue()) == [1.5]
    assert answer(NDArray[np.float32], b"\x93NUMPY\x01")[0] == "x"


@pytest.mark.frameworks
def test_frames_come_as_rows_as_columns_or_as_a_file_and_go_as_rows():
    import pandas as pd

    rows = [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    for sent in (rows, {"columns": ["a", "b"], "data": [[1, "x"], [2, "y"]]}, b"a,b\n1,x\n2,y\n"):
        assert answer(pd.DataFrame, sent) == rows
    assert answer(pd.DataFrame, [1])[0] == "x"
    assert plain(pd.DataFrame({"t": [pd.Timestamp("2026-01-02")]}))[0]["t"].startswith("2026-01-02")


def test_pydantics_models_and_constraints_keep_their_place():
    pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")

    class Inner(pydantic.BaseModel):
        numbers: list[int]

    assert answer(Inner, {"numbers": [1, "a"]})[0] == "x.numbers[1]"
    assert answer(Inner, {"numbers": [1]}) == {"numbers": [1]}
    assert ">= 1" in answer(Annotated[int, pydantic.Field(ge=1)], 0)[1]
