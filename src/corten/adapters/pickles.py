"""Read what a pickle or joblib file holds without making any of it.

A small machine runs the pickle opcodes (Lib/pickletools.py is their specification) on inert stand-ins: globals are
names, calls are recorded, nothing is imported. joblib's format is a pickle with, after each `NumpyArrayWrapper`, the
raw bytes of the array, or a further pickle when it holds objects (joblib/numpy_pickle.py, `write_array`).

Hostile files are expected: every count is checked against what is left, long data is skipped and not kept, nothing
recurses on content, and the number of opcodes is limited. The loader in the image (`unpickle`) enforces what may be
loaded by itself; what is said here is for the builder's report, so a difference between the two is no hole.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from corten.adapters.pickle_bytes import BrokenPickleError, Budget, ModelBytes
from corten.adapters.plainfile import BROKEN, compression_of, open_plain
from corten.adapters.standins import (
    Array,
    Contents,
    ElementType,
    Global,
    Made,
    Opaque,
    as_array,
    element_type,
    is_shape,
)
from corten.errors import UsageError

# A forest of 1,000 trees takes 60,000 opcodes, a vocabulary of a million words nine million.
MAX_OPCODES = 16_000_000
_MAX_STACK = 4_000_000
_MAX_NESTED = 64  # pickles within a joblib pickle: object arrays in object arrays
_MAX_PLAIN_BYTES = 16 << 30  # what a compressed file may hold: deflate reaches 1,032 to 1
_HIGHEST_PROTOCOL = 5
_WRAPPER = "NumpyArrayWrapper"
_ORDERED = Global("collections", "OrderedDict")
_FIRST_LINE = (b"ccopy_reg\n", b"ccopyreg\n", b"csklearn", b"cnumpy", b"cjoblib", b"c__main__")


def looks_like_pickle(head: bytes) -> bool:
    """Whether a file that starts with these bytes (16 or more) is a pickle: opcode PROTO, or a global in protocol 0."""
    if len(head) >= 2 and head[0] == 0x80:
        return 2 <= head[1] <= _HIGHEST_PROTOCOL
    return head.startswith(_FIRST_LINE)


def is_pickle(path: Path) -> bool:
    """Whether the file, decompressed if need be, is a pickle. Reads a few bytes; never raises for content."""
    try:
        with path.open("rb") as raw:
            head = raw.read(64)
        if not compression_of(head):
            return looks_like_pickle(head)
        with open_plain(path) as (stream, _):
            return looks_like_pickle(stream.read(64))
    except (*BROKEN, UsageError):
        return False


def read_pickle(path: Path, *, max_opcodes: int = MAX_OPCODES) -> Contents:
    """Read a pickle or joblib file, compressed or not; only the first pickle of several counts.

    Raises UsageError (`adapter.corrupt_model`) with the byte offset and the reason for anything that is not one.
    """
    with open_plain(path) as (stream, compression):
        size_bytes = _MAX_PLAIN_BYTES if compression else path.stat().st_size
        source = ModelBytes(stream, size_bytes, seekable=not compression)
        machine = _Machine(source, Budget(max_opcodes), set())
        try:
            root = machine.run()
        except BrokenPickleError as error:
            place = f"byte {error.offset}" + (f" of the {compression} content" if compression else "")
            raise _corrupt(path, f"{place}: {error.why}") from None
        except BROKEN as error:
            raise _corrupt(path, f"the {compression or 'file'} data cannot be read: {error}") from error
    kind = "joblib" if source.arrays else "pickle"
    return Contents(
        root,
        frozenset(machine.globals),
        f"{kind}, protocol {machine.protocol}" + (f", {compression}" if compression else ""),
    )


def read_inner_pickle(stream: BinaryIO, size_bytes: int, path: Path) -> Contents:
    """Read a pickle that is a member of another file; what it keeps in other members (PyTorch's tensors) is Opaque.

    Raises UsageError (`adapter.corrupt_model`) that names `path`.
    """
    source = ModelBytes(stream, size_bytes, seekable=False)
    machine = _Machine(source, Budget(MAX_OPCODES), set(), is_inner=True)
    try:
        root = machine.run()
    except BrokenPickleError as error:
        raise _corrupt(path, f"byte {error.offset} of the pickle in it: {error.why}") from None
    except BROKEN as error:
        raise _corrupt(path, f"the pickle in it cannot be read: {error}") from error
    return Contents(root, frozenset(machine.globals), f"pickle, protocol {machine.protocol}")


def _corrupt(path: Path, why: str) -> UsageError:
    return UsageError(
        "adapter.corrupt_model",
        f"`{path.name}` is not a complete model file",
        where=str(path),
        why=why,
        hint="save the model again, and copy it in binary mode",
    )


class _Machine:
    """Pickle's stack machine on stand-ins."""

    def __init__(
        self, source: ModelBytes, budget: Budget, names: set[Global], depth: int = 0, *, is_inner: bool = False
    ) -> None:
        self.source = source
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
        source, budget, operations = self.source, self._budget, _OPERATIONS
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
        if len(self._stack) >= _MAX_STACK:
            self.source.fail("the stack grows beyond any model's")
        self._stack.append(value)

    def pop(self) -> object:
        if not self._stack:
            self.source.fail("an opcode takes a value where none is")
        return self._stack.pop()

    def top(self) -> object:
        if not self._stack:
            self.source.fail("an opcode needs a value where none is")
        return self._stack[-1]

    def mark(self) -> None:
        if len(self._marks) >= _MAX_STACK:
            self.source.fail("more marks than any model needs")
        self._marks.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list[object]:
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
        self._memo[index] = self.top()

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self.top()

    def recall(self, index: int) -> None:
        if index not in self._memo:
            self.source.fail(f"entry {index} of the memo is used before it is set")
        self.push(self._memo[index])

    def push_global(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self.source.fail("a global's name is not text")
        found = Global(module, name)
        self.globals.add(found)
        self.push(found)

    def push_call(self, args: object, maker: object) -> None:
        self.push(Made(maker, args))

    def text_number(self, kind: Callable[[bytes], object], line: bytes) -> object:
        try:
            return kind(line)
        except ValueError:
            self.source.fail("a number is malformed")

    def text(self, count: int) -> object:
        data = self.source.keep_or_skip(count)
        if isinstance(data, Opaque):
            return data
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.source.fail("text is not UTF-8")

    def append(self, items: list[object]) -> None:
        target = self.top()
        match target:
            case list():
                target.extend(items)
            case set():
                target.update(item if _is_plain(item) else Opaque(0) for item in items)
            case _:
                return  # a list or set of a class of its own: its items tell nothing we need

    def set_items(self, items: list[object]) -> None:
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
                target[_key(key)] = value

    def build(self) -> None:
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
        inner = _Machine(self.source, self._budget, self.globals, self._depth + 1)
        return as_array(inner.run()) or Array(dtype, shape)


def _is_plain(value: object) -> bool:
    # Hashing a deeply nested tuple overflows the C stack, so only what cannot nest is hashed.
    return value is None or isinstance(value, (str, bytes, int, float, Global))


def _key(value: object) -> object:
    return value if _is_plain(value) else Opaque(0)


def _line_int(data: bytes) -> object:
    # Protocol 0 writes booleans as the integers 00 and 01.
    return data == b"01" if data in (b"00", b"01") else int(data)


def _line_long(data: bytes) -> object:
    return int(data.removesuffix(b"L"))


def _unicode_line(machine: _Machine) -> None:
    try:
        machine.push(machine.source.line().decode("raw-unicode-escape"))
    except UnicodeDecodeError:
        machine.source.fail("text is malformed")


def _string_line(machine: _Machine) -> None:
    data = machine.source.line()
    if len(data) < 2 or data[:1] != data[-1:] or data[:1] not in (b"'", b'"'):
        machine.source.fail("a string has no quotes")
    machine.push(data[1:-1].decode("latin-1"))


def _bytes_of(size_bytes: int) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        machine.push(machine.source.keep_or_skip(machine.source.number(size_bytes)))

    return operation


def _latin_of(size_bytes: int) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        data = machine.source.keep_or_skip(machine.source.number(size_bytes))
        machine.push(data if isinstance(data, Opaque) else data.decode("latin-1"))

    return operation


def _text_of(size_bytes: int) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        machine.push(machine.text(machine.source.number(size_bytes)))

    return operation


def _long_of(size_bytes: int) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        data = machine.source.keep_or_skip(machine.source.number(size_bytes))
        machine.push(data if isinstance(data, Opaque) else int.from_bytes(data, "little", signed=True))

    return operation


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def operation(machine: _Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return operation


def _dict_from_mark(machine: _Machine) -> None:
    items = machine.pop_mark()
    machine.push({})
    machine.set_items(items)


def _instance(machine: _Machine) -> None:
    module, name = machine.source.line(), machine.source.line()
    args = tuple(machine.pop_mark())
    machine.push_global(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))
    machine.push_call(args, machine.pop())


def _object(machine: _Machine) -> None:
    items = machine.pop_mark()
    if not items:
        machine.source.fail("an object has no class")
    machine.push_call(tuple(items[1:]), items[0])


def _reduce(machine: _Machine) -> None:
    args, maker = machine.pop(), machine.pop()
    if isinstance(maker, Global) and maker.name == "_reconstructor" and isinstance(args, tuple) and args:
        # Protocols 0 and 1 make plain objects by copyreg._reconstructor(class, base, state).
        machine.push_call((), args[0])
    elif (data := _old_bytes(maker, args)) is not None:
        machine.push(data)
    else:
        machine.push_call(args, maker)


def _old_bytes(maker: object, args: object) -> bytes | None:
    """Bytes as protocols 0 to 2 write them: `_codecs.encode(text, "latin1")`, or `bytes()` when empty."""
    match maker, args:
        case Global("_codecs", "encode"), (str(text), "latin1" | "latin-1"):
            return text.encode("latin-1", "replace")
        case Global("__builtin__" | "builtins", "bytes"), ():
            return b""
        case _:
            return None


def _new_with_keywords(machine: _Machine) -> None:
    keywords, args = machine.pop(), machine.pop()
    machine.push_call((args, keywords), machine.pop())


def _global_line(machine: _Machine) -> None:
    module, name = machine.source.line(), machine.source.line()
    machine.push_global(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push_global(module, name)


def _protocol(machine: _Machine) -> None:
    machine.protocol = machine.source.number(1)
    if machine.protocol > _HIGHEST_PROTOCOL:
        machine.source.fail(f"pickle protocol {machine.protocol} is not known (0 to {_HIGHEST_PROTOCOL})")


def _set_one(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _frozen(machine: _Machine) -> None:
    machine.push(frozenset(_key(item) for item in machine.pop_mark()))


def _persistent(machine: _Machine) -> None:
    if machine.is_inner:
        machine.pop()
        machine.push(Opaque(0))
        return
    machine.source.fail("it refers to objects outside the file, as PyTorch's files do")


def _persistent_line(machine: _Machine) -> None:
    machine.push(machine.source.line().decode("utf-8", "replace"))
    _persistent(machine)


def _extension(machine: _Machine) -> None:
    machine.source.fail("it uses a code of copyreg's extension registry, which only its writer knows")


def _buffer(machine: _Machine) -> None:
    machine.source.fail("its buffers were written elsewhere (pickle protocol 5, out-of-band)")


def _forget(value: object) -> None:
    del value


_STOP = ord(".")
_TABLE: dict[bytes, Callable[[_Machine], None]] = {
    b"(": _Machine.mark,
    b"0": _Machine.drop,
    b"1": lambda m: _forget(m.pop_mark()),
    b"2": lambda m: m.push(m.top()),
    b"F": lambda m: m.push(m.text_number(float, m.source.line())),
    b"I": lambda m: m.push(m.text_number(_line_int, m.source.line())),
    b"J": lambda m: m.push(int.from_bytes(m.source.take(4), "little", signed=True)),
    b"K": lambda m: m.push(m.source.number(1)),
    b"L": lambda m: m.push(m.text_number(_line_long, m.source.line())),
    b"M": lambda m: m.push(m.source.number(2)),
    b"N": lambda m: m.push(None),
    b"P": _persistent_line,
    b"Q": _persistent,
    b"R": _reduce,
    b"S": _string_line,
    b"T": _latin_of(4),
    b"U": _latin_of(1),
    b"V": _unicode_line,
    b"X": _text_of(4),
    b"a": lambda m: m.append([m.pop()]),
    b"b": _Machine.build,
    b"c": _global_line,
    b"d": _dict_from_mark,
    b"}": lambda m: m.push({}),
    b"e": lambda m: m.append(m.pop_mark()),
    b"g": lambda m: m.recall(_memo_index(m)),
    b"h": lambda m: m.recall(m.source.number(1)),
    b"i": _instance,
    b"j": lambda m: m.recall(m.source.number(4)),
    b"l": lambda m: m.push(m.pop_mark()),
    b"]": lambda m: m.push([]),
    b"o": _object,
    b"p": lambda m: m.remember(_memo_index(m)),
    b"q": lambda m: m.remember(m.source.number(1)),
    b"r": lambda m: m.remember(m.source.number(4)),
    b"s": _set_one,
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b")": lambda m: m.push(()),
    b"u": lambda m: m.set_items(m.pop_mark()),
    b"G": lambda m: m.push(struct.unpack(">d", m.source.take(8))[0]),
    b"B": _bytes_of(4),
    b"C": _bytes_of(1),
    b"\x80": _protocol,
    b"\x81": lambda m: m.push_call(m.pop(), m.pop()),
    b"\x82": _extension,
    b"\x83": _extension,
    b"\x84": _extension,
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"\x8a": _long_of(1),
    b"\x8b": _long_of(4),
    b"\x8c": _text_of(1),
    b"\x8d": _text_of(8),
    b"\x8e": _bytes_of(8),
    b"\x8f": lambda m: m.push(set()),
    b"\x90": lambda m: m.append(m.pop_mark()),
    b"\x91": _frozen,
    b"\x92": _new_with_keywords,
    b"\x93": _stack_global,
    b"\x94": _Machine.memoize,
    # Frames only say how far to read ahead (PEP 3154).
    b"\x95": lambda m: _forget(m.source.take(8)),
    b"\x96": _bytes_of(8),
    b"\x97": _buffer,
    b"\x98": _buffer,
}
_OPERATIONS = tuple(_TABLE.get(bytes([code])) for code in range(256))


def _memo_index(machine: _Machine) -> int:
    index = machine.text_number(int, machine.source.line())
    if not isinstance(index, int) or index < 0:
        machine.source.fail("a memo index is negative")
    return index
