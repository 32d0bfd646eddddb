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

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from corten.adapters.base import Inspection, Source, SourceFile
from corten.adapters.py_files import Code, collect, declared_requirements, inferred_requirements
from corten.adapters.py_source import check_contract, parse, served_class, static_schema
from corten.adapters.weights import declared, once_each, visible
from corten.core.model import ModelSpec
from corten.errors import UsageError

if TYPE_CHECKING:
    from corten.adapters.py_call import PyModel

MODEL_FOLDER = "model"


class PyClass:
    """A class of the user's own."""

    name: ClassVar[str] = "pyclass"

    def detect(self, source: Source) -> bool:
        """Whether it is a Python file: that is what its name says, since only `.py` files can be imported."""
        return source.path.suffix == ".py" and source.path.is_file()

    def inspect(self, source: Source) -> Inspection:
        """The class, its code, its model files and what it imports. Raises UsageError for what cannot be served."""
        path = source.path.absolute()
        tree = parse(path)
        served = served_class(tree, path, source.entry)
        check_contract(served, path)
        if source.method not in ("", "predict"):
            raise UsageError(
                "adapter.unknown_method",
                f"a class is served by its `predict`, not by `{source.method}`",
                where=str(path),
                hint="rename the method to `predict`",
            )
        code = collect(path)
        weights = once_each((*_model_files(path.parent), *declared(source)))
        requirements, notes, warnings = _requirements(source, code)
        named = {Path(file.name).name for file in code.files}
        return Inspection(
            adapter=self.name,
            requirements=requirements,
            weights=weights,
            code=code.files,
            entry=f"{code.module}:{served.name}",
            schema=static_schema(tree, served),
            notes=(
                f"class {served.name} of {path.name}, line {served.line}",
                f"code: {', '.join(sorted(named)[:5])}{' …' if len(named) > 5 else ''}",
                *notes,
            ),
            warnings=warnings,
        )

    def load(self, spec: ModelSpec, models: Path, app: Path) -> PyModel:
        """Import the class, make it, read its types."""
        # msgspec is imported with it, which the builder's side of this adapter does not need.
        from corten.adapters.py_call import PyModel, make_instance

        return PyModel(make_instance(spec.entry, models, app))


def _model_files(folder: Path) -> Iterator[SourceFile]:
    base = folder / MODEL_FOLDER
    # A package called `model` is code.
    if base.is_dir() and not (base / "__init__.py").exists():
        yield from (SourceFile(file, file.relative_to(base).as_posix()) for file in visible(base))


def _requirements(source: Source, code: Code) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Requirements, notes and warnings: what the files beside it say, else what the imports say.

    The builder puts the lines declared elsewhere (`corten.toml`, `--requirement`) over these, by name.
    """
    listed = declared_requirements(source.path.absolute().parent)
    if listed is not None:
        lines, where = listed
        return lines, (f"requirements from {where}",), ()
    if source.requirements:
        return (), ("requirements as declared",), ()
    lines, warnings = inferred_requirements(code.imports)
    return lines, (f"requirements inferred from imports: {', '.join(lines) or 'none'}",), warnings
