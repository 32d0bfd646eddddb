"""A method that answers requests: its arguments by their types, and what it gives, whole or piece by piece."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import re
import typing
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import aclosing, closing
from enum import Enum
from typing import Any

import msgspec

from corten.adapters.base import InputError
from corten.adapters.py_defaults import filler
from corten.adapters.py_kinds import described_result, known
from corten.adapters.py_places import choices, input_error, with_keys
from corten.adapters.py_types import Fields, call_type, described, json_schema, made, plain
from corten.core.schema import Parameter, Schema, Stream, Style

_MOST_CHOICES = 20  # of an enum, that a refusal names
_ITERATORS = (collections.abc.Iterator, collections.abc.Generator)
_ASYNC_ITERATORS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncGenerator,
)


class Gives(Enum):
    """What calling a method gives."""

    VALUE = "value"
    AWAITABLE = "awaitable"
    ITERATOR = "iterator"
    ASYNC_ITERATOR = "async iterator"

    @property
    def streams(self) -> bool:
        """Whether the answer comes piece by piece."""
        return self in {Gives.ITERATOR, Gives.ASYNC_ITERATOR}

    @property
    def is_async(self) -> bool:
        """Whether it needs an event loop."""
        return self in {Gives.AWAITABLE, Gives.ASYNC_ITERATOR}


class Verb:
    """A method of a model, or (`function` None) only what its calls look like.

    `whole` makes the answer of all pieces, where it is asked for at once; pieces and answers are JSON values.
    """

    def __init__(
        self, function: Callable[..., Any] | None, fields: Fields, returns: Any, *, is_open: bool = False
    ) -> None:
        self.gives = gives(function, returns) if function is not None else Gives.VALUE
        # What an iterator yields, where that is said.
        self._returns = described_result((typing.get_args(returns) or (Any,))[0] if self.gives.streams else returns)
        fields = {name: (known(kind), default) for name, (kind, default) in fields.items()}
        self.is_open = is_open  # takes arguments it does not name
        self.fields = fields
        self.joins = getattr(typing.get_origin(returns), "joins_pieces", False)
        self._function: Any = function
        self._defaults = {name: default for name, (_, default) in fields.items() if default is not msgspec.UNSET}
        self._call_type = call_type(fields)
        self._fill = filler(self._call_type)

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Verb:
        """The verb of a method, told from its signature."""
        given = inspect.signature(function).parameters.values()
        kinds = hints(function)
        fields: Fields = {
            one.name: (
                kinds.get(one.name, Any),
                msgspec.UNSET if one.default is inspect.Parameter.empty else one.default,
            )
            for one in given
            if one.kind is not inspect.Parameter.VAR_KEYWORD
        }
        is_open = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in given)
        return cls(function, fields, kinds.get("return", Any), is_open=is_open)

    def schema(self) -> Schema:
        """What goes in and out, as a schema of calls."""
        parameters = tuple(
            Parameter(name, described(kind, default), required=default is msgspec.UNSET)
            for name, (kind, default) in self.fields.items()
        )
        stream = (Stream.TEXT if self.joins else Stream.LIST) if self.gives.streams else None
        return Schema(Style.CALL, parameters=parameters, returns=json_schema(self._returns), stream=stream)

    def checked(self, call: Mapping[str, Any]) -> dict[str, Any] | InputError:
        """The arguments in their types, left-out ones by their defaults."""
        more: dict[str, Any] = {}
        if self.is_open:
            more = {name: value for name, value in call.items() if name not in self.fields}
            call = {name: value for name, value in call.items() if name in self.fields}
        try:
            given = msgspec.convert(call, self._call_type, dec_hook=made)
        except msgspec.ValidationError as error:
            return self._refusal(error, call)
        if self._fill is not None:
            self._fill(given)
        arguments = {name: getattr(given, name) for name in self._call_type.__struct_fields__}
        whole = {name: self._defaults[name] if value is msgspec.UNSET else value for name, value in arguments.items()}
        return whole | more

    def _refusal(self, error: msgspec.ValidationError, call: Mapping[str, Any]) -> InputError:
        refusal = input_error(error)
        if refusal.message.startswith("Invalid enum value ") and (known := self._choices(refusal.path)):
            seen = refusal.message.removeprefix("Invalid enum value ")
            refusal = InputError(f"expected one of {known}, got {seen}", path=refusal.path)
        if "[...]" in refusal.path:
            return InputError(refusal.message, path=with_keys(refusal.path, call, self._wrong))
        if refusal.path or "field" not in refusal.message:
            return refusal
        # A missing or misspelt argument: say which there are.
        names = ", ".join(f"`{name}`" for name in self._call_type.__struct_fields__)
        return InputError(f"{refusal.message}; it takes {names}")

    def _choices(self, path: str) -> str:
        name, rest = re.match(r"([^.\[]*)\.?(.*)", path, re.DOTALL).groups()  # type: ignore[union-attr]  # matches anything
        values = choices(json_schema(self.fields[name][0]), rest) if name in self.fields else ()
        shown = ", ".join(repr(value) for value in values[:_MOST_CHOICES])
        return shown + (", ..." if len(values) > _MOST_CHOICES else "")

    def _wrong(self, call: Mapping[str, Any]) -> str:
        try:
            msgspec.convert(call, self._call_type, dec_hook=made)
        except msgspec.ValidationError as error:
            return str(error)
        return ""

    def value(self, arguments: Mapping[str, Any]) -> Any:
        """The whole answer. Raises what the method raises; not for async ones."""
        if self.gives.streams:
            with closing(self.pieces(arguments)) as pieces:
                return self.whole(list(pieces))
        return plain(self._function(**arguments))

    def pieces(self, arguments: Mapping[str, Any]) -> Generator[Any, None, None]:
        """The answer piece by piece; closing it closes the method's own generator. Not for async ones."""
        found = self._function(**arguments)
        if not self.gives.streams:
            yield plain(found)
            return
        try:
            for piece in found:
                yield plain(piece)
        finally:
            if (close := getattr(found, "close", None)) is not None:
                close()

    async def avalue(self, arguments: Mapping[str, Any]) -> Any:
        """The whole answer of any method, awaited where it is async."""
        if self.gives.streams:
            async with aclosing(self.apieces(arguments)) as pieces:
                return self.whole([piece async for piece in pieces])
        found = self._function(**arguments)
        return plain(await found if inspect.isawaitable(found) else found)

    async def apieces(self, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """The answer of any method piece by piece."""
        if self.gives is not Gives.ASYNC_ITERATOR:
            if self.gives is Gives.ITERATOR:
                with closing(self.pieces(arguments)) as pieces:
                    for piece in pieces:
                        yield piece
                        await asyncio.sleep(0)  # others of this loop get a turn between pieces
            else:
                yield await self.avalue(arguments)
            return
        found = self._function(**arguments)
        if inspect.isawaitable(found):
            found = await found
        try:
            async for piece in found:
                yield plain(piece)
        finally:
            if (close := getattr(found, "aclose", None)) is not None:
                await close()

    def whole(self, pieces: list[Any]) -> Any:
        """The answer all pieces make: a list, or one text where the method says so."""
        return "".join(str(piece) for piece in pieces) if self.joins else pieces


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations as types; none where they cannot be known, so that all is let through."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError:
        # They need an import under TYPE_CHECKING.
        return {}


def gives(function: Callable[..., Any], returns: Any) -> Gives:
    """What a method gives, told from how it is written and from the type it says."""
    origin = typing.get_origin(returns) or returns
    # Whoever wraps a generator function gives an iterator too, and says so.
    if inspect.isasyncgenfunction(function) or origin in _ASYNC_ITERATORS:
        return Gives.ASYNC_ITERATOR
    if inspect.iscoroutinefunction(function):
        return Gives.AWAITABLE
    if inspect.isgeneratorfunction(function) or origin in _ITERATORS or hasattr(origin, "joins_pieces"):
        return Gives.ITERATOR
    return Gives.VALUE
