"""LightGBM models in its text format, run on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from corten.adapters.base import Inspection, Source, SourceFile
from corten.adapters.boosters import LightgbmModel
from corten.adapters.distributions import declares
from corten.adapters.lightgbm_facts import DISTRIBUTION, notes_of, requirement_of, schema_of, warnings_of
from corten.adapters.lightgbm_file import is_lightgbm, read_lightgbm
from corten.adapters.weights import declared, once_each
from corten.core.model import ModelSpec
from corten.errors import UsageError


class Lightgbm:
    """A file written by `Booster.save_model`."""

    name: ClassVar[str] = "lightgbm"

    def detect(self, source: Source) -> bool:
        """Whether the file starts as LightGBM's do."""
        return source.path.is_file() and is_lightgbm(source.path)

    def inspect(self, source: Source) -> Inspection:
        """Features and objective from the file alone. Raises UsageError for broken ones."""
        path = source.path
        file = read_lightgbm(path)
        if source.method not in ("", "predict"):
            raise UsageError(
                "adapter.unknown_method",
                f"a LightGBM booster has no method `{source.method}`",
                where=str(path),
                hint="leave `method` out: it answers as `Booster.predict` does",
            )
        requirement, said = requirement_of(file)
        return Inspection(
            adapter=self.name,
            requirements=(requirement, "numpy"),
            weights=once_each((SourceFile(path, path.name), *declared(source))),
            schema=schema_of(file),
            notes=tuple(notes_of(file)),
            warnings=(*([] if declares(source.requirements, DISTRIBUTION) else [said]), *warnings_of(file)),
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> LightgbmModel:
        """Read the file into a booster."""
        del app
        import lightgbm

        path = models / spec.files[0]
        schema = spec.schema or schema_of(read_lightgbm(path))
        return LightgbmModel(lightgbm.Booster(model_file=path, params={"verbosity": -1}), schema)
