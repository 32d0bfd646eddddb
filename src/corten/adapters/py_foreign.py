"""Load classes written for Cog or LitServe inside the image, without either."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from corten.adapters import cog_names, litserve_names
from corten.adapters.py_call import PyModel, make_class, model_loop
from corten.adapters.py_types import plain
from corten.adapters.py_verbs import Gives, Verb, gives
from corten.core.schema import Schema, Stream, Style


def load_cog(entry: str, models: Path, app: Path) -> PyModel:
    """Import a predictor, set it up in the folder of its files; raises what it raises."""
    sys.modules["cog"] = cog_names
    _work_in(models)
    predictor = make_class(entry, app)()
    _set_up(predictor.setup())
    return PyModel(_Predictor(predictor))


def load_litserve(entry: str, models: Path, app: Path, schema: Schema | None) -> LitModel:
    """Import an API, set it up for the processor in the folder of its files; raises what it raises."""
    sys.modules["litserve"] = litserve_names
    _work_in(models)
    api = make_class(entry, app)()
    api.device = "cpu"
    _set_up(api.setup("cpu"))
    return LitModel(api, schema)


def _set_up(returned: Any) -> None:
    if inspect.iscoroutine(returned):
        model_loop().run_until_complete(returned)


def _work_in(models: Path) -> None:
    """Both servers run a class where its files lie, and it names them by relative paths."""
    if models.is_dir():  # an image without model files has none
        os.chdir(models)


class _Predictor:
    """A predictor as a plain class: its arguments are typed, required or not, as `Input(...)` says."""

    def __init__(self, predictor: Any) -> None:
        hints = typing.get_type_hints(predictor.predict, include_extras=True)
        given = inspect.signature(predictor.predict).parameters.values()
        returns = hints.get("return", Any)
        predict = _cleaned_up(predictor.predict, gives(predictor.predict, returns))
        arguments = [_argument(one, hints.get(one.name, Any)) for one in given]
        # What a call looks like is read from here.
        predict.__signature__ = inspect.Signature(arguments)  # PEP 362
        predict.__annotations__ = {one.name: one.annotation for one in arguments} | {"return": returns}
        self.predict = predict


def _cleaned_up(predict: Any, gives: Gives) -> Any:
    """The method, and after it the files of its arguments removed; not before its answer is plain, which may lead to
    them.
    """

    def value(**arguments: Any) -> Any:
        with _temporary(arguments):
            return plain(predict(**arguments))

    async def awaitable(**arguments: Any) -> Any:
        with _temporary(arguments):
            return plain(await predict(**arguments))

    def iterator(**arguments: Any) -> Any:
        with _temporary(arguments):
            yield from map(plain, predict(**arguments))

    async def async_iterator(**arguments: Any) -> Any:
        with _temporary(arguments):
            async for piece in predict(**arguments):
                yield plain(piece)

    match gives:
        case Gives.VALUE:
            return value
        case Gives.AWAITABLE:
            return awaitable
        case Gives.ITERATOR:
            return iterator
        case Gives.ASYNC_ITERATOR:
            return async_iterator


@contextmanager
def _temporary(arguments: Mapping[str, Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for argument in arguments.values():
            if isinstance(argument, cog_names.Path):
                argument.unlink(missing_ok=True)


def _argument(given: inspect.Parameter, kind: Any) -> inspect.Parameter:
    field = given.default
    if not isinstance(field, cog_names.Field):
        return given.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    default = inspect.Parameter.empty if field.is_required else field.default
    return inspect.Parameter(
        given.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_bound(kind, field)
    )


def _bound(kind: Any, field: cog_names.Field) -> Any:
    """The type with its bounds, as the checker of requests knows them."""
    if field.choices:
        return typing.Literal[tuple(field.choices)]
    bounds: dict[str, Any] = {}
    if kind in (int, float):
        bounds = {"ge": field.ge, "le": field.le}
    elif kind is str:
        bounds = {"min_length": field.min_length, "max_length": field.max_length, "pattern": field.regex}
    known = {name: bound for name, bound in bounds.items() if bound is not None}
    if field.description:
        known["description"] = field.description
    return typing.Annotated[kind, msgspec.Meta(**known)] if known else kind


class LitModel:
    """A LitAPI: each request decoded, predicted, encoded, one after the other; a `predict` that yields answers piece by
    piece, with an `encode_response` that gets all of them, as LitServe's streaming has it.
    """

    joinable = False

    def __init__(self, api: Any, schema: Schema | None) -> None:
        steps = (api.decode_request, api.predict, api.encode_response)
        kinds = {gives(step, Any) for step in steps}
        is_async = any(kind.is_async for kind in kinds)
        streams = any(kind.streams for kind in kinds)
        chain = (_astream if is_async else _stream) if streams else (_avalue if is_async else _value)
        self.verb = Verb(chain(*steps), {}, Any, is_open=True)
        self.verbs = {"predict": self.verb}
        self.loop = model_loop() if is_async else None
        self.schema = msgspec.structs.replace(schema or Schema(Style.CALL), stream=Stream.LIST if streams else None)

    def call(self, calls: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """One answer a request; what the API raised stands for it."""
        return [self._one(call) for call in calls]

    async def acall(self, calls: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """The same for an async API, on its `loop`."""
        return await asyncio.gather(*(self.verb.avalue(call) for call in calls), return_exceptions=True)

    def _one(self, request: Mapping[str, Any]) -> Any:
        try:
            if self.loop is not None:
                return self.loop.run_until_complete(self.verb.avalue(request))
            return self.verb.value(request)
        except Exception as error:
            return error


def _value(decode: Any, predict: Any, encode: Any) -> Any:
    def run(**request: Any) -> Any:
        return encode(predict(decode(request)))

    return run


def _stream(decode: Any, predict: Any, encode: Any) -> Any:
    def run(**request: Any) -> Any:
        yield from encode(predict(decode(request)))

    return run


def _avalue(decode: Any, predict: Any, encode: Any) -> Any:
    async def run(**request: Any) -> Any:
        return await _ready(encode(await _ready(predict(await _ready(decode(request))))))

    return run


def _astream(decode: Any, predict: Any, encode: Any) -> Any:
    async def run(**request: Any) -> Any:
        pieces = await _ready(encode(await _ready(predict(await _ready(decode(request))))))
        if hasattr(pieces, "__aiter__"):
            async for piece in pieces:
                yield piece
        else:
            for piece in pieces:
                yield piece

    return run


async def _ready(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
