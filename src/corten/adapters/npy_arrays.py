"""Arrays in numpy's own format (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), from anybody.

Nothing is unpickled, and no room is made for more than the body holds: `numpy.load` would make it for whatever the head
claims, and takes archives too.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_LONGEST_HEAD = 1 << 16
_KINDS = "biufcSUmM"  # numbers, texts, times


def read_array(body: bytes | bytearray) -> np.ndarray:
    """The array of a body, whose bytes are copied only where they must.

    Raises ValueError for what is none, TypeError for one of objects or records.
    """
    import numpy as np

    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    stream = io.BytesIO(body[:_LONGEST_HEAD])
    try:
        shape, in_columns, dtype = readers[np.lib.format.read_magic(stream)](stream)
    except Exception as error:  # numpy reads headers with Python's own tokenizer and parser, which raise all kinds
        raise ValueError(f"not an array in npy format 1.0 or 2.0: {str(error)[:200]}") from error
    if dtype.hasobject or dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise TypeError(f"arrays of {str(dtype)[:100]} are not taken")
    start, size = stream.tell(), math.prod(shape) * dtype.itemsize
    if any(length < 0 for length in shape) or len(body) - start != size:
        raise ValueError(f"{len(body) - start} bytes, where shape {list(shape)} of {dtype} makes {size}")
    flat = np.frombuffer(body, dtype, offset=start) if size else np.empty(0, dtype)
    if not flat.dtype.isnative:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    array = flat.reshape(shape[::-1]).T if in_columns else flat.reshape(shape)
    # Compiled code refuses what it may not write to or what lies askew, so those, and only those, are copied.
    return np.require(array, requirements=["A", "W"])
