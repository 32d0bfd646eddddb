"""ROWS models: JSON to arrays, one call of the model for many requests, arrays to JSON.

Three forms of the same request are understood: rows (`[[1, 2], ...]`), rows by input (`{"x": [[1, 2], ...]}`) and
records (`[{"age": 1, "height": 2}, ...]`) for models with named columns, or with one value a row for each input.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from corten.adapters.base import RowsModel
from corten.core.schema import DType, Schema, Tensor
from corten.serve.decoding import UNREADABLE, unread
from corten.serve.job import (
    LARGE_BYTES,
    Inputs,
    ModelOutputError,
    Observer,
    Outcome,
    Reply,
    RequestError,
    Result,
    invalid,
)
from corten.serve.pieces import PieceReader
from corten.serve.tensors import FLOATS, blank_array, json_type, numpy_dtype, to_array
from corten.serve.values import to_json, to_json_lines

if TYPE_CHECKING:
    import asyncio

    from corten.serve.sink import Sink

_BEFORE = b'{"outputs":'
# Of struct; a float that has no place in its type is an OverflowError there.
_LETTERS = {DType.FLOAT16: "e", DType.FLOAT32: "f", DType.FLOAT64: "d"}
_NOT_PACKED = (struct.error, OverflowError, TypeError)
# Python's numbers take four times the room of an array's: large answers are never wholly in that form.
_MOST_LISTED_ROWS = 4096


class RowsRunner:
    """A RowsModel as a Runner."""

    abilities: Collection[str] = ()
    pinned = False
    loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, model: RowsModel) -> None:
        self.observer: Observer | None = None
        self.schema: Schema = model.schema
        self._model = model
        self._tensors = model.schema.inputs
        # A fixed first dimension is a model exported for one batch size: nothing may be joined for it.
        self.joinable = all(tensor.shape[0] is None for tensor in self._tensors)
        self._record_keys = _record_keys(self._tensors)
        row = _row(self._tensors, self._record_keys)
        self._read = _decoder(self._tensors, row).decode
        self._pieces = PieceReader(self._tensors, row, self._of_list)
        self._free = any(None in tensor.shape[1:] for tensor in self._tensors)
        self._pack = _row_packer(self._tensors)
        self._width = self._tensors[0].shape[-1] or 0 if self._pack else 0

    def decode(self, body: bytes | bytearray) -> Inputs:
        """See Runner."""
        if len(body) >= LARGE_BYTES and (pieces := self._pieces.read(body)) is not None:
            return self._inputs(pieces)
        try:
            given = self._read(body).inputs
        except UNREADABLE as error:
            raise unread(error) from error
        if type(given) is list:
            if given and (pack := self._pack) is not None:
                # An array's bytes now, one array for the whole batch later: costs less than one for each request.
                try:
                    if len(given) == 1:
                        return Inputs(pack(*given[0]))
                    return Inputs(b"".join([pack(*row) for row in given]), len(given))
                except _NOT_PACKED:
                    pass  # records, missing values, a wrong length or a number too large: seen to below
            arrays = self._of_list(given)
        else:
            fields = zip(self._tensors, msgspec.structs.astuple(given), strict=True)
            arrays = {tensor.name: to_array(values, tensor, _below(tensor.name)) for tensor, values in fields}
        return self._inputs(arrays)

    def _inputs(self, arrays: Mapping[str, np.ndarray]) -> Inputs:
        counts = {array.shape[0] for array in arrays.values()}
        if len(counts) != 1:
            raise invalid(f"the inputs must have equally many rows, got {sorted(counts)}", "inputs")
        shape_key = tuple(array.shape[1:] for array in arrays.values()) if self._free else None
        return Inputs(arrays, counts.pop(), shape_key)

    def run(self, batch: Sequence[Inputs]) -> Outcome:
        """See Runner. A batch that fails is done again one by one, so that one bad request fails alone."""
        start_s = time.perf_counter()
        results: Sequence[Result]
        if len(batch) == 1:
            results = [self._alone(batch[0])]
        else:
            try:
                results = self._together(batch)
            except Exception:
                results = [self._alone(inputs) for inputs in batch]
        return Outcome(results, time.perf_counter() - start_s)

    async def answer(self, inputs: Inputs) -> Result:
        """See Runner. Arrays are computed, not waited for."""
        return self.run([inputs]).results[0]

    def streamed(self, inputs: Inputs, sink: Sink) -> Inputs:
        """See Runner. Rows come whole."""
        raise NotImplementedError

    def start(self) -> None:
        """See Runner."""

    def blank(self) -> Inputs | None:
        """See Runner."""
        if not self._tensors:
            return None
        arrays = {tensor.name: blank_array(tensor) for tensor in self._tensors}
        return Inputs(arrays, next(iter(arrays.values())).shape[0])

    def text(self, outputs: Mapping[str, np.ndarray]) -> bytes:
        """See Runner."""
        return _answer_alone(outputs)[len(_BEFORE) : -1]

    def _of_list(self, given: list[Any]) -> Mapping[str, np.ndarray]:
        record_keys = self._record_keys
        if record_keys and given and not isinstance(given[0], list):
            for i, record in enumerate(given):
                if isinstance(record, list):
                    raise invalid("expected an object like the ones before it, got a list", f"inputs[{i}]")
            return self._of_records([msgspec.structs.astuple(record) for record in given])
        if len(self._tensors) != 1:
            names = ", ".join(tensor.name for tensor in self._tensors)
            raise invalid(f"expected an object with the inputs {names}", "inputs")
        for i, row in enumerate(given):
            if isinstance(row, msgspec.Struct):
                raise invalid("expected a list like the ones before it, got an object", f"inputs[{i}]")
        tensor = self._tensors[0]
        return {tensor.name: to_array(given, tensor, "inputs")}

    def _of_records(self, rows: list[tuple[Any, ...]]) -> dict[str, np.ndarray]:
        if len(self._tensors) == 1:
            tensor = self._tensors[0]
            return {tensor.name: to_array(rows, tensor, "inputs")}
        arrays = {}
        for i, tensor in enumerate(self._tensors):
            column = [row[i] for row in rows] if len(tensor.shape) == 1 else [[row[i]] for row in rows]
            arrays[tensor.name] = to_array(column, tensor, f"inputs[...].{tensor.name}")
        return arrays

    def _together(self, batch: Sequence[Inputs]) -> Sequence[Result]:
        outputs = self._call(self._joined(batch), sum([inputs.rows for inputs in batch]))
        plain = [inputs.form is None for inputs in batch]
        if all(plain):
            return _answers(outputs, batch)
        lists = {name: array.tolist() for name, array in outputs.items()} if any(plain) else {}
        results: list[Result] = []
        start = 0
        for inputs in batch:
            end = start + inputs.rows
            if inputs.form is None:
                results.append(_answer(lists, start, end))
            else:
                results.append(_formed(inputs.form, {name: array[start:end] for name, array in outputs.items()}))
            start = end
        return results

    def _joined(self, batch: Sequence[Inputs]) -> Mapping[str, np.ndarray]:
        values = [inputs.values for inputs in batch]
        if set(map(type, values)) == {bytes}:
            return self._unpacked(values)
        parts = [self.arrays(value) for value in values]
        return {tensor.name: np.concatenate([part[tensor.name] for part in parts]) for tensor in self._tensors}

    def arrays(self, values: Mapping[str, np.ndarray] | bytes) -> Mapping[str, np.ndarray]:
        """What `decode` gave as arrays, by input name."""
        return self._unpacked([values]) if isinstance(values, bytes) else values

    def _unpacked(self, values: Sequence[bytes]) -> Mapping[str, np.ndarray]:
        """One array of what was packed, in memory that may be written to, as models do."""
        tensor = self._tensors[0]
        array = np.frombuffer(bytearray().join(values), dtype=numpy_dtype(tensor))
        return {tensor.name: array.reshape(-1, self._width)}

    def _alone(self, inputs: Inputs) -> Result:
        arrays = self.arrays(inputs.values)
        try:
            outputs = self._call(arrays, inputs.rows)
            return _answer_alone(outputs) if inputs.form is None else inputs.form(outputs)
        except ValueError as error:
            # Many models take no missing values and say so by ValueError; that is the request's fault.
            return _refused(error) if type(error) is ValueError and self._misses_values(arrays) else error
        except BaseException as error:
            return error

    def _call(self, values: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        outputs = self._model.run(values)
        arrays = {}
        for name, output in outputs.items():
            array = np.asarray(output)
            if array.ndim == 0 or array.shape[0] != rows:
                raise ModelOutputError(f"output {name!r} has shape {array.shape} for {rows} rows")
            if array.dtype.kind == "S":
                array = np.char.decode(array, "utf-8", "replace")
            arrays[name] = array
        if not arrays:
            raise ModelOutputError("the model gave no outputs")
        if self.observer is not None:
            self.observer(values, arrays, rows)
        return arrays

    def _misses_values(self, arrays: Mapping[str, np.ndarray]) -> bool:
        return any(tensor.dtype in FLOATS and bool(np.isnan(arrays[tensor.name]).any()) for tensor in self._tensors)


def _formed(form: Callable[[Any], Reply], outputs: Mapping[str, np.ndarray]) -> Result:
    """A form that fails, fails its own request."""
    try:
        return form(outputs)
    except Exception as error:
        return error


def _answers(outputs: Mapping[str, np.ndarray], batch: Sequence[Inputs]) -> Sequence[bytes]:
    """The bodies for the rows of each, encoded in one go."""
    lists = {name: array.tolist() for name, array in outputs.items()}
    counts = [inputs.rows for inputs in batch]
    if len(lists) == 1 and counts.count(1) == len(counts):
        (rows,) = lists.values()
        return to_json_lines([{"outputs": [row]} for row in rows])
    ends = list(accumulate(counts))
    spans = list(zip([0, *ends], ends, strict=False))
    if len(lists) == 1:
        (rows,) = lists.values()
        return to_json_lines([{"outputs": rows[start:end]} for start, end in spans])
    named = [{name: rows[start:end] for name, rows in lists.items()} for start, end in spans]
    return to_json_lines([{"outputs": outputs} for outputs in named])


def _answer(outputs: Mapping[str, list[Any]], start: int, end: int) -> bytes:
    """The body for some rows: the only output, or all by name."""
    if len(outputs) == 1:
        (rows,) = outputs.values()
        return to_json({"outputs": rows[start:end]})
    return to_json({"outputs": {name: rows[start:end] for name, rows in outputs.items()}})


def _answer_alone(outputs: Mapping[str, np.ndarray]) -> bytes:
    """The same body for all rows, made in parts when there are many."""
    rows = len(next(iter(outputs.values())))
    if rows <= _MOST_LISTED_ROWS:
        return _answer({name: array.tolist() for name, array in outputs.items()}, 0, rows)
    # All parts are joined once: a body of some dozen megabytes is not to be there twice.
    if len(outputs) == 1:
        return b"".join([_BEFORE, *_parts(next(iter(outputs.values()))), b"}"])
    named = (part for name, array in outputs.items() for part in (b",", to_json(name), b":", *_parts(array)))
    return b"".join([_BEFORE, b"{", *islice(named, 1, None), b"}}"])


def _parts(array: np.ndarray) -> Iterator[bytes]:
    """A JSON array, some rows at a time."""
    for start in range(0, len(array), _MOST_LISTED_ROWS):
        yield b"," if start else b"["
        yield to_json(array[start : start + _MOST_LISTED_ROWS].tolist())[1:-1]
    yield b"]"


def _row_packer(tensors: Sequence[Tensor]) -> Callable[..., bytes] | None:
    """Makes a row's bytes of its values when rows of floats are all the model takes: the checks left are struct's."""
    if len(tensors) != 1 or len(tensors[0].shape) != 2 or tensors[0].shape[0] is not None:
        return None
    width, letter = tensors[0].shape[1], _LETTERS.get(tensors[0].dtype)
    # `=`: native formats take a float beyond float32 for infinity.
    return struct.Struct(f"={width}{letter}").pack if width and letter else None


def _refused(error: ValueError) -> RequestError:
    return invalid(f"the model does not take missing values: {str(error)[:500]}", "inputs")


def _below(name: str) -> str:
    return f"inputs.{name}"


def _record_keys(tensors: Sequence[Tensor]) -> tuple[str, ...]:
    """The keys of a record, empty when the model cannot be asked that way."""
    if len(tensors) == 1 and tensors[0].columns and len(tensors[0].shape) == 2:
        return tensors[0].columns
    one_a_row = all(tensor.shape[1:] in {(), (1,)} for tensor in tensors)
    return tuple(tensor.name for tensor in tensors) if len(tensors) > 1 and one_a_row else ()


def _decoder(tensors: Sequence[Tensor], row: Any) -> msgspec.json.Decoder[Any]:
    """A decoder for `{"inputs": ...}` in every form these tensors allow; msgspec checks the element types."""
    by_input = _struct("Inputs", [(tensor.name, list[_nested(tensor)]) for tensor in tensors])  # type: ignore[misc]
    body = msgspec.defstruct("Body", [("inputs", list[row] | by_input)], forbid_unknown_fields=True)
    return msgspec.json.Decoder(body)


def _row(tensors: Sequence[Tensor], record_keys: tuple[str, ...]) -> Any:
    """The type of one row, in the forms these tensors allow."""
    row: Any = _nested(tensors[0]) if len(tensors) == 1 else Any
    if record_keys:
        types = [tensors[0]] * len(record_keys) if len(tensors) == 1 else tensors
        record = _struct("Record", [(key, json_type(t.dtype)) for key, t in zip(record_keys, types, strict=True)])
        row = record if len(tensors) > 1 else row | record
    return row


def _struct(name: str, fields: Sequence[tuple[str, Any]]) -> Any:
    # Names of inputs and columns need not be Python identifiers, so fields are numbered and renamed.
    numbered = [(f"field_{i}", kind) for i, (_, kind) in enumerate(fields)]
    rename = {f"field_{i}": key for i, (key, _) in enumerate(fields)}
    return msgspec.defstruct(name, numbered, rename=rename, forbid_unknown_fields=True)


def _nested(tensor: Tensor) -> Any:
    kind: Any = json_type(tensor.dtype)
    for _ in tensor.shape[1:]:
        kind = list.__class_getitem__(kind)
    return kind
