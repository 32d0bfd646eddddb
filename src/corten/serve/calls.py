"""CALL models: a JSON object of arguments in, any JSON value out."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.adapters.base import CallModel, InputError
from corten.core.schema import Schema
from corten.serve.decoding import decode
from corten.serve.job import Inputs, ModelOutputError, Observer, Outcome, Reply, Result, Streamed, invalid
from corten.serve.sink import Sink
from corten.serve.values import to_json


class CallsRunner:
    """A CallModel as a Runner. Types are the model's to check: it raises `InputError`."""

    observer: Observer | None = None
    # User code may block, and may hold what belongs to one thread (a SQLite connection, a CUDA stream).
    pinned = True

    def __init__(self, model: CallModel) -> None:
        self.schema: Schema = model.schema
        # Nothing is gained by giving many to one that answers them in turn, and all would wait for the last.
        self.joinable: bool = getattr(model, "joinable", True)
        self._model = model
        self.loop: asyncio.AbstractEventLoop | None = getattr(model, "loop", None)
        self.verbs: Mapping[str, Any] = getattr(model, "verbs", {})
        self._embed: Callable[[list[str]], Any] | None = getattr(model, "embed", None)
        others = self.verbs.keys() - {"predict"}
        self.abilities: Collection[str] = frozenset({*others, "embed"} if self._embed else others)
        self._decoder = msgspec.json.Decoder(dict[str, Any])
        self._names = frozenset(parameter.name for parameter in model.schema.parameters)
        self._required = [parameter.name for parameter in model.schema.parameters if parameter.required]

    def decode(self, body: bytes | bytearray) -> Inputs:
        """See Runner. An empty body is an empty object."""
        arguments = decode(self._decoder, body) if body else {}
        self._check(arguments, "")
        return Inputs(arguments)

    def of_arguments(self, arguments: Mapping[str, Any]) -> Inputs:
        """A call whose arguments are there already. Raises RequestError."""
        self._check(arguments, "")
        return Inputs(arguments)

    def many(self, calls: Sequence[Mapping[str, Any]], form: Callable[[Any], Reply], place: str) -> Inputs:
        """Calls that are one request: `form` gets their values in order, and one that fails makes the request fail.

        `place` is the path of the list in the request's body. Raises RequestError.
        """
        for index, arguments in enumerate(calls):
            self._check(arguments, f"{place}[{index}].")
        if not calls:
            raise invalid("expected at least one row", place)
        return Inputs(_Several(calls, place), len(calls), form=form)

    def embed(self, texts: Sequence[str], form: Callable[[Any], Reply]) -> Inputs:
        """Texts whose vectors are wanted; `form` gets them in order. Only for models that can `embed`."""
        return Inputs(texts, len(texts), _EMBED, form)

    def speak(
        self,
        verb: str,
        arguments: Mapping[str, Any],
        *,
        form: Callable[[Any], Reply] | None = None,
        sink: Sink | None = None,
    ) -> Inputs:
        """A call of one of the model's `verbs`, answered whole by `form` or piece by piece to `sink`."""
        # A shape of its own: it is never joined with others.
        return Inputs(_Spoken(verb, arguments), 1, object(), form, sink)

    def streamed(self, inputs: Inputs, sink: Sink) -> Inputs:
        """See Runner."""
        return self.speak("predict" if "predict" in self.verbs else next(iter(self.verbs)), inputs.values, sink=sink)

    def text(self, outputs: Any) -> bytes:
        """See Runner."""
        return to_json(outputs)

    def run(self, batch: Sequence[Inputs]) -> Outcome:
        """See Runner. A call that fails as a whole is done again one by one, so that one bad request fails alone."""
        start_s = time.perf_counter()
        results: Sequence[Result]
        try:
            results = self._call(batch)
        except BaseException as error:
            results = [error] if len(batch) == 1 else [self._alone(inputs) for inputs in batch]
        return Outcome(results, time.perf_counter() - start_s)

    async def answer(self, inputs: Inputs) -> Result:
        """See Runner."""
        given = inputs.values
        try:
            if isinstance(given, _Spoken):
                return await self._aspoken(inputs, given)
            if inputs.shape_key == _EMBED and self._embed is not None:
                vectors = self._embed(list(given))
                values = list(await vectors if inspect.isawaitable(vectors) else vectors)
                return _shared_out([inputs], values, inputs.rows)[0]
            calls = given.calls if isinstance(given, _Several) else [given]
            # A model with a loop has a call for it.
            return _shared_out([inputs], list(await self._model.acall(calls)), len(calls))[0]  # type: ignore[attr-defined]
        except Exception as error:
            return error

    def start(self) -> None:
        """See Runner."""

    def blank(self) -> Inputs | None:
        """See Runner. Arguments are not made up: user code may do anything with them."""
        return None

    def _check(self, arguments: Mapping[str, Any], place: str) -> None:
        for name in self._required:
            if name not in arguments:
                raise invalid(f"missing parameter `{name}`", f"{place}{name}")
        for name in arguments:
            if name not in self._names:
                known = ", ".join(sorted(self._names)) or "none"
                raise invalid(f"unknown parameter; known: {known}", f"{place}{name[:100]}")

    def _alone(self, inputs: Inputs) -> Result:
        try:
            return self._call([inputs])[0]
        except BaseException as error:
            return error

    def _call(self, batch: Sequence[Inputs]) -> list[Result]:
        if batch[0].shape_key == _EMBED and self._embed is not None:
            texts = [text for inputs in batch for text in inputs.values]
            return _shared_out(batch, list(self._embed(texts)), len(texts))
        if isinstance(batch[0].values, _Spoken):
            return [self._spoken(batch[0], batch[0].values)]
        calls: list[Mapping[str, Any]] = []
        for inputs in batch:
            given = inputs.values
            calls.extend(given.calls) if isinstance(given, _Several) else calls.append(given)
        return _shared_out(batch, list(self._model.call(calls)), len(calls))

    def _spoken(self, inputs: Inputs, given: _Spoken) -> Result:
        verb = self.verbs[given.verb]
        arguments = verb.checked(given.arguments)
        if isinstance(arguments, InputError):
            return arguments
        if inputs.sink is None:
            return _answer(inputs, [verb.value(arguments)])
        with closing(verb.pieces(arguments)) as pieces:
            for piece in pieces:
                inputs.sink.put(piece)
        return Streamed()

    async def _aspoken(self, inputs: Inputs, given: _Spoken) -> Result:
        verb = self.verbs[given.verb]
        arguments = verb.checked(given.arguments)
        if isinstance(arguments, InputError):
            return arguments
        if inputs.sink is None:
            return _answer(inputs, [await verb.avalue(arguments)])
        async with aclosing(verb.apieces(arguments)) as pieces:
            async for piece in pieces:
                await inputs.sink.aput(piece)
        return Streamed()


