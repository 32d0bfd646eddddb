"""Python's types and values in JSON: what a type takes, how it is described, what a value becomes."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import msgspec

from corten.adapters.py_kinds import StandIn, known, made_of, plain_of
from corten.adapters.py_places import placed
from corten.errors import UsageError

# Name to type and default (UNSET: required) of what a call has.
Fields = dict[str, tuple[Any, Any]]


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
    if hasattr(value, "isoformat"):  # pandas' times
        return value.isoformat()
    return plain_of(value)


def made(kind: type, value: Any) -> Any:
    """A value of a type msgspec does not know, of what JSON has. Raises ValueError for what does not fit."""
    if isinstance(kind, StandIn):
        return kind.make(value)
    if hasattr(kind, "model_validate"):
        try:
            return kind.model_validate(value)
        except ValueError as error:
            raise _first_of(error) from error
    return made_of(kind, value)


def _first_of(error: ValueError) -> ValueError:
    """The first of pydantic's errors, its place after its text as msgspec has it, which adds the place of the whole."""
    errors = getattr(error, "errors", None)
    found = errors()[0] if callable(errors) else None
    if not found:
        return error
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in found.get("loc", ()))
    return ValueError(placed(found.get("msg", str(error)), place))


def _describe_foreign(kind: type) -> dict[str, Any]:
    if isinstance(kind, StandIn):
        return dict(kind.described)
    if hasattr(kind, "model_json_schema"):
        found = kind.model_json_schema()
        return found if isinstance(found, dict) else {}
    found = known(kind)
    return dict(found.described) if isinstance(found, StandIn) else {}


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
    default = default.value if isinstance(default, Enum) else default
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
