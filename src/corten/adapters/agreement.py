"""Compare a model with its conversion on many inputs: answers, refusals, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corten.adapters.base import InputError, RowsModel
from corten.adapters.converted import Refusal
from corten.core.acceleration import TOLERANCE, Agreement, Speed

if TYPE_CHECKING:
    import numpy as np

_AT_ONCE = 512
_BATCH_ROWS = 256
_ALONE = 20
_MOST_TIMED_S = 0.5


class DisagreementError(Exception):
    """The conversion answers an input otherwise; the message says which, for people."""


@dataclass(slots=True)
class Comparison:
    """Two models and what their answers had in common so far."""

    before: RowsModel
    after: RowsModel
    rows: int = 0
    refused: int = 0
    largest: float = 0.0
    unit: float = 0.0

    def same(self, rows: np.ndarray, what: str) -> None:
        """Ask both, as a batch, and some rows alone. Raises DisagreementError."""
        for start in range(0, len(rows), _AT_ONCE):
            self._compare(rows[start : start + _AT_ONCE], what)
        for start in range(0, len(rows), max(len(rows) // _ALONE, 1)):
            self._compare(rows[start : start + 1], f"{what}, alone")
        self.rows += len(rows)

    def agreement(self, recorded: int) -> Agreement:
        """What was found."""
        return Agreement(self.rows, recorded, self.refused, float(f"{self.largest:.3g}"))

    def _compare(self, rows: np.ndarray, what: str) -> None:
        before, after = _answer(self.before, rows), _answer(self.after, rows)
        if isinstance(before, InputError) != isinstance(after, InputError):
            who, said = ("original", before) if isinstance(before, InputError) else ("conversion", after)
            raise DisagreementError(f"{what}: only the {who} refuses it: {str(said)[:200]}")
        if isinstance(before, InputError) or isinstance(after, InputError):
            self.refused += len(rows)
            return
        self._equal(rows, before, after, what)

    def _equal(self, rows: np.ndarray, before: np.ndarray, after: np.ndarray, what: str) -> None:
        import numpy as np

        if before.shape != after.shape or _kind(before) != _kind(after):
            raise DisagreementError(
                f"{what}: answers are {before.dtype}{list(before.shape)} and {after.dtype}{list(after.shape)}"
            )
        if before.dtype.kind != "f":
            wrong = np.flatnonzero((before != after).reshape(len(rows), -1).any(axis=1))
            if len(wrong):
                raise DisagreementError(
                    f"{what}: {len(wrong)} of {len(rows)} labels differ, first {before[wrong[0]]} and {after[wrong[0]]}"
                )
            return
        if not self.unit:
            usual = np.abs(before[np.isfinite(before)])
            self.unit = min(float(np.median(usual)) or 1.0, 1.0) if usual.size else 1.0
        finite = np.isfinite(before)
        if not np.array_equal(before[~finite], after[~finite], equal_nan=True):
            raise DisagreementError(f"{what}: where the original is infinite or no number, the conversion is not")
        apart = np.abs(before[finite].astype(np.float64) - after[finite].astype(np.float64))
        off = apart / (self.unit + np.abs(before[finite].astype(np.float64)))
        if off.size:
            self.largest = max(self.largest, float(off.max()))
            if not off.max() <= TOLERANCE:
                at = int(off.argmax())
                raise DisagreementError(
                    f"{what}: {before[finite][at]:.9g} became {after[finite][at]:.9g}, more than {TOLERANCE:g} apart"
                )


def _kind(answer: np.ndarray) -> str:
    # Texts of a fixed width and texts as objects are the same JSON.
    return "U" if answer.dtype.kind == "O" else answer.dtype.kind


def refusals(model: RowsModel, kind: str, spoilt: Sequence[tuple[int, np.ndarray]]) -> Refusal | None:
    """Which columns refuse a kind of value, and in which words; None where none does.

    `spoilt` has rows with it, by column. They are asked together first: that is one call for what refuses nothing.
    """
    import numpy as np

    if not spoilt or not isinstance(_answer(model, np.concatenate([rows for _, rows in spoilt])), InputError):
        return None
    said = [(place, answer) for place, rows in spoilt if isinstance(answer := _answer(model, rows), InputError)]
    return Refusal(kind, tuple(place for place, _ in said), str(said[0][1])) if said else None


def speed(before: RowsModel, after: RowsModel, rows: np.ndarray) -> Speed:
    """How long one call takes, alone and with a batch."""
    batch = _repeated(rows, _BATCH_ROWS)
    return Speed(
        _median_us(lambda: _answer(before, batch[:1])),
        _median_us(lambda: _answer(after, batch[:1])),
        _median_us(lambda: _answer(before, batch)),
        _median_us(lambda: _answer(after, batch)),
        _BATCH_ROWS,
    )


def _answer(model: RowsModel, rows: np.ndarray) -> Any:
    """What it says, or the error by which it refuses the rows."""
    import numpy as np

    try:
        with np.errstate(all="ignore"):  # extremes overflow, in both
            (answer,) = model.run({model.schema.inputs[0].name: rows}).values()
    except InputError as error:
        return error
    return answer


def _repeated(rows: np.ndarray, count: int) -> np.ndarray:
    import numpy as np

    return np.resize(rows, (count, *rows.shape[1:]))


def _median_us(call: Callable[[], object]) -> float:
    call()
    times: list[float] = []
    began_s = time.perf_counter()
    while len(times) < 5 or (len(times) < 200 and time.perf_counter() - began_s < _MOST_TIMED_S):
        start_s = time.perf_counter()
        call()
        times.append(time.perf_counter() - start_s)
    return round(statistics.median(times) * 1e6, 1)
