"""Tables of Apache Arrow that came from anybody: streams and files of its IPC format.

Format: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc

The library believes what it reads: a few hundred bytes may claim billions of values (nulls and repeated values take no
room, compressed ones little), and offsets may lead to the memory of others. So what a message claims is counted before
it is read, by the two tables of FlatBuffers that say so, and what was read is validated as a whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

_MAGIC, _MAGIC_BYTES = b"ARROW1", 8  # of a file, which is a stream behind it, and an index behind that
# Bytes that may be made of a body: eight times its own, or as many as this.
_LEAST_BYTES, _TIMES = 256 << 20, 8
_VALUE_BYTES = 8  # of a value, once it is a number or a reference
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_VIEWS = ("STRING_VIEW", "BINARY_VIEW", "LIST_VIEW", "LARGE_LIST_VIEW")


def read_table(body: bytes | bytearray) -> Any:
    """The `pyarrow.Table` of a body. Raises ValueError for what is none, or too much, ImportError without pyarrow."""
    import pyarrow as pa

    stream = memoryview(body)[_MAGIC_BYTES if body[: len(_MAGIC)] == _MAGIC else 0 :]
    most = max(_LEAST_BYTES, _TIMES * len(body))
    try:
        if sum(map(_claimed_bytes, pa.ipc.MessageReader.open_stream(stream))) > most:
            raise ValueError(f"its values take more than {most} bytes")
        table = pa.ipc.open_stream(stream).read_all()
        table.validate()  # that buffers are as long as they must be, before one is looked at
        if sum(map(_shared_bytes, table.columns)) > most:
            raise ValueError(f"its texts take more than {most} bytes")
        table.validate(full=True)
    except (pa.ArrowException, OSError, KeyError, IndexError, struct.error) as error:
        raise ValueError(f"not Arrow: {str(error)[:200]}") from error
    return table


def _claimed_bytes(message: Any) -> int:
    """What is made of a message's body: its values, and what is unpacked for them."""
    raw = bytes(message.metadata)
    root = _table(raw, 0)
    kind, header = raw[_place(raw, root, 1)], _table(raw, _place(raw, root, 2))
    if kind == _DICTIONARY_BATCH:
        header = _table(raw, _place(raw, header, 1))
    elif kind != _RECORD_BATCH:
        return 0
    values = sum(length for length, _ in _pairs(raw, _place(raw, header, 1)))
    unpacked = 0
    if _place(raw, header, 3):  # compressed: each buffer begins with its length, -1 for one that is not
        for offset, length in _pairs(raw, _place(raw, header, 2)):
            if length:
                unpacked += max(struct.unpack_from("<q", message.body, offset)[0], 0)
    return values * _VALUE_BYTES + unpacked


def _shared_bytes(column: Any) -> int:
    """What texts take that are views of others' bytes, once each has its own. Raises ValueError for other views."""
    import numpy as np
    import pyarrow as pa

    views = {getattr(pa.lib, f"Type_{name}", None) for name in _VIEWS}
    if column.type.id not in views:
        if _holds(column.type, views):
            raise ValueError(f"columns of {column.type} are not taken")
        return 0
    if column.type not in {pa.string_view(), pa.binary_view()}:
        raise ValueError(f"columns of {column.type} are not taken")
    # A view is 16 bytes, the first four its length.
    return sum(
        int(np.frombuffer(chunk.buffers()[1], "<u4")[4 * chunk.offset :][: 4 * len(chunk) : 4].sum(dtype=np.uint64))
        for chunk in column.chunks
    )


def _holds(kind: Any, ids: set[Any]) -> bool:
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    if hasattr(kind, "value_type"):
        inner.append(kind.value_type)
    return any(one.id in ids or _holds(one, ids) for one in inner)


# FlatBuffers (https://flatbuffers.dev/internals); the library has checked that all places lie within.


def _table(raw: bytes, at: int) -> int:
    """Where the table is that `at` refers to."""
    place: int = at + struct.unpack_from("<I", raw, at)[0]
    return place


def _place(raw: bytes, table: int, field: int) -> int:
    """Where a field of a table is, 0 when it is left out."""
    fields = table - struct.unpack_from("<i", raw, table)[0]
    (size,) = struct.unpack_from("<H", raw, fields)
    slot = 4 + 2 * field
    offset: int = struct.unpack_from("<H", raw, fields + slot)[0] if slot < size else 0
    return table + offset if offset else 0


def _pairs(raw: bytes, at: int) -> Iterator[tuple[int, int]]:
    """The pairs of numbers of a list; `at` is where the field that refers to it is, 0 when there is none."""
    if at:
        start = _table(raw, at)
        (count,) = struct.unpack_from("<I", raw, start)
        yield from struct.iter_unpack("<qq", raw[start + 4 : start + 4 + 16 * count])
