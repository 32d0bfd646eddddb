"""Large JSON bodies of numbers, read some rows at a time: Python's lists of a whole one take thirty times its size.

A body is cut behind rows, and each piece decoded on its own as a list of rows. What is accepted this way is a list of
valid pieces with commas between them, so the whole is valid too and means the same; whatever cannot be read in pieces
(other forms, mistakes, anything strange) is left to who reads it whole, and says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from corten.core.schema import DType, Tensor
from corten.serve.job import RequestError

_PIECE_BYTES = 64 << 10
_LONGEST_END = 64
_Convert = Callable[[list[Any]], Mapping[str, np.ndarray]]


class PieceReader:
    """Reads `{"inputs": [...]}` for models of numbers; `row` is a row's type, `convert` makes arrays of rows."""

    def __init__(self, tensors: Sequence[Tensor], row: Any, convert: _Convert) -> None:
        self._decoder = msgspec.json.Decoder(list.__class_getitem__(row))
        self._convert = convert
        numbers = all(tensor.dtype not in {DType.STRING, DType.JSON} for tensor in tensors)
        self._able = numbers and all(tensor.shape[0] is None for tensor in tensors)
        # How a row ends; of one dimension it is a number.
        self._row_end = b"]" * (len(tensors[0].shape) - 1)
        # A model of one input is asked by its name, too. Compiled, and kept, by `re` with the first large body.
        self._forms = [(_begin(), _end(1))]
        if len(tensors) == 1:
            self._forms.append((_begin(tensors[0].name), _end(2)))

    def read(self, body: bytes | bytearray) -> dict[str, np.ndarray] | None:
        """The arrays of a body, None where it is to be read whole."""
        if not self._able:
            return None
        for begin, end in self._forms:
            first, last = re.match(begin, body), re.compile(end).search(body, len(body) - _LONGEST_END)
            if first and last:
                try:
                    return self._rows(body, first.end(), last.start())
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, RequestError, _NotInPiecesError):
                    return None
        return None

    def _rows(self, body: bytes | bytearray, start: int, end: int) -> dict[str, np.ndarray]:
        # Records end otherwise than rows.
        records = body[start : start + 64].lstrip().startswith(b"{")
        row_end = b"}" if records else self._row_end
        separator = row_end + b","
        whole: dict[str, tuple[np.ndarray, bytearray]] = {}
        while True:
            cut = body.find(separator, min(start + _PIECE_BYTES, end), end)
            stop = end if cut < 0 else cut + len(row_end)
            rows = self._decoder.decode(b"[" + body[start:stop] + b"]")
            # Nothing behind a comma, or records behind rows.
            if not rows or isinstance(rows[0], msgspec.Struct) is not records:
                raise _NotInPiecesError
            for name, array in self._convert(rows).items():
                first, data = whole.setdefault(name, (array[:0], bytearray()))
                if array.shape[1:] != first.shape[1:]:
                    raise _NotInPiecesError
                data += array.data.cast("B") if array.flags.c_contiguous else array.tobytes()
            if stop == end:
                break
            start = stop + 1
        return {
            name: np.frombuffer(data, dtype=first.dtype).reshape(-1, *first.shape[1:])
            for name, (first, data) in whole.items()
        }


class _NotInPiecesError(Exception):
    """It must be read whole."""


def _begin(name: str | None = None) -> bytes:
    keys = ["inputs"] if name is None else ["inputs", name]
    opened = b"".join(rb"\s*\{\s*%b\s*:" % re.escape(msgspec.json.encode(key)) for key in keys)
    return opened + rb"\s*\["


def _end(objects: int) -> bytes:
    return rb"\]" + rb"\s*\}" * objects + rb"\s*\Z"
