"""Dataclasses made by msgspec: an argument left out is left to the class, where `vars` and msgspec itself do not look.

So a dataclass that came in, and is given back or made a row of a table, would lack its defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec


def filler(kind: Any) -> Callable[[Any], None] | None:
    """What gives the dataclasses in a value of this type their defaults; None for a type without any."""
    seen: set[int] = set()

    def holds(info: Any) -> bool:
        if isinstance(info, msgspec.inspect.DataclassType):
            return True
        if not isinstance(info, msgspec.Struct) or id(info) in seen:
            return False
        seen.add(id(info))
        values = msgspec.structs.asdict(info).values()
        return any(any(map(holds, value)) if isinstance(value, tuple) else holds(value) for value in values)

    return fill if holds(msgspec.inspect.type_info(kind)) else None


def fill(value: Any) -> None:
    """Give each dataclass in a value its defaults as attributes of its own."""
    if isinstance(value, Mapping):
        _each(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        _each(value)
    elif isinstance(value, msgspec.Struct):
        _each(getattr(value, name) for name in value.__struct_fields__)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = getattr(value, "__dict__", {})  # with slots there are no others
        for field in dataclasses.fields(value):
            own.setdefault(field.name, getattr(value, field.name))
        _each(getattr(value, field.name) for field in dataclasses.fields(value))


def _each(values: Iterable[Any]) -> None:
    for value in values:
        fill(value)
