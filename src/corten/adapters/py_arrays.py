"""Arguments that are arrays: made of nested lists or of numpy's files, checked, cast without loss.

What does not fit is a ValueError whose text ends with the place of the first element that does not (`py_places`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from corten.adapters.npy_arrays import read_array
from corten.adapters.py_places import placed

_Shape = Sequence[int | None] | None


def array_of(value: Any, dtype: str, shape: _Shape) -> Any:
    """The array of a value; `dtype` is numpy's name or empty for any, `shape` has None for free lengths."""
    try:
        return _array_of(value, dtype, shape)
    except ValueError as error:
        place, inner = _first_wrong(value, dtype, shape, error)
        raise ValueError(placed(str(inner), place)) from error


def _first_wrong(value: Any, dtype: str, shape: _Shape, error: ValueError) -> tuple[str, ValueError]:
    """The place of the innermost value that does not fit by itself, and what is wrong with it."""
    place = ""
    while isinstance(value, list) and value and (shape is None or len(shape)):
        rest = None if shape is None else [None, *shape[1:]]
        low, high = 0, len(value)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _error(value[low:middle], dtype, rest) else (middle, high)
        inner = _error(value[low], dtype, None if shape is None else shape[1:])
        if inner is None:
            break  # each fits, but not beside the others
        value, shape, error, place = value[low], None if shape is None else shape[1:], inner, f"{place}[{low}]"
    return place, error


def _error(value: Any, dtype: str, shape: _Shape) -> ValueError | None:
    try:
        _array_of(value, dtype, shape)
    except ValueError as error:
        return error
    return None


def _array_of(value: Any, dtype: str, shape: _Shape) -> Any:
    import numpy as np

    array = _of_file(value) if isinstance(value, bytes | bytearray | memoryview) else _of_lists(value, dtype)
    wanted = f"{dtype or 'any'} of shape {[-1 if size is None else size for size in shape or ()]}"
    if shape is not None and (
        array.ndim != len(shape) or any(size not in (None, have) for size, have in zip(shape, array.shape, strict=True))
    ):
        raise ValueError(f"expected {wanted}, got shape {list(array.shape)}")
    if not dtype or array.dtype == np.dtype(dtype):
        return array
    target = np.dtype(dtype)
    if not np.can_cast(array.dtype, target, "same_kind") and not (array.dtype.kind == "i" and target.kind == "u"):
        raise ValueError(f"expected {target.name}, got {_words(array)}")
    try:
        with np.errstate(over="raise"):  # 1e300 is no float32, and infinity is not what was asked
            cast = array.astype(target)
    except FloatingPointError as error:
        raise ValueError(f"an element does not fit {target.name}") from error
    if target.kind in "iu" and not (cast == array).all():
        raise ValueError(f"an element does not fit {target.name}")
    return cast


def _of_file(content: bytes | bytearray | memoryview) -> Any:
    try:
        return read_array(bytes(content))
    except TypeError as error:
        raise ValueError(str(error)) from error


def _words(array: Any) -> str:
    return "text" if array.dtype.kind == "U" else str(array.dtype)


def _of_lists(value: Any, dtype: str) -> Any:
    import numpy as np

    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise ValueError("expected lists of equal lengths") from error
    if array.dtype.kind == "O" and "float" in dtype:
        # A missing number (null) is NaN; texts are not numbers, whatever they say.
        if any(isinstance(one, str | list | dict) for one in array.ravel()):
            raise ValueError("expected numbers")
        return array.astype(np.float64)
    if array.dtype.kind == "O" and dtype != "object_":
        raise ValueError("expected numbers, or texts, of one kind")
    if array.size == 0 and dtype:
        return array.astype(np.dtype(dtype))
    return array
