"""Python and numpy values to JSON bytes. NaN and infinities become null: JSON has no form for them (RFC 8259, 6).

Floats are exact: a float32 is written as the float64 of the same value (0.1 becomes 0.10000000149011612), so whoever
parses it gets the very number the model gave, whatever precision they parse to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


def to_json(value: Any) -> bytes:
    """Encode; raises TypeError, ValueError or OverflowError for what has no form in JSON."""
    try:
        return _encode(value)
    except (TypeError, RecursionError):
        # Mapping keys never reach the hook, so numpy's scalars among them are turned here.
        return _encode(_with_plain_keys(value, depth=0))


def to_json_lines(values: Sequence[Any]) -> Sequence[bytes]:
    """The JSON of each value; costs less than one after the other. Raises as `to_json` does."""
    try:
        lines = _encode_lines(values).split(b"\n")
    except (TypeError, RecursionError):
        lines = []
    # Nothing but a value that is JSON already brings a line end of its own.
    if len(lines) != len(values) + 1:
        return [to_json(value) for value in values]
    lines.pop()
    return lines


def _plain(value: Any) -> Any:
    """What numpy's and similar types stand for. They are told by their methods: this module imports no numpy."""
    if (tolist := getattr(value, "tolist", None)) is not None:  # numpy arrays and scalars
        return _text_of_bytes(tolist())
    if isinstance(value, Mapping):
        return dict(value)
    if (model_dump := getattr(value, "model_dump", None)) is not None:  # pydantic
        return model_dump(mode="json")
    raise TypeError(f"{type(value).__qualname__} has no form in JSON")


_encoder = msgspec.json.Encoder(enc_hook=_plain)
_encode, _encode_lines = _encoder.encode, _encoder.encode_lines
_DEEPEST = 100


def _text_of_bytes(value: Any) -> Any:
    # numpy's `S` strings would otherwise appear as base64.
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_text_of_bytes(item) for item in value]
    return value


def _with_plain_keys(value: Any, *, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("the result is nested too deeply, or refers to itself")
    if isinstance(value, Mapping):
        return {_plain_key(key): _with_plain_keys(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_plain_keys(item, depth=depth + 1) for item in value]
    return value


def _plain_key(key: Any) -> str:
    key = key.item() if hasattr(key, "item") else key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str | int | float):
        return str(key)
    raise TypeError(f"{type(key).__qualname__} cannot be a key in JSON")
