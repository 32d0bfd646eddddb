"""What a model file says, as inert values: nothing here is, or can become, the object the file describes.

Both static readers (`pickles`, `skops_file`) give these, so that what is told of a model is told in one place.
Plain Python values (None, bool, int, float, str, bytes, tuple, list, dict, set) stand for themselves.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Small arrays keep their bytes (class labels, column names); of larger ones only type and shape are of interest.
KEEP_BYTES = 64 << 10
_MAX_STATES = 1_000_000

# numpy's `kind` and item size -> struct's format, for the arrays whose values are read.
_FORMATS = {
    ("b", 1): "?", ("i", 1): "b", ("i", 2): "h", ("i", 4): "i", ("i", 8): "q",
    ("u", 1): "B", ("u", 2): "H", ("u", 4): "I", ("u", 8): "Q",
    ("f", 2): "e", ("f", 4): "f", ("f", 8): "d",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Global:
    """A class or function named by the file, never imported."""

    module: str
    name: str

    @property
    def root(self) -> str:
        """The top-level package: `sklearn` of `sklearn.ensemble._forest`."""
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Made:
    """What would be made by calling `maker` with `args`; `state` is what would be set on it afterwards."""

    maker: object
    args: object = ()
    state: object = None

    @property
    def cls(self) -> Global | None:
        """Its class, as far as the file tells."""
        if isinstance(self.maker, Global):
            return self.maker
        return None

    @property
    def attributes(self) -> Mapping[object, object]:
        """Its instance attributes: the state, or the first half of the (`__dict__`, slots) pair."""
        if isinstance(self.state, dict):
            return self.state
        if isinstance(self.state, tuple) and len(self.state) == 2 and isinstance(self.state[0], dict):
            return self.state[0]
        return {}


@dataclass(frozen=True, slots=True, eq=False)
class Opaque:
    """A string, bytes or a number too long to be of interest; only its size in bytes is known."""

    size_bytes: int


@dataclass(frozen=True, slots=True)
class ElementType:
    """numpy's dtype: `kind` is one letter (`f`, `i`, `U`, `O`, `V` ...), `size_bytes` that of one element."""

    kind: str
    size_bytes: int
    has_objects: bool = False
    big_endian: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """A numpy array: `data` are its bytes in `order` when they are few, `items` its elements when it holds objects."""

    dtype: ElementType
    shape: tuple[int, ...]
    data: bytes | None = None
    items: tuple[object, ...] | None = None

    @property
    def length(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    def values(self) -> tuple[object, ...] | None:
        """Its elements as Python values in storage order, or None if they were not kept or cannot be told."""
        if self.items is not None:
            return self.items
        if self.data is None or len(self.data) != self.length * self.dtype.size_bytes:
            return None
        order = ">" if self.dtype.big_endian else "<"
        if self.dtype.kind == "U":
            return _texts(self.data, self.dtype.size_bytes, order)
        letter = _FORMATS.get((self.dtype.kind, self.dtype.size_bytes))
        return struct.unpack(f"{order}{self.length}{letter}", self.data) if letter else None


def _texts(data: bytes, size_bytes: int, order: str) -> tuple[object, ...] | None:
    if not size_bytes:
        return None
    codec = "utf-32-be" if order == ">" else "utf-32-le"
    pieces = (data[at : at + size_bytes] for at in range(0, len(data), size_bytes))
    try:
        return tuple(piece.decode(codec).rstrip("\0") for piece in pieces)
    except UnicodeDecodeError:
        return None


def element_type(value: object) -> ElementType | None:
    """Read a pickled `numpy.dtype`: `dtype('f8', False, True)` with state (version, order, ..., size, align, flags)."""
    if not isinstance(value, Made) or value.cls is None or value.cls.name != "dtype":
        return None
    code = value.args[0] if isinstance(value.args, tuple) and value.args else None
    if not isinstance(code, str) or not code:
        return None
    state = value.state if isinstance(value.state, tuple) else ()
    kind, digits = code[0], code[1:]
    size: object = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None
    if kind == "U" and isinstance(size, int):
        size *= 4
    # U, S and V: the state says the size in bytes; the code of a structured type says it too.
    if len(state) >= 6 and isinstance(state[5], int) and state[5] >= 0:
        size = state[5]
    if not isinstance(size, int):
        return None
    # NPY_ITEM_HASOBJECT is bit 0 of the flags, the state's eighth member.
    flagged = len(state) >= 8 and isinstance(state[7], int) and bool(state[7] & 1)
    return ElementType(kind, size, has_objects=kind == "O" or flagged, big_endian=len(state) > 1 and state[1] == ">")


def as_array(value: object) -> Array | None:
    """Read a pickled `numpy.ndarray`: `_reconstruct(...)` with state (version, shape, dtype, is_fortran, data)."""
    if isinstance(value, Array):
        return value
    if not isinstance(value, Made) or value.cls is None or value.cls.name != "_reconstruct":
        return None
    state = value.state
    if not isinstance(state, tuple) or len(state) != 5:
        return None
    _, shape, dtype, _, content = state
    kind = element_type(dtype)
    if kind is None or not is_shape(shape):
        return None
    if isinstance(content, list):
        return Array(kind, shape, items=tuple(content))
    return Array(kind, shape, data=content if isinstance(content, bytes) else None)


def is_shape(value: object) -> bool:
    """Whether this is a tuple of sensible array dimensions."""
    return isinstance(value, tuple) and len(value) <= 64 and all(type(n) is int and 0 <= n < 1 << 48 for n in value)


def as_int(value: object) -> int | None:
    """A Python or pickled numpy integer (`scalar(dtype, bytes)`)."""
    if type(value) is int:
        return value
    if isinstance(value, Made) and value.cls is not None and value.cls.name == "scalar":
        kind = element_type(value.args[0]) if isinstance(value.args, tuple) and len(value.args) == 2 else None
        if kind is not None and kind.kind in "iu" and isinstance(value.args, tuple):
            read = Array(kind, (), data=value.args[1]).values() if isinstance(value.args[1], bytes) else None
            return read[0] if read and isinstance(read[0], int) else None
    return None


def everything(root: object) -> Iterator[Any]:
    """Every value reachable from `root`, each object once, without recursion (files may nest as deep as they like)."""
    pending, seen = [root], {id(root)}
    while pending and len(seen) < _MAX_STATES:
        value = pending.pop()
        yield value
        for child in _children(value):
            if not isinstance(child, (str, bytes, int, float, bool, type(None))) and id(child) not in seen:
                seen.add(id(child))
                pending.append(child)


def _children(value: object) -> Iterator[object]:
    match value:
        case Made():
            yield from (value.maker, value.args, value.state)
        case dict():
            yield from value.keys()
            yield from value.values()
        case list() | tuple() | set() | frozenset():
            yield from value
        case Array() if value.items:
            yield from value.items
        case _:
            return


@dataclass(slots=True)
class Contents:
    """What a model file holds: the object on top, every global it names, and how it was written."""

    root: object
    globals: frozenset[Global]
    format: str
    versions: Mapping[str, str] = field(default_factory=dict)
