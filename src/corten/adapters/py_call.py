"""Load a Python class inside the image: its types, the check of each call against them, calls alone or in batches."""

from __future__ import annotations

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
from corten.core.schema import Parameter, Schema, Style
from corten.errors import UsageError

_PREDICT, _PREDICT_BATCH = "predict", "predict_batch"


def make_instance(entry: str, models: Path, app: Path) -> Any:
    """Import `module:Class` from the app folder and make it ready: `__init__`, then `setup` if it has one.

    Either may take `models`, the folder of the model files. Raises what they raise.
    """
    instance = _called(make_class(entry, app), models)
    if callable(setup := getattr(instance, "setup", None)):
        _called(setup, models)
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
    """An instance with `predict(self, ...)`, or `predict_batch(self, calls)`, or both.

    With `predict` alone it is called once a request. With both, `predict` says what a request looks like and
    `predict_batch` answers: it gets a list of calls, each a dict of all of predict's arguments, or, where `calls` is
    annotated as a list of a dataclass, TypedDict or Struct, one of these; it gives a list of as many results.
    With `predict_batch` alone that annotation says what a request looks like.
    """

    def __init__(self, instance: Any) -> None:
        predict = getattr(instance, _PREDICT, None)
        self._batch: Callable[[list[Any]], Sequence[Any]] | None = getattr(instance, _PREDICT_BATCH, None)
        if predict is None and self._batch is None:
            raise UsageError(
                "adapter.contract",
                f"`{type(instance).__name__}` has no method `{_PREDICT}`",
                hint="write `def predict(self, ...)`",
            )
        self.joinable = self._batch is not None
        # Vectors of texts, for whoever asks as they would ask OpenAI. A method, and not a layer that is called so.
        declared = callable(getattr(type(instance), "embed", None))
        self.embed: Callable[[list[str]], Sequence[Any]] | None = instance.embed if declared else None
        self._predict: Any = predict
        item, batch_returns = _batch_types(self._batch) if self._batch is not None else (None, Any)
        if predict is not None:
            fields, returns = _parameters_of(predict), _hints(predict).get("return", Any)
        elif item is not None:
            fields, returns = _fields_of(item), batch_returns
        else:
            raise UsageError(
                "adapter.contract",
                f"`{type(instance).__name__}.{_PREDICT_BATCH}` does not say what its calls are",
                hint=f"annotate it: `def {_PREDICT_BATCH}(self, calls: list[Call])` with a dataclass Call",
            )
        if item is not None and not _is_mapping_type(item) and set(_fields_of(item)) != set(fields):
            raise UsageError(
                "adapter.contract",
                f"`{item.__name__}` has other fields than `{_PREDICT}` has arguments",
                why=f"{', '.join(_fields_of(item))} against {', '.join(fields)}",
            )
        self._item = item
        self._defaults = {name: default for name, (_, default) in fields.items() if default is not msgspec.UNSET}
        self._call_type = _call_type(fields)
        self.schema = Schema(
            Style.CALL,
            parameters=tuple(
                Parameter(name, _described(kind, default), required=default is msgspec.UNSET)
                for name, (kind, default) in fields.items()
            ),
            returns=json_schema(returns),
        )

    def call(self, calls: Sequence[Mapping[str, Any]]) -> Sequence[Any]:
        """Check each call, answer those that fit; an InputError, or what the model raised, stands for the others."""
        results: list[Any] = [self._checked(call) for call in calls]
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

    def _answered(self, arguments: Mapping[str, Any]) -> Any:
        try:
            return plain(self._predict(**arguments))
        except Exception as error:
            return error

    def _checked(self, call: Mapping[str, Any]) -> dict[str, Any] | InputError:
        """The arguments in their types, left-out ones by their defaults."""
        try:
            given = msgspec.convert(call, self._call_type, dec_hook=_decode)
        except msgspec.ValidationError as error:
            return self._refusal(error)
        arguments = {name: getattr(given, name) for name in self._call_type.__struct_fields__}
        return {name: self._defaults[name] if value is msgspec.UNSET else value for name, value in arguments.items()}

    def _refusal(self, error: msgspec.ValidationError) -> InputError:
        refusal = input_error(error)
        if refusal.path or "field" not in refusal.message:
            return refusal
        # A missing or misspelt argument: say which there are.
        known = ", ".join(f"`{name}`" for name in self._call_type.__struct_fields__)
        return InputError(f"{refusal.message}; it takes {known}")

    def _as_item(self, arguments: dict[str, Any]) -> Any:
        if self._item is None or _is_mapping_type(self._item):
            return arguments
        return self._item(**arguments)


def _check_amount(answers: object, expected: int) -> None:
    if not isinstance(answers, Sequence) or len(answers) != expected:
        given = f"{len(answers)} results" if isinstance(answers, Sequence) else f"a {type(answers).__name__}"
        raise TypeError(f"predict_batch gave {given} for {expected} calls; one result a call is expected")


