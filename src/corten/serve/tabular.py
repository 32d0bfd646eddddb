"""Tables (CSV, data frames as JSON) to what `/predict` takes: a body for ROWS models, arguments for CALL models."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from corten.core.schema import DType, Schema, Tensor
from corten.serve.job import RequestError, invalid, malformed
from corten.serve.values import to_json

_FLAGS = {"true": True, "false": False, "1": True, "0": False}
_NAMELESS = "one without a name (as pandas writes its index; to_csv(index=False) leaves it out)"
_Cell = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in the order of `columns`; no columns where the text has no header. `path` is its place in the request."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    path: str


def read_csv(body: bytes | bytearray) -> Table:
    """Comma-separated values as RFC 4180 has them; raises RequestError.

    The first line is the header, unless it is all numbers. Cells are texts still.
    """
    try:
        text = bytes(body).decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise malformed(f"not CSV: {error}") from error
    if not lines:
        raise malformed("not CSV: no lines")
    header = () if all(_is_number(cell) for cell in lines[0]) else tuple(cell.strip() for cell in lines[0])
    rows = lines[1:] if header else lines
    for i, row in enumerate(rows):
        if len(row) != len(lines[0]):
            raise invalid(f"{len(row)} cells, where the first line has {len(lines[0])}", f"rows[{i}]")
    return _checked(Table(header, rows, "rows"))


def of_split(columns: Sequence[str], rows: Sequence[Sequence[Any]], path: str) -> Table:
    """A table from its columns' names and its rows; raises RequestError when they do not fit each other."""
    for i, row in enumerate(rows):
        if columns and len(row) != len(columns):
            raise invalid(f"{len(row)} values for {len(columns)} columns", f"{path}[{i}]")
    return _checked(Table(tuple(columns), rows, path))


def of_records(records: Sequence[Mapping[str, Any]], path: str) -> Table:
    """A table from objects with equal keys; raises RequestError."""
    columns = tuple(records[0]) if records else ()
    for i, record in enumerate(records):
        if record.keys() != set(columns):
            raise invalid("expected the same keys as in the first", f"{path}[{i}]")
    return _checked(Table(columns, [[record[column] for column in columns] for record in records], path))


def body_of(table: Table, schema: Schema, *, texts: bool) -> bytes:
    """The table as a body of `/predict` for a ROWS model; `texts`: its cells are texts still. Raises RequestError."""
    tensors = schema.inputs
    names = [tensor.name for tensor in tensors] if len(tensors) > 1 else list(tensors[0].columns)
    order = _order(table, names)
    kinds = _spread(tensors, len(order))
    rows = [[row[at] for at in order] for row in table.rows]
    if texts:
        cells = [_cell(kind) for kind in kinds]
        rows = [
            [_typed(cell, text, table, i, at) for cell, text, at in zip(cells, row, order, strict=True)]
            for i, row in enumerate(rows)
        ]
    if len(tensors) == 1:
        flat = len(tensors[0].shape) == 1
        return msgspec.json.encode({"inputs": [row[0] for row in rows] if flat and len(order) == 1 else rows})
    columns = {
        tensor.name: [row[i] for row in rows] if len(tensor.shape) == 1 else [[row[i]] for row in rows]
        for i, tensor in enumerate(tensors)
    }
    return msgspec.json.encode({"inputs": columns})


def calls_of(table: Table, schema: Schema, *, texts: bool) -> list[dict[str, Any]]:
    """The table as calls, a row each; an empty cell of a text table leaves the argument out. Raises RequestError."""
    if not table.columns:
        raise invalid("a header with the names of the arguments is needed", table.path)
    if not texts:
        return [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    kinds = {parameter.name: parameter.json_schema.get("type") for parameter in schema.parameters}
    cells = [_json_cell(kinds.get(name)) for name in table.columns]
    return [
        {
            name: _typed(cell, text, table, i, at)
            for at, (name, cell, text) in enumerate(zip(table.columns, cells, row, strict=True))
            if text or kinds.get(name) == "string"
        }
        for i, row in enumerate(table.rows)
    ]


def _checked(table: Table) -> Table:
    if len(set(table.columns)) != len(table.columns):
        raise invalid("the same column twice", table.path)
    if not table.rows:
        raise invalid("expected at least one row", table.path)
    return table


def _order(table: Table, names: Sequence[str]) -> list[int]:
    """Where in a row the model's columns are; a model without names takes them as they come."""
    if not names or not table.columns:
        return list(range(len(table.rows[0])))
    if missing := [name for name in names if name not in table.columns]:
        raise invalid(f"missing columns: {', '.join(missing)[:500]}", table.path)
    if unknown := [name for name in table.columns if name not in names]:
        raise invalid(f"unknown columns: {', '.join(name or _NAMELESS for name in unknown)[:500]}", table.path)
    return [table.columns.index(name) for name in names]


def _spread(tensors: Sequence[Tensor], width: int) -> list[DType]:
    if len(tensors) == 1:
        return [tensors[0].dtype] * width
    if width != len(tensors) or any(tensor.shape[1:] not in {(), (1,)} for tensor in tensors):
        raise invalid(f"a table of {width} columns does not make {len(tensors)} inputs", "")
    return [tensor.dtype for tensor in tensors]


def _cell(kind: DType) -> _Cell:
    if kind is DType.STRING:
        return str
    if kind is DType.JSON:
        return _any
    if kind is DType.BOOL:
        return _flag
    return _float if kind.value.startswith("float") else int


def _json_cell(kind: object) -> _Cell:
    known: dict[object, _Cell] = {"string": str, "number": _float, "integer": int, "boolean": _flag}
    return known.get(kind, _any)


def _typed(cell: _Cell, text: str, table: Table, row: int, column: int) -> Any:
    try:
        return cell(text)
    except ValueError as error:
        name = table.columns[column] if table.columns else str(column)
        raise _not_a_cell(text, f"{table.path}[{row}].{name}") from error


def _not_a_cell(text: str, path: str) -> RequestError:
    return invalid(f"`{text[:100]}` is not of the column's type", path)


def _float(text: str) -> float | None:
    """An empty cell and nan are a missing number."""
    number = float(text) if text.strip() else math.nan
    if math.isinf(number):
        raise ValueError(text)
    return None if math.isnan(number) else number


def _flag(text: str) -> bool:
    found = _FLAGS.get(text.strip().lower())
    if found is None:
        raise ValueError(text)
    return found


def _any(text: str) -> Any:
    """A cell of unknown type: nothing, a number, or the text it is."""
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        return _float(text) if _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) or text.strip().lower() == "nan"
    except ValueError:
        return not text.strip()


def write_csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """A table with a header; missing numbers are empty, what is neither number nor text is JSON."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(columns)
    writer.writerows(zip(*([_written(value) for value in column] for column in columns.values()), strict=True))
    return stream.getvalue().encode()


def _written(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return "" if value is None else to_json(value).decode()
    return value
