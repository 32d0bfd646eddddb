"""APIs written for LitServe (`class API(ls.LitAPI)`), served unchanged and without LitServe."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace

from corten.adapters import litserve_names
from corten.adapters.base import Inspection, Source
from corten.adapters.py_inspection import inspection
from corten.adapters.py_shapes import LITSERVE, check_names, has_shape, litserve_schema, named_files, shaped_class
from corten.adapters.py_source import check_contract, parse, served_class
from corten.core.model import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

    from corten.adapters.py_foreign import LitModel


class LitServe:
    """A class that inherits LitServe's `LitAPI`."""

    name: ClassVar[str] = LITSERVE

    def detect(self, source: Source) -> bool:
        """Whether the file's class is an API of LitServe, told by its bases."""
        return has_shape(source, LITSERVE)

    def inspect(self, source: Source) -> Inspection:
        """As for any class; the keys of a request are those `decode_request` reads. Raises UsageError."""
        path = source.path.absolute()
        tree = parse(path)
        served = served_class(tree, path, shaped_class(tree, source.entry, LITSERVE))
        check_contract(served, path, given=("device",))
        check_names(tree, LITSERVE, frozenset(litserve_names.__all__), path)
        named = tuple(named_files(tree, path.parent))
        found = inspection(self.name, source, served, litserve_schema(served, path), named=named, replaced=LITSERVE)
        note = "an API of LitServe; LitServe itself is not needed, requests are answered one by one on the processor"
        return replace(found, notes=(note, *found.notes))

    def load(self, spec: ModelSpec, models: Path, app: Path) -> LitModel:
        """Import the class with stand-ins for LitServe's names, set it up."""
        from corten.adapters.py_foreign import load_litserve

        return load_litserve(spec.entry, models, app, spec.schema)
