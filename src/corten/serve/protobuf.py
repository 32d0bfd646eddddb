"""Protocol Buffers' wire format (https://protobuf.dev/programming-guides/encoding/), as much as a few messages need.

Written by hand and not by a compiler: the messages here are few and hold tensors, whose bytes are then not copied, and
the image needs neither generated code nor a runtime for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from corten.serve.job import malformed

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
Value = int | memoryview
_MOST_VARINT_BYTES = 10


def fields(message: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Number, wire type and value of each field, in order: an integer, or the bytes. Raises RequestError."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == LENGTH:
            size, at = _varint(message, at)
        elif kind in {FIXED64, FIXED32}:
            size = 8 if kind == FIXED64 else 4
        else:
            raise malformed(f"not a protobuf message: wire type {kind}")
        if number == 0 or size > end - at:
            raise malformed("not a protobuf message: a field is cut off")
        yield number, kind, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[at : at + _MOST_VARINT_BYTES]:
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise malformed("not a protobuf message: a number is cut off")


def varints(packed: memoryview) -> list[int]:
    """The numbers of a packed repeated field, without their signs. Raises RequestError."""
    found: list[int] = []
    value = shift = 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            found.append(value & 0xFFFF_FFFF_FFFF_FFFF)
            value = shift = 0
        else:
            shift += 7
            if shift >= 7 * _MOST_VARINT_BYTES:
                raise malformed("not a protobuf message: a number is too long")
    if shift:
        raise malformed("not a protobuf message: a number is cut off")
    return found


def signed(value: int) -> int:
    """An int32 or int64, which are sent as 64 bits of two's complement."""
    return value - (1 << 64) if value >> 63 else value


def text_of(value: Value) -> str:
    """A string field; raises RequestError."""
    if isinstance(value, int):
        raise malformed("not a protobuf message: a number where a text belongs")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise malformed("not a protobuf message: a text that is not UTF-8") from error


def bytes_of(value: Value) -> memoryview:
    """A bytes or message field; raises RequestError."""
    if isinstance(value, int):
        raise malformed("not a protobuf message: a number where bytes belong")
    return value


def number(value: int) -> bytes:
    """A varint."""
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= 0xFFFF_FFFF_FFFF_FFFF
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def integer(field: int, value: int) -> bytes:
    """An integer, enum or bool field; left out where it is 0, as proto3 has it."""
    return number(field << 3 | VARINT) + number(value) if value else b""


def data(field: int, content: bytes | memoryview) -> bytes:
    """A bytes or message field."""
    return b"".join((number(field << 3 | LENGTH), number(len(content)), content))


def text(field: int, content: str) -> bytes:
    """A string field; left out where it is empty."""
    return data(field, content.encode()) if content else b""


def packed(field: int, values: Iterable[int]) -> bytes:
    """A packed repeated integer field."""
    return data(field, b"".join(map(number, values)))
