"""Inputs to compare a model with its conversion on: many, seeded, and where the two would differ if they did.

Around the recorded example and within the ranges the model was fitted on; whole numbers, where votes tie; on both
sides of every split, one float64 and one float32 apart; extremes; missing values; known and unknown categories.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corten.adapters.sklearn_frame import parts

if TYPE_CHECKING:
    import numpy as np

_SEED = 20_260
_ROWS = 1_000
_MOST_SPLITS = 2_000
_MARGIN = 0.1
_EXTREMES = (0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e-30, 1e6, -1e6, 1e12, -1e12, 1e30, -1e30)
LARGE = 1e39  # beyond float32
UNKNOWN = "\N{SYMBOL FOR NULL} no category"
_WORDS = ("", "a", "the", "not", "good", "bad", "x1", "2024", "Ünïcode", "don't", "e-mail", "A", ".", "  ", "\n")


@dataclass(frozen=True, slots=True)
class Ranges:
    """What numbers of each column the model saw, and the texts its encoders know, by the column's place."""

    low: np.ndarray
    high: np.ndarray
    categories: Mapping[int, tuple[str, ...]] = field(default_factory=dict)


def ranges(estimator: Any, width: int, columns: Sequence[str], recorded: np.ndarray | None, made: Any) -> Ranges:
    """What can be told of a fitted model: its scalers, its trees (from their ONNX form `made`), its encoders."""
    import numpy as np

    low, high = np.full(width, np.inf), np.full(width, -np.inf)

    def seen(below: Any, above: Any) -> None:
        nonlocal low, high
        below, above = np.asarray(below, dtype=np.float64), np.asarray(above, dtype=np.float64)
        if below.shape == above.shape == (width,):
            low, high = np.fmin(low, below), np.fmax(high, above)

    if recorded is not None and recorded.dtype.kind == "f" and recorded.size:
        seen(np.nanmin(recorded, axis=0), np.nanmax(recorded, axis=0))
    for part in parts(estimator):
        center, scale = getattr(part, "mean_", None), getattr(part, "scale_", None)
        if type(part).__name__ == "StandardScaler" and center is not None and scale is not None:
            seen(center - 3 * scale, center + 3 * scale)
        if getattr(part, "data_min_", None) is not None:
            seen(part.data_min_, part.data_max_)
        if getattr(part, "_fit_X", None) is not None and getattr(part._fit_X, "ndim", 0) == 2:  # noqa: SLF001
            seen(np.asarray(part._fit_X).min(axis=0), np.asarray(part._fit_X).max(axis=0))  # noqa: SLF001
    if not np.isfinite(low).any():
        for place, threshold in splits(made):
            if place < width:
                low[place], high[place] = min(low[place], threshold), max(high[place], threshold)
    low, high = np.where(np.isfinite(low), low, -3.0), np.where(np.isfinite(high), high, 3.0)
    margin = np.maximum(_MARGIN * (high - low), 1e-3)
    return Ranges(low - margin, high + margin, dict(_categories(estimator, columns)))


def splits(made: Any) -> list[tuple[int, float]]:
    """Feature and threshold of every split of the tree ensembles in an ONNX model, each once, in order."""
    from onnx import helper, numpy_helper

    found = set()
    for node in made.graph.node:
        if node.op_type.startswith("TreeEnsemble"):
            given = {one.name: helper.get_attribute_value(one) for one in node.attribute}
            values = given.get("nodes_values")
            if values is None:
                values = numpy_helper.to_array(given["nodes_values_as_tensor"])
            for place, value, mode in zip(given["nodes_featureids"], values, given["nodes_modes"], strict=True):
                if mode != b"LEAF":
                    found.add((int(place), float(value)))
    return sorted(found)


