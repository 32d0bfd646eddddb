"""Load a Python class inside the image: its types, the check of each call against them, calls alone or in batches."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from corten.adapters.base import InputError
from corten.adapters.py_types import Fields, plain
from corten.adapters.py_verbs import Verb, hints
from corten.errors import UsageError

_PREDICT, _PREDICT_BATCH = "predict", "predict_batch"
_VERBS = (_PREDICT, "chat", "complete")  # the first that is there answers `/predict`


def make_instance(entry: str, models: Path, app: Path) -> Any:
    """Import `module:Class` from the app folder and make it ready: `__init__`, then `setup` if it has one.

    Either may take `models`, the folder of the model files. Raises what they raise.
    """
    instance = _called(make_class(entry, app), models)
    if callable(setup := getattr(instance, "setup", None)):
        ready = _called(setup, models)
        if inspect.iscoroutine(ready):
            model_loop().run_until_complete(ready)
    return instance


def make_class(entry: str, app: Path) -> Any:
    """Import `module:Class` from the app folder. Raises what the module raises."""
    module, _, name = entry.partition(":")
    if str(app) not in sys.path:
        sys.path.insert(0, str(app))
    return getattr(importlib.import_module(module), name)


def _called(function: Callable[..., Any], models: Path) -> Any:
    wants_models = "models" in inspect.signature(function).parameters
    return function(models=models) if wants_models else function()


class PyModel:
    """An instance with `predict(self, ...)`, or `predict_batch(self, calls)`, or both; or with `chat` or `complete`.

    With `predict` alone it is called once a request. With both, `predict` says what a request looks like and
    `predict_batch` answers: it gets a list of calls, each a dict of all of predict's arguments, or, where `calls` is
    annotated as a list of a dataclass, TypedDict or Struct, one of these; it gives a list of as many results.
    With `predict_batch` alone that annotation says what a request looks like. A class that can only chat is asked by
    `chat`'s own arguments.

    Any method may be `async`: then `loop` is the event loop all of them run on, many at a time. `verbs` are `predict`,
    `chat` and `complete`, as far as the class has them.
    """

    def __init__(self, instance: Any) -> None:
        self._batch: Callable[[list[Any]], Sequence[Any]] | None = getattr(instance, _PREDICT_BATCH, None)
        self.verbs: dict[str, Verb] = {
            name: Verb.of(getattr(instance, name)) for name in _VERBS if _declares(instance, name)
        }
        item = None
        if self._batch is not None:
            item, batch_returns = _batch_types(self._batch)
            if _PREDICT not in self.verbs:
                self.verbs[_PREDICT] = _of_item(instance, item, batch_returns)
        self.verb = next((self.verbs[name] for name in _VERBS if name in self.verbs), None) or _no_verb(instance)
        if item is not None and not _is_mapping_type(item) and set(_fields_of(item)) != set(self.verb.fields):
            raise UsageError(
                "adapter.contract",
                f"`{item.__name__}` has other fields than `{_PREDICT}` has arguments",
                why=f"{', '.join(_fields_of(item))} against {', '.join(self.verb.fields)}",
            )
        self._item = item
        # Vectors of texts, for whoever asks as they would ask OpenAI. A method, and not a layer that is called so.
        self.embed: Callable[[list[str]], Any] | None = instance.embed if _declares(instance, "embed") else None
        self.loop = _loop_of(instance, self.verbs, (self._batch, self.embed))
        self.joinable = self._batch is not None
        self.schema = self.verb.schema()

    def call(self, calls: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """Check each call, answer those that fit; an InputError, or what the model raised, stands for the others."""
        results: list[Any] = [self.verb.checked(call) for call in calls]
        fitting = [index for index, given in enumerate(results) if not isinstance(given, Exception)]
        if self._batch is not None and fitting:
            answers = self._batch([self._as_item(results[index]) for index in fitting])
            _check_amount(answers, len(fitting))
            for index, answer in zip(fitting, answers, strict=True):
                results[index] = answer if isinstance(answer, Exception) else plain(answer)
        else:
            for index in fitting:
                results[index] = self._answered(results[index])
        return results

    async def acall(self, calls: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """The same for a model with a `loop`, on that loop."""
        checked = [self.verb.checked(call) for call in calls]
        return await asyncio.gather(*(self._aanswered(given) for given in checked))

    def _answered(self, arguments: Mapping[str, Any]) -> Any:
        try:
            if self.loop is not None:
                return self.loop.run_until_complete(self.verb.avalue(arguments))
            return self.verb.value(arguments)
        except Exception as error:
            return error

    async def _aanswered(self, given: dict[str, Any] | InputError) -> Any:
        if isinstance(given, InputError):
            return given
        try:
            return await self.verb.avalue(given)
        except Exception as error:
            return error

    def _as_item(self, arguments: dict[str, Any]) -> Any:
        if self._item is None or _is_mapping_type(self._item):
            return arguments
        return self._item(**arguments)


def _declares(instance: Any, name: str) -> bool:
    """Whether the class, and not a layer it holds, has a method of that name."""
    return callable(getattr(type(instance), name, None)) or (
        name == _PREDICT and callable(getattr(instance, name, None))
    )


def _no_verb(instance: Any) -> Verb:
    raise UsageError(
        "adapter.contract",
        f"`{type(instance).__name__}` has no method `{_PREDICT}`",
        hint="write `def predict(self, ...)`",
    )


def _of_item(instance: Any, item: Any, returns: Any) -> Verb:
    if item is None:
        raise UsageError(
            "adapter.contract",
            f"`{type(instance).__name__}.{_PREDICT_BATCH}` does not say what its calls are",
            hint=f"annotate it: `def {_PREDICT_BATCH}(self, calls: list[Call])` with a dataclass Call",
        )
    return Verb(None, _fields_of(item), returns)


def _loop_of(
    instance: Any, verbs: Mapping[str, Verb], others: Sequence[Callable[..., Any] | None]
) -> asyncio.AbstractEventLoop | None:
    """The loop of a model with async methods, None for one without. Raises UsageError for batches beside them."""
    batch, embed = others
    if not any(verb.gives.is_async for verb in verbs.values()) and not inspect.iscoroutinefunction(embed):
        if inspect.iscoroutinefunction(batch):
            raise _mixed(instance)
        return None
    if batch is not None:
        raise _mixed(instance)
    return model_loop()


def _mixed(instance: Any) -> UsageError:
    return UsageError(
        "adapter.contract",
        f"`{type(instance).__name__}` has `{_PREDICT_BATCH}` and `async` methods",
        why="a model is asked either with many calls at once, or with many calls side by side",
        hint=f"write all of them without `async`, or leave `{_PREDICT_BATCH}` out",
    )


_loop: asyncio.AbstractEventLoop | None = None


def model_loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process's model, which is made and run in the model's own thread."""
    global _loop  # noqa: PLW0603 - one model a process
    if _loop is None or _loop.is_closed():
        _loop = asyncio.new_event_loop()
    return _loop


