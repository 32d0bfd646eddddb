"""How values are distributed, in a fixed space that can be added up: counts in bins whose width grows with the value.

The bins are those of DDSketch (Masson, Rim, Lee 2019, https://arxiv.org/abs/1908.10693) with mirrored ones for negative
numbers: a quantile is right within 7 % of its value, whatever was seen. Between distributions the population stability
index is computed (PSI: the sum over bins of (q - p) ln(q / p)): below 0.1 is no change, above 0.25 a marked one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_GROWTH = 1.15
_LEAST = 1e-9  # what is nearer to zero counts as zero
_MOST = 1e12
_SIDE = math.ceil(math.log(_MOST / _LEAST) / math.log(_GROWTH)) + 1
BINS = 2 * _SIDE + 1
_SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_PSI_BINS = 10
_FLOOR = 1e-4  # of a share: an empty bin would be infinitely far away


class Moments:
    """Bins, number, sum, squares and missing values of some features: one row of each array a feature."""

    __slots__ = ("bins", "count", "least", "missing", "most", "squares", "sum")

    def __init__(self, features: int) -> None:
        self.bins = np.zeros((features, BINS), dtype=np.int32)
        self.count = np.zeros(features)
        self.missing = np.zeros(features)
        self.sum = np.zeros(features)
        self.squares = np.zeros(features)
        self.least = np.full(features, np.inf)
        self.most = np.full(features, -np.inf)

    def add(self, rows: np.ndarray) -> None:
        """Take in rows of float64, one column a feature; NaN is a missing value, and so is infinity."""
        there = np.isfinite(rows)
        whole = bool(there.all())
        known = rows if whole else np.where(there, rows, 0.0)
        self.count += len(rows) if whole else there.sum(axis=0)
        if not whole:
            self.missing += len(rows) - there.sum(axis=0)
        self.sum += known.sum(axis=0)
        self.squares += np.einsum("ij,ij->j", known, known)
        np.minimum(self.least, rows.min(axis=0) if whole else np.where(there, rows, np.inf).min(axis=0), out=self.least)
        np.maximum(self.most, rows.max(axis=0) if whole else np.where(there, rows, -np.inf).max(axis=0), out=self.most)
        flat = (bin_of(known) + np.arange(rows.shape[1]) * BINS)[there]
        np.add.at(self.bins.reshape(-1), flat, 1)

    def plus(self, other: Moments) -> Moments:
        """Both together."""
        whole = Moments(len(self.count))
        whole.bins = self.bins + other.bins
        whole.count = self.count + other.count
        whole.missing = self.missing + other.missing
        whole.sum = self.sum + other.sum
        whole.squares = self.squares + other.squares
        whole.least = np.minimum(self.least, other.least)
        whole.most = np.maximum(self.most, other.most)
        return whole

    def about(self, feature: int) -> dict[str, Any]:
        """What is known of one feature, as JSON; nothing of values that were never there."""
        count, missing = float(self.count[feature]), float(self.missing[feature])
        found: dict[str, Any] = {"count": int(count), "missing": round(missing / max(count + missing, 1.0), 6)}
        if count:
            mean = float(self.sum[feature]) / count
            variance = max(float(self.squares[feature]) / count - mean * mean, 0.0)
            least, most = float(self.least[feature]), float(self.most[feature])
            found |= {"mean": mean, "stddev": math.sqrt(variance), "min": least, "max": most}
            found["quantiles"] = {
                f"{share:g}": min(max(value, least), most)
                for share, value in zip(_SHARES, quantiles(self.bins[feature], _SHARES), strict=True)
            }
        return found


def bin_of(values: np.ndarray) -> np.ndarray:
    """The bin of each value: 0 in the middle, what is larger than all bins in the last."""
    size = np.abs(values)
    steps = np.ceil(np.log(np.maximum(size, _LEAST) / _LEAST) / math.log(_GROWTH))
    index = np.where(size < _LEAST, 0, np.minimum(steps, _SIDE - 1) + 1).astype(np.int64)
    return _SIDE + np.where(values < 0, -index, index)


def value_of(bins: np.ndarray) -> np.ndarray:
    """A value in the middle of each bin."""
    steps = np.abs(bins - _SIDE) - 1
    size = _LEAST * _GROWTH**steps * 2 / (1 + _GROWTH)
    return np.where(bins == _SIDE, 0.0, np.sign(bins - _SIDE) * size)


def quantiles(bins: np.ndarray, shares: Sequence[float]) -> list[float]:
    """The values below which these shares lie."""
    below = np.cumsum(bins)
    found = np.searchsorted(below, np.asarray(shares) * below[-1], side="left")
    values: list[float] = value_of(np.minimum(found, BINS - 1)).tolist()
    return values


def stability_index(reference: np.ndarray, recent: np.ndarray) -> float:
    """The PSI of two histograms, in ten bins of equal shares of the reference."""
    below = np.cumsum(reference)
    edges = np.unique(np.searchsorted(below, np.arange(1, _PSI_BINS) / _PSI_BINS * below[-1], side="left") + 1)
    starts = [0, *(int(edge) for edge in edges if edge < BINS)]
    expected = np.maximum(np.add.reduceat(reference, starts) / below[-1], _FLOOR)
    seen = np.maximum(np.add.reduceat(recent, starts) / recent.sum(), _FLOOR)
    return float(np.sum((seen - expected) * np.log(seen / expected)))