def numbers(given: Ranges, recorded: np.ndarray | None, dtype: np.dtype[Any]) -> np.ndarray:
    """Finite rows of numbers, the recorded ones first."""
    import numpy as np

    rng = np.random.default_rng(_SEED)
    width = len(given.low)
    uniform = rng.uniform(given.low, given.high, (_ROWS, width))
    blocks = [uniform, np.round(rng.uniform(given.low, given.high, (_ROWS, width)))]
    if recorded is not None and len(recorded):
        base = recorded[rng.integers(0, len(recorded), _ROWS)].astype(np.float64)
        spread = 0.05 * (given.high - given.low)
        mixed = rng.uniform(size=base.shape) < 0.2
        blocks += [
            recorded.astype(np.float64),
            base + rng.normal(size=base.shape) * spread,
            np.where(mixed, uniform, base),
            np.nextafter(base, np.inf),
        ]
        blocks.insert(0, blocks.pop(2))
    blocks.append(np.tile(np.array(_EXTREMES)[:, None], (1, width)))
    blocks.append(_one_at_a_time(uniform, _EXTREMES, width))
    rows = np.concatenate(blocks)
    return rows[np.isfinite(rows).all(axis=1)].astype(dtype)


def beside_splits(found: Sequence[tuple[int, float]], base: np.ndarray) -> np.ndarray:
    """Rows with one feature on a split, or next to it: by one float64, by one float32."""
    import numpy as np

    rng = np.random.default_rng(_SEED + 1)
    width = base.shape[1]
    known = [one for one in found if one[0] < width]
    if len(known) > _MOST_SPLITS:
        known = [known[i] for i in np.sort(rng.choice(len(known), _MOST_SPLITS, replace=False))]
    rows = []
    for number, (place, threshold) in enumerate(known):
        single = np.float32(threshold)
        for value in (
            threshold,
            np.nextafter(threshold, np.inf),
            np.nextafter(threshold, -np.inf),
            np.float64(np.nextafter(single, np.float32(np.inf))),
            np.float64(np.nextafter(single, np.float32(-np.inf))),
        ):
            row = base[number % len(base)].copy()
            row[place] = value
            rows.append(row)
    return np.array(rows, dtype=base.dtype).reshape(-1, width)


def spoilt(base: np.ndarray, values: Mapping[int, Any]) -> list[tuple[int, np.ndarray]]:
    """For each of these columns the rows with that value in it."""
    found = []
    for place, value in values.items():
        rows = base.copy()
        rows[:, place] = value
        found.append((place, rows))
    return found


def texts(recorded: np.ndarray | None, vocabulary: Sequence[str]) -> np.ndarray:
    """Texts made of the words the model knows, of others, and of recorded ones."""
    import numpy as np

    rng = np.random.default_rng(_SEED)
    words = np.array([*vocabulary[:5000], *_WORDS], dtype=object)
    made = [" ".join(rng.choice(words, int(rng.integers(0, 20)))) for _ in range(_ROWS)]
    given = [] if recorded is None else list(recorded)
    return np.array([*given, *made, *(word.upper() for word in made[:100])], dtype=object)


def table(given: Ranges, is_text: Sequence[bool], recorded: np.ndarray | None) -> np.ndarray:
    """Rows of a table with text columns: known categories and numbers in range, in all combinations chance makes."""
    import numpy as np

    rng = np.random.default_rng(_SEED)
    size = 2 * _ROWS
    values = numbers(given, None, np.dtype(np.float64))[:size]
    rows = np.empty(values.shape, dtype=object)
    for place, text in enumerate(is_text):
        known = given.categories.get(place) or ("a",)
        rows[:, place] = rng.choice(np.array(known, dtype=object), len(rows)) if text else values[:, place].tolist()
    return rows if recorded is None else np.concatenate([recorded, rows])


def vocabulary(estimator: Any) -> list[str]:
    """The words a model's text vectorizers know, sorted."""
    return sorted({str(word) for part in parts(estimator) for word in getattr(part, "vocabulary_", None) or ()})


def _one_at_a_time(base: np.ndarray, values: Sequence[float], width: int) -> np.ndarray:
    import numpy as np

    rows = np.repeat(base[:1], min(width, 64) * len(values), axis=0)
    for number in range(len(rows)):
        rows[number, (number // len(values)) % width] = values[number % len(values)]
    return rows


def _categories(estimator: Any, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The texts each column's encoder knows."""
    places = {name: place for place, name in enumerate(columns)}
    for transformer in parts(estimator):
        for _, part, chosen in getattr(transformer, "transformers_", ()):
            names = [chosen] if isinstance(chosen, str) else list(chosen) if not isinstance(chosen, slice) else []
            for inner in parts(part):
                for name, known in zip(names, getattr(inner, "categories_", ()), strict=False):
                    if name in places and known.dtype.kind in "OUS":
                        yield places[name], tuple(str(one) for one in known)
