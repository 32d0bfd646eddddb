"""Read a Universal Binary JSON file (ubjson.org, draft 12) as XGBoost writes it; long arrays are stepped over.

XGBoost writes objects without counts, strings and keys with a 64-bit length, numbers big-endian, and arrays of numbers
strongly typed (`[$d#L...`). All of the format but the high-precision number is understood.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, NoReturn

# Trees are arrays of one number a node: of no interest, and most of the file.
_KEPT_ITEMS = 4096
_MAX_DEPTH = 64
_MAX_TEXT_BYTES = 1 << 20
_NUMBERS = {
    ord("i"): ">b", ord("U"): ">B", ord("I"): ">h", ord("l"): ">i", ord("L"): ">q", ord("d"): ">f", ord("D"): ">d",
}  # fmt: skip
_SIZES = {code: struct.calcsize(form) for code, form in _NUMBERS.items()}
_WHOLE = frozenset(b"iUIlL")
_CONSTANTS = {ord("Z"): None, ord("T"): True, ord("F"): False}


class BrokenError(Exception):
    """The bytes are no UBJSON; `offset` is where that shows."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"byte {offset}: {why}")


@dataclass(frozen=True, slots=True)
class Skipped:
    """An array of numbers too long to be of interest."""

    items: int


def read(data: Any, *, most_values: int = 50_000_000) -> Any:
    """The value at the start of a buffer (bytes or a memory map); raises BrokenError."""
    return _Reader(data, most_values).value(0)


class _Reader:
    def __init__(self, data: Any, most_values: int) -> None:
        self._data = data
        self._end = len(data)
        self._at = 0
        self._left = most_values

    def value(self, depth: int) -> Any:
        return self._typed(self._byte(), depth)

    def _typed(self, code: int, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            self._fail("more values than any model has")
        if depth > _MAX_DEPTH:
            self._fail("values are nested too deep")
        if code in _NUMBERS:
            return self._number(code)
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        match chr(code):
            case "S":
                return self._text()
            case "C":
                return chr(self._byte())
            case "[":
                return self._array(depth + 1)
            case "{":
                return self._object(depth + 1)
            case _:
                return self._fail(f"0x{code:02x} begins no value")

    def _array(self, depth: int) -> Any:
        kind, count = self._head()
        if count is None:
            items = []
            while (code := self._byte()) != ord("]"):
                items.append(self._typed(code, depth))
            return items
        if kind in _SIZES and count > _KEPT_ITEMS:
            self._skip(count * _SIZES[kind])
            return Skipped(count)
        return [self.value(depth) if kind is None else self._typed(kind, depth) for _ in range(count)]

    def _object(self, depth: int) -> dict[str, Any]:
        kind, count = self._head()
        found: dict[str, Any] = {}
        while count is None or len(found) < count:
            if count is None and self._peek() == ord("}"):
                self._at += 1
                break
            key = self._text()
            if key in found:
                self._fail(f"key `{key[:40]}` comes twice")
            found[key] = self.value(depth) if kind is None else self._typed(kind, depth)
        return found

    def _head(self) -> tuple[int | None, int | None]:
        """The type and the count of a container, as far as it tells them first."""
        kind = count = None
        if self._peek() == ord("$"):
            self._at += 1
            kind = self._byte()
        if self._peek() == ord("#"):
            self._at += 1
            count = self._length()
            # An item takes a byte at least, but for constants, which no model repeats.
            if count > self._end - self._at:
                self._fail(f"{count} items announced where {self._end - self._at} bytes are left")
        elif kind is not None:
            self._fail("a type without a count")
        return kind, count

    def _text(self) -> str:
        length = self._length()
        if length > _MAX_TEXT_BYTES:
            self._skip(length)
            return ""
        try:
            return bytes(self._take(length)).decode()
        except UnicodeDecodeError:
            self._fail("text is not UTF-8")

    def _length(self) -> int:
        code = self._byte()
        if code not in _WHOLE:
            self._fail("a length is no whole number")
        length = int(self._number(code))
        if length < 0:
            self._fail("a length is negative")
        return length

    def _number(self, code: int) -> int | float:
        number: int | float = struct.unpack(_NUMBERS[code], self._take(_SIZES[code]))[0]
        return number

    def _byte(self) -> int:
        return int(self._take(1)[0])

    def _peek(self) -> int:
        if self._at >= self._end:
            self._fail("the file ends within a value")
        return int(self._data[self._at])

    def _take(self, size_bytes: int) -> Any:
        start = self._at
        self._skip(size_bytes)
        return self._data[start : self._at]

    def _skip(self, size_bytes: int) -> None:
        if size_bytes > self._end - self._at:
            self._fail(f"{size_bytes} bytes are needed where {self._end - self._at} are left")
        self._at += size_bytes

    def _fail(self, why: str) -> NoReturn:
        raise BrokenError(self._at, why)
