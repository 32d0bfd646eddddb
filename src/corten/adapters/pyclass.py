"""A plain Python class with a typed `predict`: `file.py:Class`.

The contract, all that a class needs to be served::

    class Annotator:
        def __init__(self, models: Path = Path(__file__).parent / "model") -> None: ...   # or setup(self)
        def predict(self, text: str, top: int = 3) -> list[Label]: ...
        def predict_batch(self, calls: list[Call]) -> list[list[Label]]: ...              # optional: joined calls

Files in a folder `model/` beside the source go below /models, without the `model/`; the class finds that folder in
`models`, or in the environment as CORTEN_MODELS_DIR.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from corten.adapters.base import Inspection, Source
from corten.adapters.py_inspection import inspection
from corten.adapters.py_source import check_contract, is_python, parse, served_class, static_schema
from corten.core.model import ModelSpec

if TYPE_CHECKING:
    from corten.adapters.py_call import PyModel


class PyClass:
    """A class of the user's own."""

    name: ClassVar[str] = "pyclass"

    def detect(self, source: Source) -> bool:
        """Whether it is a Python file."""
        return is_python(source.path)

    def inspect(self, source: Source) -> Inspection:
        """The class, its code, its model files and what it imports. Raises UsageError for what cannot be served."""
        path = source.path.absolute()
        tree = parse(path)
        served = served_class(tree, path, source.entry)
        check_contract(served, path)
        return inspection(self.name, source, served, static_schema(tree, served))

    def load(self, spec: ModelSpec, models: Path, app: Path) -> PyModel:
        """Import the class, make it, read its types."""
        # msgspec is imported with it, which the builder's side of this adapter does not need.
        from corten.adapters.py_call import PyModel, make_instance

        return PyModel(make_instance(spec.entry, models, app))