def input_error(error: msgspec.ValidationError) -> InputError:
    """Turn msgspec's message (``Expected `int`, got `str` - at `$.top` ``) into message and JSON path."""
    message, _, place = str(error).partition(" - at `")
    path = place.rstrip("`").removeprefix("$").removeprefix(".")
    return InputError(message.replace("Object ", "the request "), path=path)


def plain(value: Any) -> Any:
    """A result as JSON values: dataclasses, Structs and pydantic models become dicts, arrays lists."""
    return msgspec.to_builtins(value, enc_hook=_encode, str_keys=True)


def _encode(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy's arrays and scalars, torch's tensors
        return value.tolist()
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"`{type(value).__name__}` has no form in JSON")


def _decode(kind: type, value: Any) -> Any:
    """Types msgspec does not know: pydantic's models and numpy's arrays."""
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)  # raises a ValueError, which msgspec turns into its own with the path
    if kind.__module__.partition(".")[0] == "numpy" and kind.__name__ == "ndarray":
        import numpy as np

        return np.asarray(value)
    raise TypeError(f"`{kind.__name__}` cannot be made from JSON")


def _describe_foreign(kind: type) -> dict[str, Any]:
    if hasattr(kind, "model_json_schema"):
        found = kind.model_json_schema()
        return found if isinstance(found, dict) else {}
    return {"type": "array"} if kind.__name__ == "ndarray" else {}


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a type, complete in itself (no references), so that it can be put anywhere."""
    if kind is Any or kind is inspect.Parameter.empty:
        return {}
    try:
        schema = msgspec.json.schema(kind, schema_hook=_describe_foreign)
    except TypeError:
        return {}
    definitions = schema.pop("$defs", {})
    inlined = _inlined(schema, definitions, ())
    return inlined if isinstance(inlined, dict) else {}


def _inlined(node: Any, definitions: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, definitions, within) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        name = reference.rpartition("/")[2]
        if name in within or name not in definitions:
            return {"title": name}  # a type that holds itself: its inner occurrence is left open
        rest = {key: value for key, value in node.items() if key != "$ref"}
        return {**_inlined(definitions[name], definitions, (*within, name)), **rest}
    return {key: _inlined(value, definitions, within) for key, value in node.items()}


def _described(kind: Any, default: Any) -> dict[str, Any]:
    schema = json_schema(kind)
    if default is not msgspec.UNSET and isinstance(default, (str, int, float, bool, type(None))):
        return {**schema, "default": default}
    return schema


_Fields = dict[str, tuple[Any, Any]]


def _call_type(fields: _Fields) -> type[msgspec.Struct]:
    """A Struct that takes exactly these arguments; those with defaults may be left out."""
    members: list[Any] = [
        (name, kind) if default is msgspec.UNSET else (name, typing.Union[kind, msgspec.UnsetType], msgspec.UNSET)  # noqa: UP007  # `|` fails for some
        for name, (kind, default) in fields.items()
    ]
    call = msgspec.defstruct("Call", members, kw_only=True, forbid_unknown_fields=True)
    try:
        msgspec.convert({}, call, dec_hook=_decode)
    except msgspec.ValidationError:
        pass  # a required argument is missing: the types themselves are understood
    except (TypeError, NameError) as error:
        raise UsageError(
            "adapter.contract",
            "the types of `predict` cannot be checked",
            why=str(error),
            hint="use builtin types, dataclasses, TypedDict or msgspec.Struct, or leave the annotation out",
        ) from error
    return call


def _parameters_of(function: Callable[..., Any]) -> _Fields:
    hints = _hints(function)
    return {
        name: (
            hints.get(name, Any),
            msgspec.UNSET if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for name, parameter in inspect.signature(function).parameters.items()
    }


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:
        # Annotations that need an import under TYPE_CHECKING: what they mean cannot be known, so all is let through.
        return {}


def _batch_types(function: Callable[..., Any]) -> tuple[Any, Any]:
    """What `list[X]` in and `list[Y]` out hold; (None, Any) where that is not said."""
    hints = _hints(function)
    names = list(inspect.signature(function).parameters)
    given = typing.get_args(hints.get(names[0])) if names else ()
    returned = typing.get_args(hints.get("return"))
    item = given[0] if given and isinstance(given[0], type) and not _is_plain_dict(given[0]) else None
    return item, returned[0] if returned else Any


def _is_plain_dict(kind: type) -> bool:
    return kind is dict or kind is Mapping


def _is_mapping_type(kind: Any) -> bool:
    return typing.is_typeddict(kind) or isinstance(kind, types.GenericAlias)


def _fields_of(kind: Any) -> _Fields:
    info = msgspec.inspect.type_info(kind)
    if not isinstance(info, (msgspec.inspect.DataclassType, msgspec.inspect.StructType, msgspec.inspect.TypedDictType)):
        raise UsageError(
            "adapter.contract",
            f"`{kind.__name__}` cannot describe a call",
            why="expected a dataclass, TypedDict or msgspec.Struct",
        )
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: (hints[field.name], _default_of(field)) for field in info.fields}


def _default_of(field: msgspec.inspect.Field) -> Any:
    if field.required:
        return msgspec.UNSET
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return None if field.default is msgspec.NODEFAULT else field.default
