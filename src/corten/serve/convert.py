"""Exchange a loaded model for an equal one in ONNX, if there is one: convert, compare, measure.

`python -m corten.serve.convert` does it inside an image that has the converters besides, and leaves what it made
beside its socket (`corten.ops.acceleration` starts it and reads that).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from corten import plugin
from corten.adapters import probes
from corten.adapters.agreement import Comparison, DisagreementError, refusals, speed
from corten.adapters.base import RowsModel
from corten.adapters.converted import METADATA_KEY, ConvertedModel, NotConvertibleError, StandsFor
from corten.adapters.onnx_convert import columns_of, to_onnx
from corten.adapters.onnx_session import open_session
from corten.core.acceleration import ONNX_FILE, REPORT_FILE, Conversion
from corten.core.digest import Digest
from corten.core.model import Example, ModelSpec
from corten.core.schema import DType, Style
from corten.http import UnixAddress
from corten.serve.loading import read_spec
from corten.serve.rows import RowsRunner
from corten.serve.settings import Settings

_TOOLS = (
    "skl2onnx",
    "onnxmltools",
    "onnx",
    "onnxruntime",
    "scikit-learn",
    "xgboost-cpu",
    "xgboost",
    "lightgbm",
    "numpy",
)


def attempt(model: RowsModel, method: str, example: Example | None, digest: str) -> tuple[Conversion, bytes]:
    """Convert a loaded model and compare; the bytes are of the ONNX file, empty where the original stays.

    `digest` is of the original's file. What is said of it depends on the model alone, but for `speed`.
    """
    conversion = Conversion(digest, tools=_tools(), platform=f"{platform.system()} {platform.machine()}".lower())
    if model.schema.style is not Style.ROWS or len(model.schema.inputs) != 1 or len(model.schema.outputs) != 1:
        return replace(conversion, reason="only models of rows with one input and one output are converted"), b""
    try:
        made = to_onnx(model, method)
        return _compared(_Pair(model, made, _recorded(model, example), conversion))
    except (NotConvertibleError, DisagreementError) as error:
        return replace(conversion, reason=str(error)), b""


_CALLED = {
    "nan": "missing values",
    "inf": "infinity",
    "large": "numbers beyond float32",
    "unknown": "unknown categories",
}


class _Pair:
    """A model, its conversion, and the inputs both are asked."""

    def __init__(self, model: RowsModel, made: Any, recorded: np.ndarray | None, conversion: Conversion) -> None:
        self.model = model
        self.made = made
        self.recorded = recorded
        self.conversion = conversion
        self.tensor = model.schema.inputs[0]
        estimator = getattr(model, "estimator", None)
        self.columns = columns_of(made, self.tensor)
        self.splits = probes.splits(made)
        if self.tensor.dtype is DType.STRING:
            self.probes = probes.texts(recorded, probes.vocabulary(estimator))
            self.spoilt: Mapping[str, Sequence[tuple[int, np.ndarray]]] = {}
            self.known: Mapping[int, tuple[str, ...]] = {}
            return
        width = self.tensor.shape[1] or 0
        given = probes.ranges(estimator, width, self.tensor.columns, recorded, made)
        self.known = given.categories
        if self.columns:
            self.probes = probes.table(given, [column.text for column in self.columns], recorded)
        else:
            self.probes = probes.numbers(given, recorded, np.dtype(self.tensor.dtype.value))
        text = {place for place, column in enumerate(self.columns) if column.text}
        number = [place for place in range(width) if place not in text]
        base = self.probes[:3]
        missing = {place: None if place in text else np.nan for place in range(width)}
        self.spoilt = {
            "nan": probes.spoilt(base, missing),
            "inf": probes.spoilt(base, dict.fromkeys(number, np.inf)),
            "large": probes.spoilt(base, {} if base.dtype == np.float32 else dict.fromkeys(number, probes.LARGE)),
            "unknown": probes.spoilt(base, dict.fromkeys(sorted(text), probes.UNKNOWN)),
        }


def _compared(pair: _Pair) -> tuple[Conversion, bytes]:
    """Both asked everything; raises DisagreementError."""
    model, made = pair.model, pair.made
    found = {kind: refusals(model, kind, columns) for kind, columns in pair.spoilt.items()}
    said = tuple(one for one in found.values() if one is not None)
    unknown = {place for one in said if one.kind == "unknown" for place in one.columns}
    original = StandsFor(
        pair.conversion.original,
        said,
        tuple(
            msgspec.structs.replace(column, known=pair.known.get(place, ())) if place in unknown else column
            for place, column in enumerate(pair.columns)
        ),
    )
    entry = made.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, original.to_json()
    data: bytes = made.SerializeToString(deterministic=True)
    try:
        session = open_session(data)
    except Exception as error:  # the runtime's own have no common base
        raise NotConvertibleError(f"ONNX Runtime does not run it: {str(error).partition(' : ')[2][:200]}") from error
    after = ConvertedModel(session, original, model.schema)
    seen = Comparison(model, after)
    if pair.recorded is not None:
        seen.same(pair.recorded, "recorded inputs")
    seen.same(pair.probes, "generated inputs")
    if pair.splits and not pair.columns:
        seen.same(_beside_splits(pair), "inputs beside a split")
    for kind, columns in pair.spoilt.items():
        refused = set(one.columns) if (one := found[kind]) else set()
        for place, rows in columns:
            if place in refused:
                seen.same(rows[:1], f"{_CALLED[kind]} in column {place}")
        if taken := [rows for place, rows in columns if place not in refused]:
            seen.same(np.concatenate(taken), _CALLED[kind])
    recorded = 0 if pair.recorded is None else len(pair.recorded)
    timed = speed(model, after, pair.probes if pair.recorded is None else pair.recorded)
    return replace(pair.conversion, agreement=seen.agreement(recorded), speed=timed), data


def _beside_splits(pair: _Pair) -> np.ndarray:
    """Rows whose values reach a tree on both sides of its splits: through the steps before it, backwards."""
    before = getattr(getattr(pair.model, "estimator", None), "steps", [])[:-1]
    base = pair.probes[: len(pair.probes) // 2]
    if not before:
        return probes.beside_splits(pair.splits, base)
    steps = [step for _, step in before if step not in (None, "passthrough")]
    if not all(hasattr(step, "inverse_transform") for step in steps):
        return pair.probes[:0]
    seen = base
    for step in steps:
        seen = step.transform(seen)
    rows = probes.beside_splits(pair.splits, np.asarray(seen, dtype=np.float64))
    for step in reversed(steps):
        rows = step.inverse_transform(rows)
    return np.asarray(rows, dtype=base.dtype)


def _recorded(model: RowsModel, example: Example | None) -> np.ndarray | None:
    """The recorded inputs as the model gets them."""
    if example is None:
        return None
    runner = RowsRunner(model)
    values = runner.decode(msgspec.json.encode(example.inputs)).values
    arrays = runner.arrays(values)
    return arrays[model.schema.inputs[0].name]


def _tools() -> tuple[str, ...]:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in _TOOLS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return tuple(found)


def main(env: Mapping[str, str]) -> int:
    """Convert the model of this image; the report and the ONNX file are left beside the socket it might listen on."""
    settings = Settings.from_env(env)
    assert isinstance(settings.listen, UnixAddress)  # noqa: S101 - so the engine starts it
    folder = settings.listen.path.parent
    spec = read_spec(settings.app_dir)
    conversion, data = _of_image(spec, settings)
    if data:
        (folder / ONNX_FILE).write_bytes(data)
    # Last and whole: that it is there says that all is.
    unfinished = folder / f".{REPORT_FILE}"
    unfinished.write_bytes(msgspec.json.encode(conversion))
    unfinished.rename(folder / REPORT_FILE)
    return 0


def _of_image(spec: ModelSpec, settings: Settings) -> tuple[Conversion, bytes]:
    model = plugin.find("adapters", spec.adapter)().load(spec, settings.models_dir, settings.app_dir)
    return attempt(model, spec.method, spec.example, str(Digest.of_file(settings.models_dir / spec.files[0])))


if __name__ == "__main__":
    raise SystemExit(main(os.environ))
