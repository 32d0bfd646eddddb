"""Where in a request something is wrong: what msgspec says of it as message and JSON path.

msgspec says ``Expected `int`, got `str` - at `$.top[0]` ``, with `[...]` for a key of an object, whichever it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from corten.adapters.base import InputError
from corten.adapters.wording import in_words

_AT = " - at `"
_FIELD = re.compile(r"Object (missing required|contains unknown) field `([^`]*)`")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]|(\[\.\.\.\])")
_SOME_KEY = "[...]"
_LONGEST_KEY = 100


def placed(message: str, place: str) -> str:
    """A message with its place within a value (`[0].x`, or nothing); msgspec adds the place of the value itself."""
    return f"{message}{_AT}${place}`" if place else message


def input_error(error: msgspec.ValidationError) -> InputError:
    """The message and the path of what msgspec says."""
    message, *places = str(error).split(_AT)
    # The outer place comes last.
    path = "".join(place.rstrip("`").removeprefix("$") for place in reversed(places)).removeprefix(".")
    if path and (field := _FIELD.fullmatch(message)) is not None:
        return InputError(f"{field[1].removeprefix('contains ')} field `{field[2]}`", path=f"{path}.{field[2]}")
    return InputError(in_words(message).replace("Object ", "the request "), path=path)


def choices(schema: Mapping[str, Any], path: str) -> Sequence[Any]:
    """The values that may stand at a place of a value with this JSON Schema, where they are numbered."""
    found = _branches(schema)
    for step in _STEP.finditer(f".{path}" if path and path[0] != "[" else path):
        found = [branch for one in found for below in _below(one, step[1]) for branch in _branches(below)]
    return [value for one in found for value in one.get("enum", ())]


def _branches(schema: Any) -> list[Mapping[str, Any]]:
    if not isinstance(schema, dict):
        return []
    return [
        branch for one in schema.get("anyOf", [schema]) for branch in (_branches(one) if one is not schema else [one])
    ]


def _below(schema: Mapping[str, Any], name: str | None) -> list[Any]:
    if name is None:  # an element, or the value of some key
        return [*schema.get("prefixItems", ()), schema.get("items"), schema.get("additionalProperties")]
    return [schema.get("properties", {}).get(name, schema.get("additionalProperties"))]


def with_keys(path: str, call: Mapping[str, Any], refusal: Callable[[Mapping[str, Any]], str]) -> str:
    """The path with keys in the place of `[...]`, as far as they are found.

    `refusal` says what is wrong with a call, as it did of the whole one: of an object, the half that has the key is
    refused alike.
    """
    wrong = refusal(call)
    found = ""
    holder: Any = call
    rest = f".{path}"
    while rest and (step := _STEP.match(rest)) is not None:
        rest = rest[step.end() :]
        name, index, some_key = step.groups()
        if some_key and isinstance(holder, dict):
            key = _key_of(holder, lambda: refusal(call) == wrong)
            if key is None:
                return f"{found}{some_key}{rest}".removeprefix(".")
            found += f".{key[:_LONGEST_KEY]}"
            holder = holder[key]
            continue
        found += step[0]
        try:
            holder = holder[int(index) if index else name]
        except (KeyError, IndexError, TypeError):
            break
    return (found + rest).removeprefix(".")


def _key_of(holder: dict[str, Any], is_refused: Callable[[], bool]) -> str | None:
    """The key that makes the call be refused; None when it is no single one. The object is put back as it was."""
    whole = dict(holder)
    keys = list(whole)

    def alone(some: list[str]) -> bool:
        holder.clear()
        holder.update({key: whole[key] for key in some})
        return is_refused()

    try:
        while len(keys) > 1:
            half = keys[: len(keys) // 2]
            keys = half if alone(half) else keys[len(half) :]
        return keys[0] if keys and alone(keys) else None
    finally:
        holder.clear()
        holder.update(whole)
