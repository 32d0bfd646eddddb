"""Types that JSON and msgspec do not know: numpy's arrays, PIL's images, pandas' frames, and others' constraints.

Each is put into a signature by a stand-in, a class that says how a value of it is made of what a request has, and how
it is described. The libraries are imported when a value is made: whoever names one of their types has them.
"""

from __future__ import annotations

import base64
import binascii
import functools
import io
import operator
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union

import msgspec

from corten.adapters.arrow_tables import read_table
from corten.adapters.py_arrays import array_of

_ARROW = (b"ARROW1", b"\xff\xff\xff\xff")  # how files and streams begin
# What pydantic's `Field` and the package annotated_types call constraints, and msgspec too.
_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "title", "description")
_CONTAINERS = (list, set, frozenset, tuple, dict)


class StandIn(type):
    """The class of stand-ins. What they made is a value of theirs."""

    make: Callable[[Any], Any]
    described: Mapping[str, Any]

    def __instancecheck__(cls, value: object) -> bool:
        return True


def _stand_in(name: str, make: Callable[[Any], Any], described: Mapping[str, Any]) -> Any:
    return StandIn(name, (), {"make": staticmethod(make), "described": described})


def known(kind: Any) -> Any:
    """The same type with stand-ins in the places of those msgspec does not know."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _annotated(arguments[0], arguments[1:])
    if _is_named(origin or kind, "numpy", "ndarray"):
        return _array(arguments, None)
    if _is_named(kind, "PIL", "Image"):
        return _stand_in("Image", _image_of, IMAGE)
    if _is_named(kind, "pandas", "DataFrame"):
        return _stand_in("DataFrame", _frame_of, FRAME)
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, map(known, arguments))
    if origin in _CONTAINERS and arguments:
        return types.GenericAlias(origin, tuple(one if one is Ellipsis else known(one) for one in arguments))
    return kind


def made_of(kind: Any, value: Any) -> Any:
    """A value of a type that stands deeper, in a field of a class. Raises TypeError for a type that is not known."""
    found = known(kind)
    if isinstance(found, StandIn):
        return found.make(value)
    raise TypeError(f"`{getattr(kind, '__name__', kind)}` cannot be made from JSON")


def _is_named(kind: Any, package: str, name: str) -> bool:
    module = getattr(kind, "__module__", "")
    return isinstance(module, str) and module.partition(".")[0] == package and getattr(kind, "__name__", "") == name


def _annotated(kind: Any, metadata: Sequence[Any]) -> Any:
    shape = next((one for one in metadata if isinstance(one, tuple)), None)
    origin = typing.get_origin(kind) or kind
    if shape is not None and _is_named(origin, "numpy", "ndarray"):
        return _array(typing.get_args(kind), shape)
    found = known(kind)
    metas = [one if isinstance(one, msgspec.Meta) else _meta(one) for one in metadata]
    metas = [one for one in metas if one is not None]
    if isinstance(found, StandIn) or not metas:
        return found
    return Annotated[(found, *metas)]


def _meta(constraint: Any) -> msgspec.Meta | None:
    """A constraint in others' words as msgspec's own."""
    parts = [constraint, *getattr(constraint, "metadata", ())]
    found = {
        name: value
        for part in parts
        for name in _CONSTRAINTS
        if (value := getattr(part, name, None)) is not None and not callable(value)
    }
    try:
        return msgspec.Meta(**found) if found else None
    except (TypeError, ValueError):
        return None


# Arrays

BYTES = {"type": "string", "contentEncoding": "base64"}
IMAGE = {**BYTES, "contentMediaType": "image/*"}
IMAGE_OUT = {**BYTES, "contentMediaType": "image/png"}
FRAME = {"type": "array", "items": {"type": "object"}, "description": "Rows of a table", "x-corten-table": True}


def _array(arguments: Sequence[Any], shape: Sequence[Any] | None) -> Any:
    """`ndarray`, `NDArray[float32]`, `ndarray[tuple[int, Literal[3]], dtype[float32]]`, or with a shape beside it."""
    dtype: Any = None
    if len(arguments) == 2:
        inner = typing.get_args(arguments[1])
        dtype = inner[0] if inner and isinstance(inner[0], type) else None
        sizes = typing.get_args(arguments[0])
        if shape is None and sizes and Ellipsis not in sizes and Any not in sizes:
            shape = [_size(size) for size in sizes]
    name = getattr(dtype, "__name__", "")
    lengths = None if shape is None else tuple(None if size in (None, -1, Ellipsis) else int(size) for size in shape)
    return _stand_in("Array", lambda value: array_of(value, name, lengths), _described(name, lengths))


def _size(kind: Any) -> int | None:
    literal = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return literal[0] if literal and isinstance(literal[0], int) else None


def _described(dtype: str, shape: Sequence[int | None] | None) -> dict[str, Any]:
    element: dict[str, Any] = {}
    if "float" in dtype:
        element = {"type": ["number", "null"]}
    elif "int" in dtype:
        element = {"type": "integer"}
    elif "bool" in dtype:
        element = {"type": "boolean"}
    elif dtype.startswith("str"):
        element = {"type": "string"}
    note = {"x-corten-dtype": dtype} if dtype else {}
    if shape is None:
        return {"type": "array", **note}
    for size in reversed(shape):
        bounds = {} if size is None else {"minItems": size, "maxItems": size}
        element = {"type": "array", "items": element, **bounds}
    return {**element, **note}


# Images and frames


def bytes_of(value: Any) -> bytes:
    """Bytes as they are, as base64, or in a `data:` URI; raises ValueError."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise ValueError("expected base64")  # noqa: TRY004 - what becomes a 422 with its path
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("expected base64") from error


