"""Small models, as adapters would load them."""

from __future__ import annotations

import numpy as np
import pytest

from corten.core.schema import DType, Parameter, Schema, Style, Tensor


class Rows:
    """A RowsModel made of a function; remembers how many rows each call had."""

    def __init__(self, function, *inputs, outputs=()):
        self.schema = Schema(Style.ROWS, tuple(inputs), tuple(outputs))
        self.function = function
        self.calls = []

    def run(self, inputs):
        self.calls.append(len(next(iter(inputs.values()))))
        return self.function(**inputs)


class Calls:
    """A CallModel made of a function of one call."""

    def __init__(self, function, **parameters):
        names = tuple(Parameter(name, {"type": kind}, required=True) for name, kind in parameters.items())
        self.schema = Schema(Style.CALL, parameters=names, returns={})
        self.function = function
        self.calls = []

    def embed(self, texts):
        self.calls.append(len(texts))
        return [[len(text), 0.5] for text in texts]

    def call(self, calls):
        self.calls.append(len(calls))
        return [self._one(arguments) for arguments in calls]

    def _one(self, arguments):
        try:
            return self.function(**arguments)
        except Exception as error:
            return error


@pytest.fixture
def rows_model():
    return Rows


@pytest.fixture
def calls_model():
    return Calls


@pytest.fixture
def doubling():
    """x (n, 3) float32 to twice x."""
    x = Tensor("x", DType.FLOAT32, (None, 3))

    def double(x):
        with np.errstate(over="ignore"):
            return {"y": x * 2}

    return Rows(double, x, outputs=[Tensor("y", DType.FLOAT32, (None, 3))])


@pytest.fixture
def tensor():
    def make(dtype="float32", shape=(None, 3), name="x", columns=()):
        return Tensor(name, DType(dtype), shape, columns)

    return make
