"""Python's types and values in JSON: what a type takes, how it is described, what a value becomes."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from corten.adapters.base import InputError
from corten.errors import UsageError

# Name to type and default (UNSET: required) of what a call has.
Fields = dict[str, tuple[Any, Any]]


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


def made(kind: type, value: Any) -> Any:
    """A value of a type msgspec does not know, of what JSON has. Raises ValueError for what does not fit."""
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


def described(kind: Any, default: Any) -> dict[str, Any]:
    """The JSON Schema of an argument with its default."""
    schema = json_schema(kind)
    if default is not msgspec.UNSET and isinstance(default, (str, int, float, bool, type(None))):
        return {**schema, "default": default}
    return schema


def call_type(fields: Fields) -> type[msgspec.Struct]:
    """A Struct that takes exactly these arguments; those with defaults may be left out."""
    members: list[Any] = [
        (name, kind) if default is msgspec.UNSET else (name, typing.Union[kind, msgspec.UnsetType], msgspec.UNSET)  # noqa: UP007  # `|` fails for some
        for name, (kind, default) in fields.items()
    ]
    call = msgspec.defstruct("Call", members, kw_only=True, forbid_unknown_fields=True)
    try:
        msgspec.convert({}, call, dec_hook=made)
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
