"""XGBoost models in its own formats, JSON and UBJSON, run on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from corten.adapters.base import Inspection, Source, SourceFile
from corten.adapters.boosters import XgboostModel
from corten.adapters.weights import declared, once_each
from corten.adapters.xgboost_facts import cpu_requirement, methods_of, notes_of, python_for, schema_of, warnings_of
from corten.adapters.xgboost_file import is_xgboost, read_xgboost
from corten.core.model import ModelSpec
from corten.errors import UsageError


class Xgboost:
    """A file written by `save_model` of a Booster or of the scikit-learn wrapper."""

    name: ClassVar[str] = "xgboost"

    def detect(self, source: Source) -> bool:
        """Whether the file starts as XGBoost's do, JSON or UBJSON."""
        return source.path.is_file() and is_xgboost(source.path)

    def inspect(self, source: Source) -> Inspection:
        """Version, features and objective from the file alone. Raises UsageError for broken ones."""
        path = source.path
        file = read_xgboost(path)
        method = source.method or "predict"
        if method not in methods_of(file):
            raise UsageError(
                "adapter.unknown_method",
                f"this XGBoost model has no method `{method}`",
                where=str(path),
                why="it has " + ", ".join(methods_of(file)),
                hint="leave `method` out: its answers are those of `predict`",
            )
        return Inspection(
            adapter=self.name,
            requirements=(cpu_requirement(file.version), "numpy"),
            weights=once_each((SourceFile(path, path.name), *declared(source))),
            method=method,
            schema=schema_of(file, method),
            python=python_for(file.version),
            notes=tuple(notes_of(file, method, source.requirements)),
            warnings=tuple(warnings_of(file, source.requirements)),
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> XgboostModel:
        """Read the file into a booster."""
        del app
        import xgboost

        path = models / spec.files[0]
        file = read_xgboost(path)
        booster = xgboost.Booster()
        # By its bytes, so that the file's name, whatever it ends in, does not choose the format.
        booster.load_model(bytearray(path.read_bytes()))
        return XgboostModel(booster, file, spec.method, spec.schema or schema_of(file, spec.method))
