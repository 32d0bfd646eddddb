"""Read what a pickle or joblib file holds without making any of it.

A small machine (`pickle_machine`) runs the opcodes (`pickle_opcodes`) on inert stand-ins: globals are names, calls are
recorded, nothing is imported. joblib's format is a pickle with, after each `NumpyArrayWrapper`, the raw bytes of the
array, or a further pickle when it holds objects (joblib/numpy_pickle.py, `write_array`).

Hostile files are expected: every count is checked against what is left, long data is skipped and not kept, nothing
recurses on content, and the number of opcodes is limited. The loader in the image (`unpickle`) enforces what may be
loaded by itself; what is said here is for the builder's report, so a difference between the two is no hole.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from corten.adapters.pickle_bytes import BrokenPickleError, Budget, ModelBytes
from corten.adapters.pickle_machine import Machine
from corten.adapters.pickle_opcodes import HIGHEST_PROTOCOL, OPERATIONS
from corten.adapters.plainfile import BROKEN, compression_of, open_plain
from corten.adapters.standins import Contents
from corten.errors import UsageError

# A forest of 1,000 trees takes 60,000 opcodes, a vocabulary of a million words nine million.
MAX_OPCODES = 16_000_000
_MAX_PLAIN_BYTES = 16 << 30  # what a compressed file may hold: deflate reaches 1,032 to 1
_FIRST_LINE = (b"ccopy_reg\n", b"ccopyreg\n", b"csklearn", b"cnumpy", b"cjoblib", b"c__main__")


def looks_like_pickle(head: bytes) -> bool:
    """Whether a file that starts with these bytes (16 or more) is a pickle: opcode PROTO, or a global in protocol 0."""
    if len(head) >= 2 and head[0] == 0x80:
        return 2 <= head[1] <= HIGHEST_PROTOCOL
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
        machine = Machine(source, OPERATIONS, Budget(max_opcodes), set())
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
    machine = Machine(source, OPERATIONS, Budget(MAX_OPCODES), set(), is_inner=True)
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
