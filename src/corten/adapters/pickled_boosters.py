"""Boosters of XGBoost and LightGBM in pickles: each holds its model whole, in the library's own format.

The reader of pickles steps over large bytes, so the model is looked for in the file itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from corten.adapters import lightgbm_facts, xgboost_facts
from corten.adapters.base import Inspection, RowsModel, Source, SourceFile
from corten.adapters.boosters import LightgbmModel, XgboostModel
from corten.adapters.distributions import declares
from corten.adapters.lightgbm_file import LightgbmFile, lightgbm_in
from corten.adapters.plainfile import open_plain
from corten.adapters.standins import Global
from corten.adapters.weights import declared, once_each
from corten.adapters.xgboost_file import XgboostFile, xgboost_in
from corten.core.model import ModelSpec
from corten.errors import UsageError

_PICKLED = "a pickle runs what it names; it is let name only what models need. `save_model` writes data alone"
XGBOOST = Global("xgboost.core", "Booster")
_File = TypeVar("_File", XgboostFile, LightgbmFile)
# More is not read into memory only to tell a version.
_MOST_BYTES = 1 << 30


def xgboost_of(path: Path) -> XgboostFile | None:
    """The first booster of XGBoost in a pickle, compressed or not."""
    return xgboost_in(_plain(path))


def lightgbm_of(path: Path) -> LightgbmFile | None:
    """The first booster of LightGBM in a pickle, compressed or not."""
    return lightgbm_in(_plain(path))


def requirement_of(booster: XgboostFile | None) -> str:
    """What a wrapper's pickle needs for the booster in it; empty for none."""
    return xgboost_facts.cpu_requirement(booster.version) if booster else ""


def python_of(booster: XgboostFile | None) -> str:
    """The Python the booster's release asks for; empty where any does."""
    return xgboost_facts.python_for(booster.version) if booster else ""


def inspection(adapter: str, source: Source, cls: Global) -> Inspection:
    """What is known of a pickle whose object is a booster. Raises UsageError when its model cannot be read."""
    path = source.path
    if source.method not in ("", "predict"):
        raise UsageError(
            "adapter.unknown_method",
            f"a booster has no method `{source.method}`",
            where=str(path),
            hint="leave `method` out, or save the scikit-learn wrapper",
        )
    weights = once_each((SourceFile(path, path.name), *declared(source)))
    if cls == XGBOOST:
        file = _found(xgboost_of(path), path)
        return Inspection(
            adapter=adapter,
            requirements=(xgboost_facts.cpu_requirement(file.version), "numpy"),
            weights=weights,
            schema=xgboost_facts.schema_of(file, "predict"),
            python=xgboost_facts.python_for(file.version),
            notes=(*xgboost_facts.notes_of(file, "predict", source.requirements), _PICKLED),
            warnings=tuple(xgboost_facts.warnings_of(file, source.requirements)),
        )
    model = _found(lightgbm_of(path), path)
    requirement, said = lightgbm_facts.requirement_of(model)
    return Inspection(
        adapter=adapter,
        requirements=(requirement, "numpy"),
        weights=weights,
        schema=lightgbm_facts.schema_of(model),
        notes=(*lightgbm_facts.notes_of(model), _PICKLED),
        warnings=(
            *([] if declares(source.requirements, lightgbm_facts.DISTRIBUTION) else [said]),
            *lightgbm_facts.warnings_of(model),
        ),
    )


def model(booster: Any, path: Path, spec: ModelSpec) -> RowsModel:
    """An unpickled booster, ready to answer."""
    if type(booster).__module__ == XGBOOST.module:
        file = _found(xgboost_of(path), path)
        return XgboostModel(booster, file, spec.method, spec.schema or xgboost_facts.schema_of(file, spec.method))
    return LightgbmModel(booster, spec.schema or lightgbm_facts.schema_of(_found(lightgbm_of(path), path)))


def _found(file: _File | None, path: Path) -> _File:
    if file is None:
        raise UsageError(
            "adapter.not_a_model",
            f"the booster in `{path.name}` has no model that can be read",
            where=str(path),
            why="a fitted booster holds it in XGBoost's or LightGBM's own format",
            hint="save it by `booster.save_model(path)`",
        )
    return file


def _plain(path: Path) -> memoryview:
    with open_plain(path) as (stream, _):
        return memoryview(stream.read(_MOST_BYTES))
