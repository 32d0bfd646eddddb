"""What a model is asked and what it answers, as distributions: looked at in samples, compared with what was first seen.

A look takes some rows of one call every 100 ms at most, so that it costs little however many requests come. Recent is
what was seen in this and the last five minutes, the reference the first rows there were. Of inputs no words are told,
and no values but the least and the largest.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from corten.observe.metrics import Registry
from corten.serve.sketch import Moments, stability_index

_log = logging.getLogger(__name__)

MOST_FEATURES = 64  # of a side; arrays of more columns are looked at as a whole
REFERENCE_ROWS = 500
_LEAST_ROWS = 100  # recent ones, before they are compared with anything
_ROWS_A_LOOK = 32
_EVERY_S = 0.1
_WINDOW_S = 300.0
_REPORT_S = 5.0
_EARLY_S = 1.0  # as long as there is little to report
_LONGEST_NAME = 100
_MOST_LABELS = 50
_OTHER = ""


class Side:
    """The features of one side: numbers by column, texts by how often each appears."""

    def __init__(self, name: str, columns: Mapping[str, tuple[str, ...]]) -> None:
        self.name = name
        self._columns = columns
        self.numbers: dict[str, Numbers] = {}
        self.texts: dict[str, Texts] = {}

    def look(self, arrays: Mapping[str, np.ndarray], now_s: float) -> None:
        """Take in some rows of each array."""
        for name, array in arrays.items():
            some = array[:_ROWS_A_LOOK]
            if some.dtype.kind in "fiub":
                self._numbers(name, some).look(_matrix(some), now_s)
            elif some.dtype.kind in "OU" and some.ndim <= 2:
                self._objects(name, some.reshape(len(some), -1), now_s)

    def _numbers(self, name: str, rows: np.ndarray) -> Numbers:
        known = self.numbers.get(name)
        if known is None:
            width = _width(rows)
            columns = self._columns.get(name, ())
            if len(columns) != width:
                columns = (name,) if width == 1 else tuple(f"{name}[{i}]" for i in range(width))
            known = self.numbers[name] = Numbers(columns)
        return known

    def _objects(self, name: str, rows: np.ndarray, now_s: float) -> None:
        """Columns of texts, or of anything, as they come in tables: each for itself."""
        columns = self._columns.get(name, ())
        for i in range(min(rows.shape[1], MOST_FEATURES)):
            feature = columns[i] if i < len(columns) else name if rows.shape[1] == 1 else f"{name}[{i}]"
            cells = rows[:, i].tolist()
            if all(cell is None or isinstance(cell, int | float) for cell in cells):
                column = np.array([[np.nan if cell is None else float(cell)] for cell in cells])
                if feature not in self.numbers:
                    self.numbers[feature] = Numbers((feature,))
                self.numbers[feature].look(column, now_s)
            elif all(cell is None or isinstance(cell, str) for cell in cells):
                if feature not in self.texts:
                    self.texts[feature] = Texts()
                self.texts[feature].look(cells, now_s)

    def features(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is known of each, as JSON."""
        for numbers in [*self.numbers.values()]:
            yield from numbers.about()
        for name, texts in [*self.texts.items()]:
            yield name, texts.about(values=self.name == "output")


class _Windows:
    """Turns the page every five minutes."""

    def __init__(self) -> None:
        self._turned_s: float | None = None

    def turns(self, now_s: float) -> bool:
        """Whether a new window begins."""
        if self._turned_s is None:
            self._turned_s = now_s
        if now_s - self._turned_s < _WINDOW_S:
            return False
        self._turned_s = now_s
        return True


