"""What pickle's opcodes do (Lib/pickletools.py is their specification), on a machine of stand-ins."""

from __future__ import annotations

import struct
from collections.abc import Callable

from corten.adapters.pickle_machine import Machine, Operations, key_of
from corten.adapters.standins import Global, Opaque

HIGHEST_PROTOCOL = 5


def _line_int(data: bytes) -> object:
    # Protocol 0 writes booleans as the integers 00 and 01.
    return data == b"01" if data in (b"00", b"01") else int(data)


def _line_long(data: bytes) -> object:
    return int(data.removesuffix(b"L"))


def _unicode_line(machine: Machine) -> None:
    try:
        machine.push(machine.source.line().decode("raw-unicode-escape"))
    except UnicodeDecodeError:
        machine.source.fail("text is malformed")


def _string_line(machine: Machine) -> None:
    data = machine.source.line()
    if len(data) < 2 or data[:1] != data[-1:] or data[:1] not in (b"'", b'"'):
        machine.source.fail("a string has no quotes")
    machine.push(data[1:-1].decode("latin-1"))


def _bytes_of(size_bytes: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        machine.push(machine.source.keep_or_skip(machine.source.number(size_bytes)))

    return operation


def _latin_of(size_bytes: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        data = machine.source.keep_or_skip(machine.source.number(size_bytes))
        machine.push(data if isinstance(data, Opaque) else data.decode("latin-1"))

    return operation


def _text_of(size_bytes: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        machine.push(machine.text(machine.source.number(size_bytes)))

    return operation


def _long_of(size_bytes: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        data = machine.source.keep_or_skip(machine.source.number(size_bytes))
        machine.push(data if isinstance(data, Opaque) else int.from_bytes(data, "little", signed=True))

    return operation


def _tuple_of(count: int) -> Callable[[Machine], None]:
    def operation(machine: Machine) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return operation


def _dict_from_mark(machine: Machine) -> None:
    items = machine.pop_mark()
    machine.push({})
    machine.set_items(items)


def _instance(machine: Machine) -> None:
    module, name = machine.source.line(), machine.source.line()
    args = tuple(machine.pop_mark())
    machine.push_global(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))
    machine.push_call(args, machine.pop())


def _object(machine: Machine) -> None:
    items = machine.pop_mark()
    if not items:
        machine.source.fail("an object has no class")
    machine.push_call(tuple(items[1:]), items[0])


def _reduce(machine: Machine) -> None:
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


def _new_with_keywords(machine: Machine) -> None:
    keywords, args = machine.pop(), machine.pop()
    machine.push_call((args, keywords), machine.pop())


def _global_line(machine: Machine) -> None:
    module, name = machine.source.line(), machine.source.line()
    machine.push_global(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push_global(module, name)


def _protocol(machine: Machine) -> None:
    machine.protocol = machine.source.number(1)
    if machine.protocol > HIGHEST_PROTOCOL:
        machine.source.fail(f"pickle protocol {machine.protocol} is not known (0 to {HIGHEST_PROTOCOL})")


def _set_one(machine: Machine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _frozen(machine: Machine) -> None:
    machine.push(frozenset(key_of(item) for item in machine.pop_mark()))


def _persistent(machine: Machine) -> None:
    if machine.is_inner:
        machine.pop()
        machine.push(Opaque(0))
        return
    machine.source.fail("it refers to objects outside the file, as PyTorch's files do")


def _persistent_line(machine: Machine) -> None:
    machine.push(machine.source.line().decode("utf-8", "replace"))
    _persistent(machine)


def _extension(machine: Machine) -> None:
    machine.source.fail("it uses a code of copyreg's extension registry, which only its writer knows")


def _buffer(machine: Machine) -> None:
    machine.source.fail("its buffers were written elsewhere (pickle protocol 5, out-of-band)")


def _forget(value: object) -> None:
    del value


def _memo_index(machine: Machine) -> int:
    index = machine.text_number(int, machine.source.line())
    if not isinstance(index, int) or index < 0:
        machine.source.fail("a memo index is negative")
    return index


_TABLE: dict[bytes, Callable[[Machine], None]] = {
    b"(": Machine.mark,
    b"0": Machine.drop,
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
    b"b": Machine.build,
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
    b"\x94": Machine.memoize,
    # Frames only say how far to read ahead (PEP 3154).
    b"\x95": lambda m: _forget(m.source.take(8)),
    b"\x96": _bytes_of(8),
    b"\x97": _buffer,
    b"\x98": _buffer,
}
OPERATIONS: Operations = tuple(_TABLE.get(bytes([code])) for code in range(256))
