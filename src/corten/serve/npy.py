"""Arrays in numpy's own format, in and out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from corten.adapters.npy_arrays import read_array
from corten.core.schema import Tensor
from corten.serve.job import Inputs, RequestError, invalid, malformed
from corten.serve.tensors import cast_array, describe, has_shape

_KINDS = "biufU"


def read_npy(body: bytes | bytearray, tensors: Sequence[Tensor]) -> Inputs:
    """The only input, from an array; raises RequestError. Its bytes are copied only where they must."""
    if len(tensors) != 1:
        raise RequestError(415, "request.media_type", f"one array does not make {len(tensors)} inputs; send JSON")
    tensor = tensors[0]
    try:
        array = read_array(body)
    except TypeError as error:
        raise invalid(str(error), "") from error
    except ValueError as error:
        raise malformed(str(error)) from error
    if array.dtype.kind not in _KINDS:
        raise invalid(f"arrays of {array.dtype} are not taken", "")
    if not has_shape(array.shape, tensor):
        raise invalid(f"shape {list(array.shape)}, expected {describe(tensor)}", "")
    if array.size == 0:
        raise invalid("expected at least one row", "")
    try:
        values = cast_array(array, tensor)
    except (TypeError, ValueError) as error:  # a text may hold what is no character
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
