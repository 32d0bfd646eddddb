"""JSON values to numpy arrays, checked against a tensor's dtype and shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from corten.core.schema import DType, Tensor
from corten.serve.job import RequestError, invalid

# Finding the first wrong element in Python is for people's mistakes; hostile bodies get the plain message.
_MOST_SEARCHED = 100_000

_NUMPY: dict[DType, Any] = {
    DType.STRING: np.dtype(object),
    DType.JSON: np.dtype(object),
    **{kind: np.dtype(kind.value) for kind in DType if kind not in {DType.STRING, DType.JSON}},
}
FLOATS = frozenset({DType.FLOAT16, DType.FLOAT32, DType.FLOAT64})


def numpy_dtype(tensor: Tensor) -> Any:
    """The dtype its arrays have; strings are objects, as pandas and scikit-learn expect."""
    return _NUMPY[tensor.dtype]


def json_type(dtype: DType) -> Any:
    """The Python type msgspec is to check elements for. A missing number (null) is NaN."""
    if dtype in FLOATS:
        return float | None
    if dtype is DType.BOOL:
        return bool
    if dtype is DType.STRING:
        return str
    return Any if dtype is DType.JSON else int


def to_array(values: Sequence[Any], tensor: Tensor, path: str) -> np.ndarray:
    """The array of a tensor's JSON value; raises RequestError naming the element that does not fit."""
    if tensor.dtype is DType.JSON:
        return _of_objects(values, tensor, path)
    try:
        with np.errstate(over="raise"):  # 1e300 does not fit float32, and infinity is not what was asked
            array = np.asarray(values, dtype=_NUMPY[tensor.dtype])
    except (ValueError, OverflowError, TypeError, FloatingPointError) as error:
        raise _first_wrong(values, tensor, path) from error
    if not has_shape(array.shape, tensor):
        raise _first_wrong(values, tensor, path)
    if array.shape[0] == 0:
        raise invalid("expected at least one row", path)
    return array


def has_shape(shape: Sequence[int], tensor: Tensor) -> bool:
    """Whether lengths are those of the tensor, free ones aside."""
    return len(shape) == len(tensor.shape) and not any(
        wanted is not None and wanted != seen for wanted, seen in zip(tensor.shape, shape, strict=True)
    )


def cast_array(array: np.ndarray, tensor: Tensor) -> np.ndarray:
    """An array that came as one, in the tensor's dtype; the same array where it has it already.

    Raises TypeError for another kind (a number is no text, a fraction no integer), FloatingPointError for what is too
    large.
    """
    wanted = _NUMPY[tensor.dtype]
    if array.dtype == wanted:
        return array
    if tensor.dtype is DType.JSON or (tensor.dtype is DType.STRING and array.dtype.kind == "U"):
        return array.astype(object)
    if "O" in {array.dtype.kind, wanted.kind} or not np.can_cast(array.dtype, wanted, "same_kind"):
        raise TypeError(f"{array.dtype} for {tensor.dtype.value}")
    with np.errstate(over="raise"):
        return array.astype(wanted)


def blank_array(tensor: Tensor) -> np.ndarray:
    """Zeros (or empty strings) of the tensor's shape, 1 for free lengths."""
    shape = tuple(1 if size is None else size for size in tensor.shape)
    if tensor.dtype is DType.STRING:
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, dtype=_NUMPY[tensor.dtype])


def _of_objects(values: Sequence[Any], tensor: Tensor, path: str) -> np.ndarray:
    # np.asarray would look into lists that are elements, so rows (and columns) are filled in one by one.
    if not values:
        raise invalid("expected at least one row", path)
    if len(tensor.shape) == 1:
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
        return array
    columns = tensor.shape[1] if tensor.shape[1] is not None else _length(values[0])
    array = np.empty((len(values), columns or 0), dtype=object)
    for i, row in enumerate(values):
        if not isinstance(row, list | tuple) or len(row) != columns:
            raise invalid(f"expected a list of {columns} values", f"{path}[{i}]")
        for j, cell in enumerate(row):
            array[i, j] = cell
    return array


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list | tuple) else -1


def _first_wrong(values: Sequence[Any], tensor: Tensor, path: str) -> RequestError:
    """Walk the value to say which element does not fit. The slow path: only for what was refused."""
    search = _Search(tensor)
    return search.within(values, 0, path) or invalid(f"expected {describe(tensor)}", path)


class _Search:
    """Looks for the first element that does not fit, in the order of the text, and not for ever."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.free_lengths: dict[int, int] = {}
        self.searched = 0

    def within(self, value: Any, depth: int, place: str) -> RequestError | None:
        """The first misfit in a value `depth` dimensions down; None when there is none, or too much to search."""
        self.searched += 1
        if depth == len(self.tensor.shape):
            reason = _misfit(value, self.tensor)
            return invalid(reason, place) if reason is not None else None
        if not isinstance(value, list | tuple):
            return invalid(f"expected a list, got {_name(value)}", place)
        wanted = self.tensor.shape[depth]
        if wanted is None:
            # A free length is free for the request, but the same everywhere in it.
            wanted = self.free_lengths.setdefault(depth, len(value))
        if len(value) != wanted:
            return invalid(f"expected {wanted} {_things(depth, self.tensor)}, got {len(value)}", place)
        for i, item in enumerate(value):
            if self.searched >= _MOST_SEARCHED:
                break
            if (found := self.within(item, depth + 1, f"{place}[{i}]")) is not None:
                return found
        return None


def _misfit(value: Any, tensor: Tensor) -> str | None:
    if isinstance(value, list | tuple | dict):
        return f"expected a value, got {_name(value)}"
    try:
        with np.errstate(over="raise"):
            np.asarray(value, dtype=_NUMPY[tensor.dtype])
    except (OverflowError, FloatingPointError):
        return f"{str(value)[:40]} does not fit {tensor.dtype.value}"
    except (ValueError, TypeError):
        return f"expected {tensor.dtype.value}, got {_name(value)}"
    return None


def _things(depth: int, tensor: Tensor) -> str:
    if depth == 0:
        return "rows"
    return "values" if depth == len(tensor.shape) - 1 else "lists"


def _name(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    names = {list: "a list", tuple: "a list", dict: "an object", str: "a string", type(None): "null"}
    return names.get(type(value), "a number")


def describe(tensor: Tensor) -> str:
    """`float32 rows of 64 values` and the like, for messages."""
    inner = " x ".join("any" if size is None else str(size) for size in tensor.shape[1:])
    return f"{tensor.dtype.value} rows of {inner} values" if inner else f"a list of {tensor.dtype.value}"