def _check_amount(answers: object, expected: int) -> None:
    if not isinstance(answers, Sequence) or len(answers) != expected:
        given = f"{len(answers)} results" if isinstance(answers, Sequence) else f"a {type(answers).__name__}"
        raise TypeError(f"predict_batch gave {given} for {expected} calls; one result a call is expected")


def _batch_types(function: Callable[..., Any]) -> tuple[Any, Any]:
    """What `list[X]` in and `list[Y]` out hold; (None, Any) where that is not said."""
    known = hints(function)
    names = list(inspect.signature(function).parameters)
    given = typing.get_args(known.get(names[0])) if names else ()
    returned = typing.get_args(known.get("return"))
    item = given[0] if given and isinstance(given[0], type) and not _is_plain_dict(given[0]) else None
    return item, returned[0] if returned else Any


def _is_plain_dict(kind: type) -> bool:
    return kind is dict or kind is Mapping


def _is_mapping_type(kind: Any) -> bool:
    return typing.is_typeddict(kind) or isinstance(kind, types.GenericAlias)


def _fields_of(kind: Any) -> Fields:
    info = msgspec.inspect.type_info(kind)
    if not isinstance(info, (msgspec.inspect.DataclassType, msgspec.inspect.StructType, msgspec.inspect.TypedDictType)):
        raise UsageError(
            "adapter.contract",
            f"`{kind.__name__}` cannot describe a call",
            why="expected a dataclass, TypedDict or msgspec.Struct",
        )
    kinds = typing.get_type_hints(kind, include_extras=True)
    return {field.name: (kinds[field.name], _default_of(field)) for field in info.fields}


def _default_of(field: msgspec.inspect.Field) -> Any:
    if field.required:
        return msgspec.UNSET
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None if field.default is msgspec.NODEFAULT else field.default
