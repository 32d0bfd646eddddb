"""Read the head of a LightGBM model in text form: `key=value` lines up to the first tree, and what follows the last.

The keys are those `GBDT::SaveModelToString` writes (src/boosting/gbdt_model_text.cpp in its repository).
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from corten.adapters.corrupt import corrupt

_START = re.compile(rb"(?:tree|linear_tree)\r?\nversion=v\d+\r?\n")
# Names of a hundred thousand features; a file without a first tree is not read to its end.
_MAX_HEAD_BYTES = 16 << 20
_TAIL_BYTES = 1 << 20
_UNNAMED = re.compile(r"Column_\d+")


@dataclass(frozen=True, slots=True)
class LightgbmFile:
    """What the file tells. `format` is 4 for `v4`, which 4.x writes; the exact release is not in it.

    `width` is the numbers a row's answer has. `categories` are what pandas columns held, in order, for models trained
    on data frames with categorical columns.
    """

    format: int
    objective: str
    n_features: int
    width: int
    columns: tuple[str, ...] = ()
    categories: tuple[tuple[object, ...], ...] = ()


def is_lightgbm(path: Path) -> bool:
    """Whether the file starts as LightGBM's models do; never raises for content."""
    with path.open("rb") as stream:
        return bool(_START.match(stream.read(64)))


def read_lightgbm(path: Path) -> LightgbmFile:
    """Read head and tail of the file. Raises UsageError (`adapter.corrupt_model`) for one that is cut short."""
    try:
        with path.open("rb") as stream:
            return _facts(_head(stream), _categories(stream))
    except (ValueError, KeyError) as error:
        hint = "save it again with `booster.save_model(path)`"
        raise corrupt(path, "is not a complete LightGBM model", error, hint=hint) from None


def lightgbm_in(data: memoryview) -> LightgbmFile | None:
    """The model in the bytes of a pickle, which has boosters as text; None when there is none to be read."""
    found = _START.search(data)
    if not found:
        return None
    try:
        return _facts(_head(io.BytesIO(data[found.start() : found.start() + _MAX_HEAD_BYTES])), ())
    except (ValueError, KeyError):
        return None


def _head(stream: BinaryIO) -> Mapping[str, str]:
    found: dict[str, str] = {}
    left = _MAX_HEAD_BYTES
    while True:
        line = stream.readline(left)
        left -= len(line)
        if not line or left <= 0:
            raise ValueError("there is no tree in it")
        text = line.decode().strip()
        if text.startswith("Tree=") or text == "end of trees":
            return found
        key, equals, value = text.partition("=")
        if equals:
            found[key] = value


def _categories(stream: BinaryIO) -> tuple[tuple[object, ...], ...]:
    """`pandas_categorical:` on the last line, and a proof that the file is whole: the line the trees end with."""
    size = stream.seek(0, 2)
    stream.seek(max(size - _TAIL_BYTES, 0))
    tail = stream.read()
    if size <= _TAIL_BYTES and b"end of trees" not in tail:
        raise ValueError("the file ends within its trees")
    last = tail.rstrip().rpartition(b"\n")[2]
    if not last.startswith(b"pandas_categorical:"):
        return ()
    told = json.loads(last.partition(b":")[2])
    return tuple(tuple(column) for column in told) if isinstance(told, list) else ()


def _facts(head: Mapping[str, str], categories: tuple[tuple[object, ...], ...]) -> LightgbmFile:
    n_features = int(head["max_feature_idx"]) + 1
    columns = tuple(head["feature_names"].split())
    if n_features < 1 or len(columns) != n_features:
        raise ValueError(f"{n_features} features and {len(columns)} names of them")
    named = len(set(columns)) == n_features and not all(_UNNAMED.fullmatch(name) for name in columns)
    return LightgbmFile(
        format=int(head["version"].removeprefix("v")),
        objective=head.get("objective", "").partition(" ")[0],
        n_features=n_features,
        # One number a class for several classes; a tree an iteration for objectives of one's own.
        width=max(int(head["num_class"]), 1),
        columns=columns if named else (),
        categories=categories,
    )
