"""Predictors written for Cog (`class Predictor(BasePredictor)`), served unchanged and without Cog."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from corten.adapters import cog_names
from corten.adapters.base import Inspection, Source
from corten.adapters.py_inspection import inspection
from corten.adapters.py_shapes import COG, check_names, has_shape, named_files, shaped_class
from corten.adapters.py_source import check_contract, parse, served_class, static_schema
from corten.core.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from corten.adapters.py_call import PyModel


class Cog:
    """A class that inherits Cog's `BasePredictor`."""

    name: ClassVar[str] = COG

    def detect(self, source: Source) -> bool:
        """Whether the file's class is a predictor of Cog, told by its bases."""
        return has_shape(source, COG)

    def inspect(self, source: Source) -> Inspection:
        """As for any class; the files its text names are its model files. Raises UsageError."""
        path = source.path.absolute()
        tree = parse(path)
        served = served_class(tree, path, shaped_class(tree, source.entry, COG))
        check_contract(served, path)
        check_names(tree, COG, frozenset(cog_names.__all__), path)
        named = tuple(named_files(tree, path.parent))
        found = inspection(self.name, source, served, static_schema(tree, served), named=named, replaced=COG)
        note = "a predictor of Cog; Cog itself is not needed, files are data: URIs"
        return replace(found, notes=(note, *found.notes))

    def load(self, spec: ModelSpec, models: Path, app: Path) -> PyModel:
        """Import the class with stand-ins for Cog's names, set it up."""
        from corten.adapters.py_foreign import load_cog

        return load_cog(spec.entry, models, app)
