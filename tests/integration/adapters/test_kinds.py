"""Types of other libraries in a signature, with the libraries: images, frames, pydantic's models."""

from __future__ import annotations

import base64
import io
from typing import Annotated

import pytest

from corten.adapters.base import InputError
from corten.adapters.py_call import PyModel
from corten.adapters.py_types import plain

pytestmark = pytest.mark.frameworks
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


def model(kind):
    class Model:
        def predict(self, x):
            return x

    Model.predict.__annotations__ = {"x": kind, "return": kind}
    return PyModel(Model())


def answer(kind, value):
    (found,) = model(kind).call([{"x": value}])
    return (found.path, found.message) if isinstance(found, InputError) else found


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


@pytest.mark.parametrize(
    ("sent", "said"), [("AAE=", "expected an image"), ("?", "expected base64"), (3, "expected base64")]
)
def test_what_is_no_image_is_said_with_its_place(sent, said):
    assert answer(Image.Image, sent)[0] == "x"
    assert said in answer(Image.Image, sent)[1]


def test_images_are_described_as_files_and_go_as_png():
    schema = model(Image.Image).schema
    assert schema.parameters[0].json_schema["contentMediaType"] == "image/*"
    assert schema.returns["contentMediaType"] == "image/png"


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
