"""CALL models: a JSON object of arguments in, any JSON value out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from corten.adapters.base import CallModel
from corten.core.schema import Schema
from corten.serve.decoding import decode
from corten.serve.job import Inputs, ModelOutputError, Outcome, Result, invalid
from corten.serve.values import to_json


class CallsRunner:
    """A CallModel as a Runner. Types are the model's to check: it raises `InputError`."""

    # User code may block, and may hold what belongs to one thread (a SQLite connection, a CUDA stream).
    pinned = True

    def __init__(self, model: CallModel) -> None:
        self.schema: Schema = model.schema
        # Nothing is gained by giving many to one that answers them in turn, and all would wait for the last.
        self.joinable: bool = getattr(model, "joinable", True)
        self._model = model
        self._decoder = msgspec.json.Decoder(dict[str, Any])
        self._names = frozenset(parameter.name for parameter in model.schema.parameters)
        self._required = [parameter.name for parameter in model.schema.parameters if parameter.required]

    def decode(self, body: bytes | bytearray) -> Inputs:
        """See Runner. An empty body is an empty object."""
        arguments = decode(self._decoder, body) if body else {}
        for name in self._required:
            if name not in arguments:
                raise invalid(f"missing parameter `{name}`", name)
        for name in arguments:
            if name not in self._names:
                known = ", ".join(sorted(self._names)) or "none"
                raise invalid(f"unknown parameter; known: {known}", name[:100])
        return Inputs(arguments)

    def run(self, batch: Sequence[Inputs]) -> Outcome:
        """See Runner. A call that fails as a whole is done again one by one, so that one bad request fails alone."""
        start_s = time.perf_counter()
        results: Sequence[Result]
        try:
            results = self._call(batch)
        except BaseException as error:
            results = [error] if len(batch) == 1 else [self._alone(inputs) for inputs in batch]
        return Outcome(results, time.perf_counter() - start_s)

    def blank(self) -> Inputs | None:
        """See Runner. Arguments are not made up: user code may do anything with them."""
        return None

    def _alone(self, inputs: Inputs) -> Result:
        try:
            return self._call([inputs])[0]
        except BaseException as error:
            return error

    def _call(self, batch: Sequence[Inputs]) -> list[Result]:
        values = list(self._model.call([inputs.values for inputs in batch]))
        if len(values) != len(batch):
            raise ModelOutputError(f"the model gave {len(values)} results for {len(batch)} calls")
        return [_answer(value) for value in values]


def _answer(value: Any) -> Result:
    if isinstance(value, BaseException):
        return value
    try:
        return b'{"outputs":%b}' % to_json(value)
    except Exception as error:
        return error
