"""The members of a JSON object in a large file, each found without building what it holds.

Only brackets and strings are looked at (RFC 8259), by a regular expression over a memory map, so that hundreds of
megabytes of trees are stepped over at the speed of a search; what is of interest is then parsed by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRUCTURE = re.compile(rb'["{}\[\]]')
_SCALAR = re.compile(rb"[^,}\]\s]+")
_CLOSES = {b"{": b"}", b"[": b"]"}
_MAX_DEPTH = 500
_MAX_PARSED_BYTES = 64 << 20


class BrokenError(Exception):
    """The bytes are no JSON; says where that shows."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"byte {offset}: {why}")


@dataclass(frozen=True, slots=True)
class Span:
    """A value's place in the buffer."""

    data: Any
    start: int
    end: int

    def members(self) -> dict[str, Span]:
        """The members of an object, by key; raises BrokenError, also for other values."""
        found = {}
        for key, value in _members(self.data, self.start):
            if key in found:
                _fail(value.start, f"key `{key[:40]}` comes twice")
            found[key] = value
        return found

    def value(self) -> Any:
        """The value itself, for small ones."""
        if self.end - self.start > _MAX_PARSED_BYTES:
            _fail(self.start, f"a value of {self.end - self.start} bytes where a short one belongs")
        try:
            return json.loads(bytes(self.data[self.start : self.end]))
        except (ValueError, RecursionError) as error:
            raise BrokenError(self.start, str(error)) from None


def whole(data: Any) -> Span:
    """The buffer's one value. Raises BrokenError when it does not end, or something follows it."""
    start = _after_space(data, 0)
    end = _end(data, start)
    if _after_space(data, end) != len(data):
        _fail(end, "something follows the value")
    return Span(data, start, end)


def _members(data: Any, start: int) -> Iterator[tuple[str, Span]]:
    if data[start : start + 1] != b"{":
        _fail(start, "not an object")
    at = _after_space(data, start + 1)
    if data[at : at + 1] == b"}":
        return
    while True:
        name = _STRING.match(data, at)
        if not name:
            _fail(at, "a key is expected")
        at = _after_space(data, name.end())
        if data[at : at + 1] != b":":
            _fail(at, "`:` is expected")
        at = _after_space(data, at + 1)
        end = _end(data, at)
        yield str(Span(data, name.start(), name.end()).value()), Span(data, at, end)
        at = _after_space(data, end)
        if data[at : at + 1] == b"}":
            return
        if data[at : at + 1] != b",":
            _fail(at, "`,` or `}` is expected")
        at = _after_space(data, at + 1)


def _end(data: Any, start: int) -> int:
    """Where the value that starts here ends."""
    if data[start : start + 1] == b'"':
        return _string_end(data, start)
    if data[start : start + 1] not in _CLOSES:
        scalar = _SCALAR.match(data, start)
        return scalar.end() if scalar else _fail(start, "a value is expected")
    open_: list[bytes] = []
    at = start
    while found := _STRUCTURE.search(data, at):
        mark, at = found[0], found.end()
        if mark == b'"':
            at = _string_end(data, found.start())
        elif mark in _CLOSES:
            open_.append(_CLOSES[mark])
            if len(open_) > _MAX_DEPTH:
                _fail(at, "values are nested too deep")
        elif open_.pop() != mark:
            _fail(at - 1, "brackets do not match")
        elif not open_:
            return at
    return _fail(len(data), "the file ends within a value")


def _string_end(data: Any, start: int) -> int:
    found = _STRING.match(data, start)
    return found.end() if found else _fail(start, "the file ends within a string")


def _after_space(data: Any, at: int) -> int:
    found = _SPACE.match(data, at)
    return found.end() if found else at


def _fail(offset: int, why: str) -> NoReturn:
    raise BrokenError(offset, why)
