"""What changed between two schemas, and whether a client of the one is still understood by the other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corten.core.schema import Parameter, Schema, Stream, Tensor

# Keys of a JSON Schema that describe and do not constrain (JSON Schema 2020-12 validation, section 9).
_ANNOTATIONS = frozenset(("title", "description", "examples", "default", "deprecated"))


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """One change in words; `breaking` when a request that was right may be refused now, or an answer not understood."""

    what: str
    breaking: bool


def schema_changes(before: Schema | None, after: Schema | None) -> tuple[SchemaChange, ...]:
    """The changes from one schema to the next, the breaking ones first. No schema at all promises nothing."""
    if before == after or before is None:
        return ()
    if after is None:
        return (SchemaChange("the schema is gone", breaking=True),)
    if before.style is not after.style:
        return (SchemaChange(f"requests are {after.style.value}, were {before.style.value}", breaking=True),)
    found = [
        *_tensors("input", before.inputs, after.inputs),
        *_tensors("output", before.outputs, after.outputs),
        *_parameters(before.parameters, after.parameters),
        *_returns(before.returns, after.returns),
        *_stream(before.stream, after.stream),
    ]
    return tuple(sorted(found, key=lambda change: not change.breaking))


def _stream(before: Stream | None, after: Stream | None) -> Iterator[SchemaChange]:
    if before is not after:
        how = "piece by piece" if after else "whole"
        yield SchemaChange(
            f"answers come {how}" if not (before and after) else "pieces make another whole", breaking=True
        )


def _tensors(noun: str, before: Sequence[Tensor], after: Sequence[Tensor]) -> Iterator[SchemaChange]:
    old, new = {one.name: one for one in before}, {one.name: one for one in after}
    for name in sorted(old.keys() - new.keys()):
        yield SchemaChange(f"{noun} `{name}` is gone", breaking=True)
    for name in sorted(new.keys() - old.keys()):
        # A client does not know that it has to send one more; it need not look at one more that comes.
        yield SchemaChange(f"{noun} `{name}` is new", breaking=noun == "input")
    for name in sorted(old.keys() & new.keys()):
        yield from _tensor(noun, old[name], new[name])


def _tensor(noun: str, old: Tensor, new: Tensor) -> Iterator[SchemaChange]:
    if old.dtype is not new.dtype:
        # The Open Inference Protocol names the type in every request: another one is another request.
        yield SchemaChange(f"{noun} `{new.name}` is {new.dtype.value}, was {old.dtype.value}", breaking=True)
    if old.shape != new.shape:
        wider, narrower = (old.shape, new.shape) if noun == "output" else (new.shape, old.shape)
        what = f"{noun} `{new.name}` has the shape {_shape(new.shape)}, had {_shape(old.shape)}"
        yield SchemaChange(what, breaking=not _takes(wider, narrower))
    if old.columns != new.columns:
        # Rows without names are taken in the order of the columns, so another order is another meaning.
        yield SchemaChange(
            f"{noun} `{new.name}` has other columns: {_columns(old.columns, new.columns)}", breaking=True
        )


def _takes(wide: Sequence[int | None], narrow: Sequence[int | None]) -> bool:
    """Whether everything of the narrow shape is of the wide one."""
    return len(wide) == len(narrow) and all(have in (None, want) for have, want in zip(wide, narrow, strict=True))


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("*" if length is None else str(length) for length in shape) + "]"


def _columns(before: Sequence[str], after: Sequence[str]) -> str:
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    parts = [*(f"-{name}" for name in gone), *(f"+{name}" for name in new)]
    return ", ".join(parts) or "another order"


def _parameters(before: Sequence[Parameter], after: Sequence[Parameter]) -> Iterator[SchemaChange]:
    old, new = {one.name: one for one in before}, {one.name: one for one in after}
    for name in sorted(old.keys() - new.keys()):
        yield SchemaChange(f"parameter `{name}` is gone", breaking=True)
    for name in sorted(new.keys() - old.keys()):
        required = new[name].required
        yield SchemaChange(f"parameter `{name}` is new" + (" and required" if required else ""), breaking=required)
    for name in sorted(old.keys() & new.keys()):
        one, other = old[name], new[name]
        if one.required is not other.required:
            what = f"parameter `{name}` is {'required now' if other.required else 'optional now'}"
            yield SchemaChange(what, breaking=other.required)
        if _constraints(one.json_schema) != _constraints(other.json_schema):
            yield SchemaChange(f"parameter `{name}` has another type", breaking=True)


def _returns(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[SchemaChange]:
    if _constraints(before) == _constraints(after):
        return
    old, new = before.get("properties"), after.get("properties")
    grown = isinstance(old, Mapping) and isinstance(new, Mapping) and all(new.get(key) == old[key] for key in old)
    yield SchemaChange("the answer has " + ("more fields" if grown else "another type"), breaking=not grown)


def _constraints(document: Any) -> Any:
    """A JSON Schema without what only describes. Names of properties may be anything, `title` too, and stay."""
    if isinstance(document, Mapping):
        return {
            key: {name: _constraints(one) for name, one in value.items()}
            if key in ("properties", "$defs") and isinstance(value, Mapping)
            else _constraints(value)
            for key, value in document.items()
            if key not in _ANNOTATIONS
        }
    if isinstance(document, list):
        return [_constraints(one) for one in document]
    return document
