"""Tensors of the Open Inference Protocol to and from the arrays of ROWS models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from corten.core.schema import DType, Tensor
from corten.serve.job import Inputs, Reply, invalid
from corten.serve.oip_wire import BYTES, LETTERS, Given, Question, elements, joined, text_of
from corten.serve.oip_wire import Tensor as Output
from corten.serve.tensors import cast_array, has_shape
from corten.serve.values import to_json

DATATYPES: Mapping[DType, str] = {
    DType.BOOL: "BOOL",
    DType.FLOAT16: "FP16",
    DType.FLOAT32: "FP32",
    DType.FLOAT64: "FP64",
    DType.STRING: BYTES,
    DType.JSON: BYTES,
    **{kind: kind.value.upper() for kind in DType if "int" in kind.value},
}
_DATATYPES_OF_NUMPY = {np.dtype("<" + letter): name for name, letter in LETTERS.items()}


def inputs(tensors: Sequence[Tensor], question: Question, form: Callable[[Any], Reply]) -> Inputs:
    """The arrays of a request; raises RequestError for what the schema does not allow."""
    given = {one.name: one for one in question.inputs}
    names = [tensor.name for tensor in tensors]
    for name, one in given.items():
        if name not in names:
            raise invalid(f"unknown input `{name[:100]}`; known: {', '.join(names)}", f"{one.path}.name")
    if missing := [name for name in names if name not in given]:
        raise invalid(f"missing inputs: {', '.join(missing)}", "inputs")
    arrays = {tensor.name: _array(given[tensor.name], tensor) for tensor in tensors}
    counts = {array.shape[0] for array in arrays.values()}
    if len(counts) != 1:
        raise invalid(f"the inputs must have equally many rows, got {sorted(counts)}", "inputs")
    free = any(None in tensor.shape[1:] for tensor in tensors)
    shape_key = tuple(array.shape[1:] for array in arrays.values()) if free else None
    return Inputs(arrays, counts.pop(), shape_key, form)


def outputs(arrays: Mapping[str, np.ndarray], question: Question) -> list[Output]:
    """What is wanted of a model's outputs; raises RequestError for a name it does not give."""
    wanted = question.binary or dict.fromkeys(arrays, question.all_binary)
    check_wanted(wanted, arrays)
    return [_output(name, arrays[name], binary=binary) for name, binary in wanted.items()]


def check_wanted(wanted: Mapping[str, bool], known: Mapping[str, Any]) -> None:
    """Raises RequestError for an output that is not there."""
    for i, name in enumerate(wanted):
        if name not in known:
            raise invalid(f"unknown output `{name[:100]}`; known: {', '.join(known)}", f"outputs[{i}].name")


def _array(given: Given, tensor: Tensor) -> np.ndarray:
    if not has_shape(given.shape, tensor):
        expected = [-1 if size is None else size for size in tensor.shape]
        raise invalid(f"shape {list(given.shape)}, expected {expected}", f"{given.path}.shape")
    if given.count == 0:
        raise invalid("expected at least one row", f"{given.path}.shape")
    array = _texts(given, tensor) if given.datatype == BYTES else _numbers(given)
    return _cast(array, given, tensor)


def _numbers(given: Given) -> np.ndarray:
    dtype = np.dtype("<" + LETTERS[given.datatype])
    if given.text is None:
        array = np.frombuffer(given.raw, dtype).reshape(given.shape)
        # Compiled code refuses what it may not write to or what lies askew, so those, and only those, are copied.
        return np.require(array, requirements=["A", "W"])
    kind: Any = bool if dtype.kind == "b" else (float | None) if dtype.kind == "f" else int
    values = given.values(kind)
    try:
        with np.errstate(over="raise"):
            return _shaped(np.asarray(values, dtype), given)
    except (ValueError, OverflowError, TypeError, FloatingPointError) as error:
        raise invalid(f"the elements do not fit {given.datatype} of shape {list(given.shape)}", given.path) from error


def _texts(given: Given, tensor: Tensor) -> np.ndarray:
    mixed = tensor.dtype is DType.JSON
    if given.text is None:
        texts: list[Any] = [text_of(element, given) for element in elements(given)]
        values = [_value(text) for text in texts] if mixed else texts
    else:
        values = given.values(Any if mixed else str)
    # Before room is made: a shape is only a claim. And np.asarray would look into elements that are lists.
    flat = _flat(values, given.shape)
    if flat is None:
        raise invalid(f"not of shape {list(given.shape)}", given.path)
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    return array.reshape(given.shape)


def _flat(values: list[Any], shape: Sequence[int]) -> list[Any] | None:
    """The elements in a row; None when there are not as many, or not nested as the shape says."""
    if len(shape) == 1 or not isinstance(values[0] if values else None, list):
        return values if len(values) == math.prod(shape) else None
    if len(values) != shape[0]:
        return None
    for size in shape[1:]:
        if any(not isinstance(row, list) or len(row) != size for row in values):
            return None
        values = [value for row in values for value in row]
    return values


def _value(text: str) -> Any:
    """An element of a mixed tensor: JSON where it is some, else the text itself."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text


def _shaped(array: np.ndarray, given: Given) -> np.ndarray:
    if array.ndim == 1:
        return array.reshape(given.shape)
    if array.shape != given.shape:
        raise ValueError("another shape")
    return array


def _cast(array: np.ndarray, given: Given, tensor: Tensor) -> np.ndarray:
    try:
        return cast_array(array, tensor)
    except TypeError as error:
        message = f"datatype {given.datatype}, expected {DATATYPES[tensor.dtype]}"
        raise invalid(message, f"{given.path}.datatype") from error
    except FloatingPointError as error:
        raise invalid(f"the elements do not fit {DATATYPES[tensor.dtype]}", given.path) from error


def _output(name: str, array: np.ndarray, *, binary: bool) -> Output:
    datatype = _DATATYPES_OF_NUMPY.get(array.dtype)
    if datatype is None and array.dtype.kind in "biuf":  # another byte order, or longer than 64 bits
        array = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        datatype = _DATATYPES_OF_NUMPY[array.dtype]
    if datatype is None:
        texts = [_as_text(value) for value in _elements(array)]
        if binary:
            return Output(name, BYTES, array.shape, raw=joined(texts))
        return Output(name, BYTES, array.shape, to_json(texts))
    if binary:
        return Output(name, datatype, array.shape, raw=_bytes_of(array))
    return Output(name, datatype, array.shape, to_json(array.ravel().tolist()))


def _bytes_of(array: np.ndarray) -> memoryview:
    """Its elements row by row, not copied where they lie so already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _elements(array: np.ndarray) -> list[Any]:
    # Not tolist of the whole: elements that are lists stay elements.
    return list(array.ravel())


def _as_text(value: Any) -> str:
    return str(value) if isinstance(value, str) else to_json(value).decode()
