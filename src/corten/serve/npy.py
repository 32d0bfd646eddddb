"""Arrays in numpy's own format (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

Nothing is unpickled, and no room is made for more than the body holds.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from corten.core.schema import Tensor
from corten.serve.job import Inputs, RequestError, invalid, malformed
from corten.serve.tensors import cast_array, describe, has_shape

_LONGEST_HEAD = 1 << 16
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(body: bytes | bytearray, tensors: Sequence[Tensor]) -> Inputs:
    """The only input, from an array; raises RequestError. Its bytes are copied only where they must."""
    if len(tensors) != 1:
        raise RequestError(415, "request.media_type", f"one array does not make {len(tensors)} inputs; send JSON")
    tensor = tensors[0]
    array = _array(body)
    if not has_shape(array.shape, tensor):
        raise invalid(f"shape {list(array.shape)}, expected {describe(tensor)}", "")
    if array.size == 0:
        raise invalid("expected at least one row", "")
    try:
        values = cast_array(array, tensor)
    except TypeError as error:
        raise invalid(f"expected {tensor.dtype.value}, got {array.dtype}", "") from error
    except FloatingPointError as error:
        raise invalid(f"the elements do not fit {tensor.dtype.value}", "") from error
    return Inputs({tensor.name: values}, len(values), values.shape[1:] if None in tensor.shape[1:] else None)


def write_npy(outputs: Mapping[str, np.ndarray]) -> bytes:
    """The only output as an array; raises RequestError (406) where there are several, or it has no such form."""
    if len(outputs) != 1:
        names = ", ".join(outputs)
        raise RequestError(406, "request.not_acceptable", f"one array does not hold the outputs {names}; take JSON")
    (array,) = outputs.values()
    if array.dtype == object:
        if not all(isinstance(value, str) for value in array.ravel()):
            raise RequestError(406, "request.not_acceptable", "the outputs are no array of numbers or texts; take JSON")
        array = array.astype(str)
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def columns_of(outputs: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
    """The outputs as columns of a table, `name` or `name_0`, `name_1` ...; raises RequestError (406)."""
    columns: dict[str, list[Any]] = {}
    for name, array in outputs.items():
        if array.ndim == 1:
            columns[name] = array.tolist()
        elif array.ndim == 2:
            columns |= {f"{name}_{i}": array[:, i].tolist() for i in range(array.shape[1])}
        else:
            raise RequestError(406, "request.not_acceptable", f"output {name} is no table; take JSON")
    return columns


def _array(body: bytes | bytearray) -> np.ndarray:
    stream = io.BytesIO(body[:_LONGEST_HEAD])
    try:
        shape, in_columns, dtype = _READERS[np.lib.format.read_magic(stream)](stream)
    except Exception as error:  # numpy reads headers with Python's own tokenizer and parser, which raise all kinds
        raise malformed(f"not an array in npy format 1.0 or 2.0: {str(error)[:200]}") from error
    if dtype.hasobject or dtype.kind not in "biufU" or dtype.itemsize == 0:
        raise invalid(f"arrays of {str(dtype)[:100]} are not taken", "")
    start, size = stream.tell(), math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape) or len(body) - start != size:
        raise malformed(f"{len(body) - start} bytes, where shape {list(shape)} of {dtype} makes {size}")
    flat = np.frombuffer(body, dtype, offset=start) if size else np.empty(0, dtype)
    if not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    array = flat.reshape(shape[::-1]).T if in_columns else flat.reshape(shape)
    # Compiled code refuses what it may not write to or what lies askew, so those, and only those, are copied.
    return np.require(array, requirements=["A", "W"])