class Numbers:
    """Features that are numbers: one array's columns."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._windows = _Windows()
        self._now = Moments(len(names))
        self._before = Moments(len(names))
        self._reference = Moments(len(names))
        self._reference_rows = 0

    def look(self, rows: np.ndarray, now_s: float) -> None:
        """Take in rows, a column a feature."""
        if rows.shape[1] != len(self.names):
            if len(self.names) > 1:
                return  # an array of free width has another one now
            rows = rows.reshape(-1, 1)
        if self._windows.turns(now_s):
            self._before, self._now = self._now, Moments(len(self.names))
        self._now.add(rows)
        if self._reference_rows < REFERENCE_ROWS:
            self._reference.add(rows)
            self._reference_rows += len(rows)

    def about(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """See Side.features."""
        recent = self._before.plus(self._now)
        for i, name in enumerate(self.names):
            found = recent.about(i)
            if self._reference_rows >= REFERENCE_ROWS and recent.count[i] >= _LEAST_ROWS and self._reference.count[i]:
                found["drift"] = round(stability_index(self._reference.bins[i], recent.bins[i]), 4)
            yield name, found


class Texts:
    """A feature that is one of some words: how often each appears, the rarer ones together."""

    def __init__(self) -> None:
        self._windows = _Windows()
        self._now: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._reference: Counter[str] = Counter()
        self._missing = 0

    def look(self, cells: list[str | None], now_s: float) -> None:
        """Take in cells."""
        if self._windows.turns(now_s):
            self._before, self._now = self._now, Counter()
        for cell in cells:
            if cell is None:
                self._missing += 1
                continue
            _count(self._now, cell)
            if self._reference.total() < REFERENCE_ROWS:
                _count(self._reference, cell)

    def about(self, *, values: bool) -> dict[str, Any]:
        """See Side.features; `values` tells the words themselves."""
        recent = self._now + self._before
        total = recent.total()
        found: dict[str, Any] = {"count": total, "missing": round(self._missing / max(total + self._missing, 1), 6)}
        found["distinct"] = len(recent)
        if values:
            found["shares"] = {word: round(many / total, 4) for word, many in recent.most_common(10)}
        if self._reference.total() >= REFERENCE_ROWS and total >= _LEAST_ROWS:
            words = sorted(self._reference | recent)
            both = (np.array([counts[word] for word in words]) for counts in (self._reference, recent))
            expected, seen = (np.maximum(counts / counts.sum(), 1e-4) for counts in both)
            found["drift"] = round(float(np.sum((seen - expected) * np.log(seen / expected))), 4)
        return found


class Drift:
    """Both sides of one model. `look` is called where the model runs, the rest on the loop's thread."""

    def __init__(self, columns: Mapping[str, tuple[str, ...]], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._next_s = 0.0
        self.rows = 0
        self._report: dict[str, Any] = {}
        self._report_s = -math.inf  # when it was made
        self.sides = (Side("input", columns), Side("output", {}))

    def look(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], rows: int) -> None:
        """Look at a call of the model, unless the last look was just now."""
        now_s = self._clock_s()
        if now_s < self._next_s:
            return
        self._next_s = now_s + _EVERY_S
        try:
            for side, arrays in zip(self.sides, (inputs, outputs), strict=True):
                side.look(arrays, now_s)
            self.rows += min(rows, _ROWS_A_LOOK)
        except Exception:
            # Watching a model must never keep it from answering.
            self._next_s = math.inf
            _log.warning("distributions of features are not watched any more", exc_info=True)

    def report(self) -> dict[str, Any]:
        """All that is known, as JSON; a few seconds old at most, for it is some milliseconds' work."""
        now_s = self._clock_s()
        early = self.rows < REFERENCE_ROWS
        old = now_s - self._report_s > (_EARLY_S if early else _REPORT_S)
        if old and not (early and self._report.get("rows") == self.rows):
            self._report = {"rows": self.rows, **{side.name: dict(side.features()) for side in self.sides}}
            self._report_s = now_s
        return self._report


class DriftMeters:
    """The same as metrics, brought up to date when they are asked for."""

    def __init__(self, registry: Registry) -> None:
        self._rows = registry.counter(
            "corten_feature_rows_total", "Rows that were looked at for the distributions of features."
        ).labels()
        self._families = {
            key: registry.gauge(f"corten_feature_{name}", text, ["side", "feature"])
            for key, name, text in (
                ("mean", "mean", "Mean of a feature's recent values."),
                ("stddev", "stddev", "Their standard deviation."),
                ("missing", "missing_ratio", "Share of missing values among them."),
                ("drift", "drift", "Population stability index of them and the first ones; above 0.25 is marked."),
            )
        }

    def update(self, report: Mapping[str, Any]) -> None:
        """Set them to what a report says."""
        self._rows.value = float(report["rows"])
        for side in ("input", "output"):
            for feature, about in report[side].items():
                for key, family in self._families.items():
                    if key in about:
                        family.labels(side, feature[:_LONGEST_NAME]).set(about[key])


def _width(rows: np.ndarray) -> int:
    """How many features an array has: its columns, or one where it has none, or too many to tell apart."""
    width = int(np.prod(rows.shape[1:]))
    return width if rows.ndim == 2 and 1 < width <= MOST_FEATURES else 1


def _matrix(rows: np.ndarray) -> np.ndarray:
    """Rows of float64, a column a feature."""
    if _width(rows) > 1:
        return rows.astype(np.float64)
    # Of large arrays some values stand for all.
    flat = rows.reshape(-1)
    return flat[:: max(1, flat.size // 1024)].astype(np.float64).reshape(-1, 1)


def _count(counts: Counter[str], word: str) -> None:
    counts[word if word in counts or len(counts) < _MOST_LABELS else _OTHER] += 1
