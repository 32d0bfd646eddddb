"""Rows as a pandas data frame, for pipelines that pick their columns by name. Runs in the image only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


class Frames:
    """Makes frames with the columns an estimator was fitted on, each of the type it had then as far as can be told."""

    def __init__(self, estimator: Any, columns: Sequence[str]) -> None:
        self._columns = list(columns)
        self._texts = text_columns(estimator)

    def make(self, rows: np.ndarray) -> Any:
        """A frame of the rows. Numbers become numbers again; null is NaN, or None where texts are expected."""
        import pandas as pd

        frame = pd.DataFrame(rows, columns=self._columns)
        if rows.dtype != object:
            return frame
        frame = frame.infer_objects()
        for name in frame.columns[frame.isna().all()]:
            # Nothing but null in this request, so the values do not tell the type.
            frame[name] = pd.Series([None] * len(frame), dtype=object if name in self._texts else "float64")
        return frame


def wants_frame(estimator: Any) -> bool:
    """Whether something in it picks columns by name: plain arrays fail it, all others are faster with them."""
    return any(
        hasattr(part, "feature_names_in_") and any(_by_name(columns) for _, _, columns in part.transformers)
        for part in _column_transformers(estimator)
    )


def text_columns(estimator: Any) -> frozenset[str]:
    """The columns, by name, that some encoder in it learned texts of."""
    return frozenset(name for part in _column_transformers(estimator) for name in _text_columns(part))


def _by_name(columns: Any) -> bool:
    if isinstance(columns, str) or callable(columns):
        return True
    return isinstance(columns, Sequence) and any(isinstance(name, str) for name in columns)


def _column_transformers(estimator: Any) -> Iterator[Any]:
    return (part for part in parts(estimator) if type(part).__name__ == "ColumnTransformer")


def parts(estimator: Any) -> Iterator[Any]:
    """An estimator and those within it, each once."""
    pending: list[Any] = [estimator]
    seen: set[int] = set()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, (list, tuple)):
            pending.extend(part)
        elif type(part).__module__.partition(".")[0] in ("sklearn", "imblearn") and hasattr(part, "__dict__"):
            yield part
            pending.extend(vars(part).values())


def _text_columns(transformer: Any) -> Iterator[str]:
    """The columns whose encoder learned categories that are not numbers."""
    for _, part, columns in getattr(transformer, "transformers_", ()):
        arrays = (array for inner in parts(part) for array in getattr(inner, "categories_", ()))
        if any(getattr(array, "dtype", None) is not None and array.dtype.kind in "OUS" for array in arrays):
            yield from (name for name in _listed(columns) if isinstance(name, str))


def _listed(columns: Any) -> Iterable[Any]:
    return [columns] if isinstance(columns, str) else columns if isinstance(columns, Iterable) else ()
