"""Pickle's stack machine on stand-ins: what its opcodes (`pickle_opcodes`) work on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from corten.adapters.pickle_bytes import Budget, ModelBytes
from corten.adapters.standins import (
    Array,
    ElementType,
    Global,
    Made,
    Opaque,
    as_array,
    element_type,
    is_shape,
)

Operations: TypeAlias = "Sequence[Callable[[Machine], None] | None]"

_STOP = ord(".")
_MAX_STACK = 4_000_000
_MAX_NESTED = 64  # pickles within a joblib pickle: object arrays in object arrays
_WRAPPER = "NumpyArrayWrapper"
_ORDERED = Global("collections", "OrderedDict")


class Machine:
    """The stack, the marks, the memo and the globals seen; `operations` are what the 256 opcodes do to them."""

    def __init__(
        self,
        source: ModelBytes,
        operations: Operations,
        budget: Budget,
        names: set[Global],
        depth: int = 0,
        *,
        is_inner: bool = False,
    ) -> None:
        self.source = source
        self._operations = operations
        self.is_inner = is_inner
        self.globals = names
        self.protocol = 0
        self._budget = budget
        self._depth = depth
        self._stack: list[object] = []
        self._marks: list[list[object]] = []
        self._memo: dict[int, object] = {}

    def run(self) -> object:
        """The object on top when STOP comes."""
        source, budget, operations = self.source, self._budget, self._operations
        while True:
            code = source.take(1)[0]
            if code == _STOP:
                return self.pop()
            operation = operations[code]
            if operation is None:
                source.position -= 1
                source.fail(f"0x{code:02x} is no pickle opcode")
            budget.left -= 1
            if budget.left < 0:
                source.fail("more opcodes than any model needs")
            operation(self)

    def push(self, value: object) -> None:
        """Put a value on top of the stack."""
        if len(self._stack) >= _MAX_STACK:
            self.source.fail("the stack grows beyond any model's")
        self._stack.append(value)

    def pop(self) -> object:
        """Take the value on top off the stack."""
        if not self._stack:
            self.source.fail("an opcode takes a value where none is")
        return self._stack.pop()

    def top(self) -> object:
        """The value on top, left where it is."""
        if not self._stack:
            self.source.fail("an opcode needs a value where none is")
        return self._stack[-1]

    def mark(self) -> None:
        """MARK: what comes is collected until the mark is asked for."""
        if len(self._marks) >= _MAX_STACK:
            self.source.fail("more marks than any model needs")
        self._marks.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list[object]:
        """What was collected since the last mark."""
        if not self._marks:
            self.source.fail("a list ends that never began")
        items, self._stack = self._stack, self._marks.pop()
        return items

    def drop(self) -> None:
        """POP takes the value on top, or the mark if there is none above it."""
        if self._stack:
            self._stack.pop()
        else:
            self.pop_mark()

    def remember(self, index: int) -> None:
        """PUT: note the value on top in the memo."""
        self._memo[index] = self.top()

    def memoize(self) -> None:
        """MEMOIZE: note it under the next number."""
        self._memo[len(self._memo)] = self.top()

    def recall(self, index: int) -> None:
        """GET: push what the memo has under a number."""
        if index not in self._memo:
            self.source.fail(f"entry {index} of the memo is used before it is set")
        self.push(self._memo[index])

    def push_global(self, module: object, name: object) -> None:
        """Push a name and note it; nothing is imported."""
        if not isinstance(module, str) or not isinstance(name, str):
            self.source.fail("a global's name is not text")
        found = Global(module, name)
        self.globals.add(found)
        self.push(found)

    def push_call(self, args: object, maker: object) -> None:
        """Push a record of a call; nothing is called."""
        self.push(Made(maker, args))

    def text_number(self, kind: Callable[[bytes], object], line: bytes) -> object:
        """A number that is written as text."""
        try:
            return kind(line)
        except ValueError:
            self.source.fail("a number is malformed")

    def text(self, count: int) -> object:
        """So many bytes of UTF-8; a stand-in where they are too many to keep."""
        data = self.source.keep_or_skip(count)
        if isinstance(data, Opaque):
            return data
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.source.fail("text is not UTF-8")

    def append(self, items: list[object]) -> None:
        """Add items to the list or set on top."""
        target = self.top()
        match target:
            case list():
                target.extend(items)
            case set():
                target.update(item if _is_plain(item) else Opaque(0) for item in items)
            case _:
                return  # a list or set of a class of its own: its items tell nothing we need

    def set_items(self, items: list[object]) -> None:
        """Add keys and values, one after the other, to the dict on top."""
        target = self.top()
        if len(items) % 2:
            self.source.fail("a key has no value")
        if isinstance(target, Made):
            # An OrderedDict or defaultdict: what it holds stands for its state.
            if target.state is None:
                target.state = {}
            target = target.state
        if isinstance(target, dict):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[key_of(key)] = value

    def build(self) -> None:
        """BUILD: give the object below its state; joblib's arrays are read where this makes their wrapper whole."""
        state = self.pop()
        target = self.top()
        if not isinstance(target, Made) or (target.state is not None and target.cls == _ORDERED):
            return  # what an OrderedDict holds is of interest, attributes set on it (torch's `_metadata`) are not
        target.state = state
        if target.cls is not None and target.cls.name == _WRAPPER and target.cls.root in ("joblib", "sklearn"):
            self._stack[-1] = self._read_array(target)

    def _read_array(self, wrapper: Made) -> Array:
        """What joblib writes behind an array's wrapper: a pickle if it holds objects, else padding and bytes."""
        source = self.source
        dtype = element_type(wrapper.attributes.get("dtype"))
        shape = wrapper.attributes.get("shape")
        if dtype is None or not is_shape(shape) or not isinstance(shape, tuple):
            source.fail("an array's type or shape is unreadable")
        source.arrays += 1
        if dtype.has_objects:
            return self._read_objects(dtype, shape)
        if wrapper.attributes.get("numpy_array_alignment_bytes") is not None:
            source.take(source.take(1)[0])
        data = source.keep_or_skip(math.prod(shape) * dtype.size_bytes)
        return Array(dtype, shape, data=data if isinstance(data, bytes) else None)

    def _read_objects(self, dtype: ElementType, shape: tuple[int, ...]) -> Array:
        if self._depth >= _MAX_NESTED:
            self.source.fail("arrays of objects are nested too deep")
        inner = Machine(self.source, self._operations, self._budget, self.globals, self._depth + 1)
        return as_array(inner.run()) or Array(dtype, shape)


def _is_plain(value: object) -> bool:
    # Hashing a deeply nested tuple overflows the C stack, so only what cannot nest is hashed.
    return value is None or isinstance(value, (str, bytes, int, float, Global))


def key_of(value: object) -> object:
    """What stands for a value where it has to be hashed."""
    return value if _is_plain(value) else Opaque(0)
