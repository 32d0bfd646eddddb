"""What an image needs of a Python class: its code, its model files, its requirements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from corten.adapters.base import Inspection, Source, SourceFile
from corten.adapters.distributions import distribution
from corten.adapters.py_files import Code, collect, inferred_requirements
from corten.adapters.py_requirements import declared_requirements
from corten.adapters.py_source import Served
from corten.adapters.weights import declared, once_each, visible
from corten.core.schema import Schema
from corten.errors import UsageError

MODEL_FOLDER = "model"


def inspection(
    adapter: str,
    source: Source,
    served: Served,
    schema: Schema | None,
    *,
    named: Iterable[SourceFile] = (),
    replaced: str = "",
) -> Inspection:
    """Put together what is known of a class. Raises UsageError for what cannot be served.

    `named` are further model files, `replaced` is a package that has a stand-in in the image.
    """
    path = source.path.absolute()
    if source.method not in ("", "predict"):
        raise UsageError(
            "adapter.unknown_method",
            f"a class is served by its `predict`, not by `{source.method}`",
            where=str(path),
            hint="rename the method to `predict`",
        )
    code = collect(path)
    weights = once_each((*(named or _model_files(path.parent)), *declared(source)))
    requirements, constraints, notes, warnings = _requirements(source, code, replaced)
    files = {Path(file.name).name for file in code.files}
    return Inspection(
        adapter=adapter,
        requirements=requirements,
        weights=weights,
        code=code.files,
        entry=f"{code.module}:{served.name}",
        schema=schema,
        notes=(
            f"class {served.name} of {path.name}, line {served.line}",
            f"code: {', '.join(sorted(files)[:5])}{' …' if len(files) > 5 else ''}",
            *notes,
        ),
        warnings=warnings,
        constraints=constraints,
    )


def _model_files(folder: Path) -> Iterator[SourceFile]:
    base = folder / MODEL_FOLDER
    # A package called `model` is code.
    if base.is_dir() and not (base / "__init__.py").exists():
        yield from (SourceFile(file, file.relative_to(base).as_posix()) for file in visible(base))


def _requirements(
    source: Source, code: Code, replaced: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Requirements, constraints, notes and warnings: what the files beside it say, else what the imports say.

    The builder puts the lines declared elsewhere (`corten.toml`, `--requirement`) over these, by name.
    """
    declared = declared_requirements(source.path.absolute().parent)
    if declared is not None:
        lines = tuple(line for line in declared.lines if distribution(line) != replaced)
        return lines, declared.constraints, (f"requirements from {declared.origin}",), ()
    if source.requirements:
        return (), (), ("requirements as declared",), ()
    lines, warnings = inferred_requirements({name: can for name, can in code.imports.items() if name != replaced})
    return lines, (), (f"requirements inferred from imports: {', '.join(lines) or 'none'}",), warnings
