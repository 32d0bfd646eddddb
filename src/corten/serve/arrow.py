"""Tables as Apache Arrow's streams (https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format).

Needs the package pyarrow in the image; whoever has it there can send and get columns without a text in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from corten.adapters.arrow_tables import read_table
from corten.core.schema import DType, Tensor
from corten.serve.job import Inputs, Reply, RequestError, invalid, malformed
from corten.serve.npy import columns_of
from corten.serve.tensors import cast_array

ARROW = "application/vnd.apache.arrow.stream"


def prepare() -> None:
    """Import the library, for answers to be written with; raises RequestError."""
    _library()


def read_arrow(body: bytes | bytearray, tensors: Sequence[Tensor]) -> Inputs:
    """The rows of a stream; raises RequestError. Columns are found by name where the model knows names."""
    _library()
    try:
        table = read_table(body)
    except ValueError as error:
        raise malformed(str(error)) from error
    if len(set(table.column_names)) != table.num_columns:
        raise invalid("the same column twice", "")
    if not table.num_rows:
        raise invalid("expected at least one row", "")
    if len(tensors) == 1:
        tensor = tensors[0]
        names = list(tensor.columns) or [tensor.name] * (len(tensor.shape) == 1) or table.column_names
        columns = [_column(table, name, tensor) for name in names]
        if len(tensor.shape) > 2 or (len(tensor.shape) == 2 and tensor.shape[1] not in {None, len(columns)}):
            raise invalid(f"{len(columns)} columns, which do not make rows of {list(tensor.shape[1:])}", "")
        array = columns[0] if len(tensor.shape) == 1 else np.column_stack(columns)
        return Inputs({tensor.name: array}, len(array), array.shape[1:] if None in tensor.shape[1:] else None)
    arrays = {}
    for tensor in tensors:
        column = _column(table, tensor.name, tensor)
        arrays[tensor.name] = column.reshape(-1, 1) if len(tensor.shape) == 2 else column
    return Inputs(arrays, table.num_rows)


def _column(table: Any, name: str, tensor: Tensor) -> np.ndarray:
    if name not in table.column_names:
        raise invalid(f"missing column; there are {', '.join(table.column_names)[:500]}", name)
    column = table.column(name)
    try:
        return cast_array(_array(column, tensor), tensor)
    except (TypeError, FloatingPointError) as error:
        raise invalid(f"expected {tensor.dtype.value}, got {str(column.type)[:200]}", name) from error


def _array(column: Any, tensor: Tensor) -> np.ndarray:
    """Numbers, or texts, as they are; raises TypeError for what is neither, and for a missing text."""
    kinds = _library().types
    if kinds.is_integer(column.type) or kinds.is_floating(column.type) or kinds.is_boolean(column.type):
        array: np.ndarray = column.to_numpy()
        return array
    if not any(is_text(column.type) for is_text in (kinds.is_string, kinds.is_large_string, kinds.is_string_view)):
        raise TypeError(f"{column.type} is neither number nor text")
    if column.null_count and tensor.dtype is not DType.JSON:
        raise TypeError("a text is missing")
    return np.asarray(column.to_pylist(), dtype=object)


def write_arrow(outputs: Mapping[str, np.ndarray]) -> Reply:
    """The outputs as columns; raises RequestError (406) for what is no table."""
    return _written(columns_of(outputs))


def write_records(value: Any) -> Reply:
    """Rows as objects, as columns; raises RequestError (406)."""
    if not isinstance(value, list) or not value or not all(isinstance(row, dict) for row in value):
        raise RequestError(406, "request.not_acceptable", "the answer is no table; take JSON")
    return _written({name: [row.get(name) for row in value] for name in value[0]})


def _written(columns: Mapping[str, Sequence[Any]]) -> Reply:
    pa = _library()
    try:
        table = pa.table(dict(columns))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise RequestError(406, "request.not_acceptable", f"the answer is no table of Arrow's: {error}") from error
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Reply(sink.getvalue().to_pybytes(), ARROW)


def is_there() -> bool:
    """Whether the library was imported: it takes seconds, and must not be done on the loop's thread."""
    return _library.cache_info().currsize > 0


@cache
def _library() -> Any:
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError as error:
        raise RequestError(415, "request.media_type", "Arrow needs the package pyarrow in the image") from error
    del pyarrow
    pa.table({"": np.zeros(1)})  # the first one imports pandas too, where there is one
    return pa
