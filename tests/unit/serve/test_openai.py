from __future__ import annotations

import base64
import json
import struct

import msgspec
import pytest

from corten.serve.job import ModelOutputError, RequestError
from corten.serve.openai import _answer, _Embeddings


def ask(vectors, **rest):
    asked = msgspec.convert({"input": ["a"] * len(vectors), "model": "m", **rest}, _Embeddings)
    return json.loads(_answer(asked, vectors).body)["data"]


def test_vectors_come_as_numbers_or_as_the_bytes_of_float32():
    assert ask([[0.5, 0.1]])[0]["embedding"] == [0.5, 0.1]
    (one, two) = ask([[0.5, -1], [2, 3]], encoding_format="base64")
    assert (one["index"], two["index"]) == (0, 1)
    assert base64.b64decode(one["embedding"]) == struct.pack("<2f", 0.5, -1)


def test_only_the_models_own_dimensions_are_given():
    assert ask([[1, 2]], dimensions=2)
    with pytest.raises(RequestError, match="have 2 dimensions"):
        ask([[1, 2]], dimensions=1)


def test_what_is_no_vector_is_the_models_fault():
    with pytest.raises(ModelOutputError):
        ask([["a"]])
