"""Read what an XGBoost model file says of itself: JSON or UBJSON, by the same keys.

The keys are XGBoost's (doc/model.schema in its repository): `version`, and under `learner` the objective, the names
and types of the features, `learner_model_param` and the attributes its scikit-learn wrapper adds. Numbers are texts.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corten.adapters import json_members, ubjson
from corten.adapters.corrupt import corrupt

# The first key of a file written by XGBoost: keys are sorted, and only 1.0 and 1.1 had `Config` before it.
_JSON_START = re.compile(rb'\s*\{\s*"(?:learner|version|Config|Model)"\s*:')
_UBJSON_START = re.compile(rb"\{L\x00\x00\x00\x00\x00\x00\x00.(?:learner|version|Config|Model)", re.DOTALL)
# What `Booster.__getstate__` keeps.
_PICKLED = re.compile(rb"\{L\x00{7}\x06Config\{")
_HEAD_BYTES = 512
_CLASSIFIERS = ("binary:", "multi:")


@dataclass(frozen=True, slots=True)
class XgboostFile:
    """What the file tells. `estimator` is "classifier" or the like when the scikit-learn wrapper wrote it.

    `n_classes` is 0 for other objectives than those of several classes; `trees` are kept up to the best iteration
    only when that is set (early stopping), by those who predict through the wrapper.
    """

    format: str
    version: tuple[int, ...]
    objective: str
    booster: str
    n_features: int
    n_classes: int
    n_targets: int
    columns: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    estimator: str = ""
    best_iteration: int | None = None

    @property
    def release(self) -> str:
        """The version as it is written, `3.2.0`; empty for files before 1.0 that tell none."""
        return ".".join(str(part) for part in self.version)

    @property
    def is_classifier(self) -> bool:
        """Whether `predict` of the wrapper gives labels."""
        return self.estimator == "classifier" and self.objective.startswith(_CLASSIFIERS)


def is_xgboost(path: Path) -> bool:
    """Whether the file starts as a model of XGBoost does; never raises for content."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if _UBJSON_START.match(head):
        return True
    # `version` alone is the first key of much that is no model.
    return bool(_JSON_START.match(head)) and any(mark in head for mark in (b'"attributes"', b'"learner"', b'"Model"'))


def read_xgboost(path: Path) -> XgboostFile:
    """Read the file's head. Raises UsageError (`adapter.corrupt_model`) with the byte offset and the reason."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if _UBJSON_START.match(data):
                return _facts(ubjson.read(data), "UBJSON")
            return _facts(_skeleton(json_members.whole(data)), "JSON")
    except (ValueError, KeyError, TypeError, json_members.BrokenError, ubjson.BrokenError) as error:
        hint = "save it again with `model.save_model(path)`, and copy it in binary mode"
        raise corrupt(path, "is not a complete XGBoost model", error, hint=hint) from None


def xgboost_in(data: memoryview) -> XgboostFile | None:
    """The model in the bytes of a pickle, which has boosters in UBJSON; None when there is none to be read."""
    found = _PICKLED.search(data)
    if not found:
        return None
    try:
        return _facts(ubjson.read(data[found.start() :]), "UBJSON in a pickle")
    except (ValueError, KeyError, TypeError, ubjson.BrokenError):
        return None


def _skeleton(document: json_members.Span) -> dict[str, Any]:
    """The document without its trees."""
    top = document.members()
    if "Model" in top:  # what pickles and checkpoints hold: `Config` and `Model`
        top = top["Model"].members()
    learner = top["learner"].members()
    booster = learner["gradient_booster"].members()
    return {
        "version": top["version"].value() if "version" in top else [],
        "learner": {key: value.value() for key, value in learner.items() if key != "gradient_booster"}
        | {"gradient_booster": {"name": booster["name"].value()}},
    }


def _facts(document: Any, form: str) -> XgboostFile:
    document = document.get("Model", document)
    learner = document["learner"]
    parameters: Mapping[str, Any] = learner["learner_model_param"]
    attributes: Mapping[str, Any] = learner.get("attributes", {})
    version = tuple(int(part) for part in document.get("version", ()))
    n_features = int(parameters["num_feature"])
    columns = _texts(learner.get("feature_names"))
    if n_features < 1 or len(columns) not in (0, n_features):
        raise ValueError(f"{n_features} features and {len(columns)} names of them")
    best = attributes.get("best_iteration")
    return XgboostFile(
        format=form,
        version=version if len(version) == 3 and min(version) >= 0 else (),
        objective=str(learner["objective"]["name"]),
        booster=str(learner["gradient_booster"]["name"]),
        n_features=n_features,
        n_classes=int(parameters.get("num_class", 0)),
        n_targets=int(parameters.get("num_target", 1)),
        columns=columns if len(set(columns)) == len(columns) else (),
        types=_texts(learner.get("feature_types")),
        estimator=_estimator(attributes),
        best_iteration=int(best) if isinstance(best, str) and best.isdigit() else None,
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _estimator(attributes: Mapping[str, Any]) -> str:
    """What `XGBModel.save_model` adds: `scikit_learn`, a JSON text. 1.x wrote `type` and the classes into it."""
    text = attributes.get("scikit_learn")
    if not isinstance(text, str):
        return ""
    try:
        told = json.loads(text)
    except ValueError:
        return ""
    kind = told.get("_estimator_type") if isinstance(told, dict) else None
    return kind if isinstance(kind, str) else ""