def _image_of(value: Any) -> Any:
    from PIL import Image, UnidentifiedImageError

    content = bytes_of(value)
    try:
        image = Image.open(io.BytesIO(content))
        image.load()  # now, and not when somebody looks: a file that is cut off is the caller's fault
    except Image.DecompressionBombError as error:
        raise ValueError(f"too large an image: {error}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError("expected an image (PNG, JPEG ...)") from error
    return image


def _frame_of(value: Any) -> Any:
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return _frame_of_file(bytes(value))
    try:
        if isinstance(value, list) and all(isinstance(row, dict) for row in value):
            return pd.DataFrame(value)
        if isinstance(value, dict) and value.keys() == {"columns", "data"}:
            return pd.DataFrame(value["data"], columns=value["columns"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"not a table: {error}") from error
    raise ValueError('expected rows as objects, or {"columns": [...], "data": [[...], ...]}')


def _frame_of_file(content: bytes) -> Any:
    import pandas as pd

    try:
        if content.startswith(_ARROW):
            return read_table(content).to_pandas()
        return pd.read_csv(io.BytesIO(content))
    except ImportError as error:
        raise ValueError("Arrow needs the package pyarrow in the image") from error
    except Exception as error:  # what a table's own metadata says of its index raises all kinds
        raise ValueError(f"not a table: {str(error)[:200]}") from error


def plain_of(value: Any) -> Any:
    """A result of one of these types as JSON values; raises TypeError for others."""
    if _is_image(value):
        stream = io.BytesIO()
        value.save(stream, "PNG")
        return base64.b64encode(stream.getvalue()).decode()
    if _is_named(type(value), "pandas", "DataFrame"):
        return value.to_dict("records")
    raise TypeError(f"`{type(value).__name__}` has no form in JSON")


def _is_image(value: Any) -> bool:
    # Images are of subclasses (`PngImageFile`) as often as not.
    return any(_is_named(base, "PIL", "Image") for base in type(value).__mro__)


def described_result(kind: Any) -> Any:
    """As `known`, for what is given back: an image is a PNG then."""
    found = known(kind)
    return (
        _stand_in("Image", _image_of, IMAGE_OUT) if isinstance(found, StandIn) and found.described is IMAGE else found
    )
