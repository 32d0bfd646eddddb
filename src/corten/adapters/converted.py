"""An ONNX model that stands for another: asked and answering as that one is, and refusing what it refuses.

What ONNX does not express lies in the file's own metadata (`metadata_props`), under `dev.corten.stands_for`: which
inputs the original refuses and in which words, and how a table's columns become the model's inputs. ONNX Runtime would
answer a missing value with some number where scikit-learn says that it takes none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from corten.adapters.base import InputError
from corten.core.schema import DType, Schema

if TYPE_CHECKING:
    import numpy as np

FLOATS = (DType.FLOAT16, DType.FLOAT32, DType.FLOAT64)
METADATA_KEY = "dev.corten.stands_for"
_LARGEST_FLOAT32 = 3.4028234663852886e38


class NotConvertibleError(Exception):
    """The model has no equal in ONNX; the message says why, for people."""


class Column(msgspec.Struct, frozen=True):
    """A named column of the schema and the model's input that takes it. `known`: no other texts are taken."""

    name: str
    feed: str
    text: bool = False
    known: tuple[str, ...] = ()


class Refusal(msgspec.Struct, frozen=True):
    """What the original says to a kind of value (`nan`, `inf`, `large`, `unknown`) in these columns, by place."""

    kind: str
    columns: tuple[int, ...]
    message: str


class StandsFor(msgspec.Struct, frozen=True):
    """The original of a converted model; `digest` is of its file."""

    digest: str
    refusals: tuple[Refusal, ...] = ()
    columns: tuple[Column, ...] = ()

    def to_json(self) -> str:
        """The text of the metadata's entry: the same for the same content."""
        return msgspec.json.encode(self, order="sorted").decode()


def stands_for(session: Any) -> StandsFor | None:
    """What a session's model stands for; None for a model of its own. Raises msgspec.DecodeError."""
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return None if text is None else msgspec.json.decode(text, type=StandsFor)


class ConvertedModel:
    """A session of ONNX Runtime behind the original's schema."""

    def __init__(self, session: Any, original: StandsFor, schema: Schema) -> None:
        import numpy as np

        self.schema = schema
        self._session = session
        self._tensor = schema.inputs[0]
        self._output = schema.outputs[0]
        self._columns = original.columns
        self._known = {place: frozenset(one.known) for place, one in enumerate(original.columns) if one.known}
        self._refusals = {one.kind: one for one in original.refusals}
        # One comparison lets pass what nothing could be said against; a NaN fails it.
        self._limit = _LARGEST_FLOAT32 if "large" in self._refusals else np.finfo(np.float64).max
        self._feed = session.get_inputs()[0].name
        kind = self._output.dtype
        self._dtype = None if kind in (DType.STRING, DType.JSON) else np.dtype(kind.value)
        # Labels are not made numbers with a point, whatever a schema that knew no better says.
        self._alike = "f" if kind in FLOATS else "iub"
        self._flat = len(self._output.shape) == 1

    def run(self, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Rows in, what the original would say of each out. Raises InputError where the original does."""
        rows = inputs[self._tensor.name]
        (answer,) = self._session.run(None, self._table(rows) if self._columns else self._rows(rows))
        if self._dtype is not None and answer.dtype != self._dtype and answer.dtype.kind in self._alike:
            answer = answer.astype(self._dtype)
        if self._flat and answer.ndim != 1:
            answer = answer.reshape(len(rows))
        return {self._output.name: answer}

    def _rows(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        if rows.dtype.kind != "f":
            return {self._feed: rows.reshape(len(rows), 1)}  # texts
        if self._refusals and rows.size and not abs(rows).max() <= self._limit:
            for place in range(rows.shape[1]):
                self._check(place, rows[:, place])
        return {self._feed: rows}

    def _table(self, rows: np.ndarray) -> Mapping[str, np.ndarray]:
        """A table's columns, each in an array of its own type."""
        feeds = {}
        for place, column in enumerate(self._columns):
            values = rows[:, place]
            if column.text:
                feeds[column.feed] = self._texts(place, values).reshape(-1, 1)
            else:
                feeds[column.feed] = self._numbers(place, values).reshape(-1, 1)
        return feeds

    def _numbers(self, place: int, values: np.ndarray) -> np.ndarray:
        import numpy as np

        try:
            numbers = values.astype(np.float64)  # None becomes NaN
        except (ValueError, TypeError) as error:
            raise InputError(str(error), path="inputs") from error
        self._check(place, numbers)
        return numbers

    def _texts(self, place: int, values: np.ndarray) -> np.ndarray:
        known = self._known.get(place)
        refusals = self._refusals
        for value in values:
            kind = "nan" if value is None else "unknown" if known is not None and value not in known else ""
            if kind in refusals and place in refusals[kind].columns:
                raise InputError(refusals[kind].message, path="inputs")
            if not isinstance(value, str) and value is not None:
                raise InputError(f"expected a text, got {value!r}", path="inputs")
        texts = values.copy()
        texts[values == None] = ""  # noqa: E711 - an array of objects
        return texts

    def _check(self, place: int, numbers: np.ndarray) -> None:
        import numpy as np

        for kind, wrong in (
            ("nan", np.isnan),
            ("inf", np.isinf),
            ("large", lambda values: abs(values) > _LARGEST_FLOAT32),
        ):
            refusal = self._refusals.get(kind)
            if refusal and place in refusal.columns and wrong(numbers).any():
                raise InputError(refusal.message, path="inputs")
