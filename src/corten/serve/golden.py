"""Comparison of an answer with the one recorded when the model was packaged."""

from __future__ import annotations

import math
from typing import Any

import msgspec


class Difference(msgspec.Struct, frozen=True):
    """The first place where two JSON values differ: its path below `outputs`, and both values there."""

    path: str
    expected: Any
    got: Any


def difference(expected: Any, got: Any, tolerance: float, path: str = "outputs") -> Difference | None:
    """Compare JSON values; numbers may differ by `tolerance`, relative or absolute (as numpy.isclose adds them)."""
    if isinstance(expected, dict) and isinstance(got, dict):
        if expected.keys() != got.keys():
            return Difference(path, sorted(expected), sorted(got))
        pairs = [(f"{path}.{key}", expected[key], got[key]) for key in expected]
    elif isinstance(expected, list) and isinstance(got, list):
        if len(expected) != len(got):
            return Difference(path, f"{len(expected)} elements", f"{len(got)} elements")
        pairs = [(f"{path}[{i}]", *pair) for i, pair in enumerate(zip(expected, got, strict=True))]
    else:
        return None if _equal(expected, got, tolerance) else Difference(path, expected, got)
    for place, one, other in pairs:
        if (found := difference(one, other, tolerance, place)) is not None:
            return found
    return None


def _equal(expected: Any, got: Any, tolerance: float) -> bool:
    if _is_number(expected) and _is_number(got):
        return math.isclose(expected, got, rel_tol=tolerance, abs_tol=tolerance)
    return type(expected) is type(got) and expected == got


def _is_number(value: Any) -> bool:
    # JSON knows one number type, but true is not 1.
    return isinstance(value, int | float) and not isinstance(value, bool)
