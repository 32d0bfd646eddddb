"""Load classes written for Cog or LitServe inside the image, without either."""

from __future__ import annotations

import inspect
import os
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from corten.adapters import cog_names, litserve_names
from corten.adapters.py_call import PyModel, make_class, plain
from corten.core.schema import Schema, Style


def load_cog(entry: str, models: Path, app: Path) -> PyModel:
    """Import a predictor, set it up in the folder of its files; raises what it raises."""
    sys.modules["cog"] = cog_names
    _work_in(models)
    predictor = make_class(entry, app)()
    predictor.setup()
    return PyModel(_Predictor(predictor))


def load_litserve(entry: str, models: Path, app: Path, schema: Schema | None) -> LitModel:
    """Import an API, set it up for the processor in the folder of its files; raises what it raises."""
    sys.modules["litserve"] = litserve_names
    _work_in(models)
    api = make_class(entry, app)()
    api.device = "cpu"
    api.setup("cpu")
    return LitModel(api, schema)


def _work_in(models: Path) -> None:
    """Both servers run a class where its files lie, and it names them by relative paths."""
    if models.is_dir():  # an image without model files has none
        os.chdir(models)


class _Predictor:
    """A predictor as a plain class: its arguments are typed, required or not, as `Input(...)` says."""

    def __init__(self, predictor: Any) -> None:
        hints = typing.get_type_hints(predictor.predict, include_extras=True)
        given = inspect.signature(predictor.predict).parameters.values()
        self._predict = predictor.predict
        self._joins = typing.get_origin(hints.get("return")) is cog_names.ConcatenateIterator

        def predict(**arguments: Any) -> Any:
            return self._answer(arguments)

        arguments = [_argument(one, hints.get(one.name, Any)) for one in given]
        returns = _returned(hints.get("return", Any))
        # What a call looks like is read from here.
        predict.__signature__ = inspect.Signature(arguments)  # type: ignore[attr-defined]  # PEP 362
        predict.__annotations__ = {one.name: one.annotation for one in arguments} | {"return": returns}
        self.predict = predict

    def _answer(self, arguments: Mapping[str, Any]) -> Any:
        try:
            answer = self._predict(**arguments)
            if isinstance(answer, Iterator):
                parts = list(answer)
                answer = "".join(str(part) for part in parts) if self._joins else parts
            # Before the files are gone that it may lead to.
            return plain(answer)
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


def _returned(kind: Any) -> Any:
    """What a request gets: generators are collected, ConcatenateIterator is one text."""
    origin, items = typing.get_origin(kind), typing.get_args(kind)
    if origin is cog_names.ConcatenateIterator:
        return str
    if isinstance(origin, type) and issubclass(origin, Iterator) and items:
        return types.GenericAlias(list, items[:1])
    return kind


class LitModel:
    """A LitAPI: each request decoded, predicted, encoded, one after the other."""

    joinable = False

    def __init__(self, api: Any, schema: Schema | None) -> None:
        self.schema = schema or Schema(Style.CALL)
        self._api = api

    def call(self, calls: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """One answer a request; what the API raised stands for it."""
        return [self._one(call) for call in calls]

    def _one(self, request: Mapping[str, Any]) -> Any:
        try:
            return plain(self._api.encode_response(self._api.predict(self._api.decode_request(dict(request)))))
        except Exception as error:
            return error