_EMBED = "embed"  # the shape of texts to embed: these and calls are never joined


@dataclass(frozen=True, slots=True)
class _Spoken:
    verb: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Several:
    calls: Sequence[Mapping[str, Any]]
    place: str


def _shared_out(batch: Sequence[Inputs], values: list[Any], expected: int) -> list[Result]:
    if len(values) != expected:
        raise ModelOutputError(f"the model gave {len(values)} results for {expected} calls")
    results: list[Result] = []
    start = 0
    for inputs in batch:
        end = start + inputs.rows
        results.append(_answer(inputs, values[start:end]))
        start = end
    return results


def _answer(inputs: Inputs, values: list[Any]) -> Result:
    for index, value in enumerate(values):
        if isinstance(value, BaseException):
            return _placed(value, inputs.values, index)
    try:
        if inputs.form is None:
            return b'{"outputs":%b}' % to_json(values[0])
        several = isinstance(inputs.values, _Several) or inputs.shape_key == _EMBED
        return inputs.form(values if several else values[0])
    except Exception as error:
        return error


def _placed(error: BaseException, given: object, index: int) -> BaseException:
    """An InputError of one of several calls, with the path that leads to it."""
    if isinstance(given, _Several) and isinstance(error, InputError):
        path = f"{given.place}[{index}]" + (f".{error.path}" if error.path else "")
        return InputError(error.message, path=path)
    return error
