"""What fields an object may have, by the schemas of `kubernetes-validate` where that is installed.

The words are those of the API server (structured-merge-diff's for what is applied).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]
_DEFINITIONS = "#/$defs/"


def mistakes(manifest: Mapping[str, Any], version: str) -> list[str]:
    """The fields that its kind does not have in that version of Kubernetes, or has as something else: `.spec.x: why`.

    None for kinds that are not Kubernetes' own, and without the schemas.
    """
    schemas, kinds = _schemas(version)
    group, _, of = manifest["apiVersion"].rpartition("/")
    name = kinds.get((group, of, manifest["kind"]))
    return list(_walk(schemas[name], manifest, "", schemas)) if name else []


def _walk(schema: Schema, value: Any, path: str, schemas: Mapping[str, Schema]) -> Iterator[str]:
    if "$ref" in schema:
        schema = schemas[schema["$ref"].removeprefix(_DEFINITIONS)]
    if value is None:
        return
    types = _types(schema)
    if types and not any(_fits(value, one) for one in types):
        expected = {"integer": "numeric (int or float)", "number": "numeric (int or float)", "object": "map"}
        name = next(iter(types))
        yield f"{path}: expected {expected.get(name, name)}, got {json.dumps(value)}"
        return
    if isinstance(value, Mapping):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, inner in value.items():
            at = f"{path}.{key}"
            if key in properties:
                yield from _walk(properties[key], inner, at, schemas)
            elif isinstance(others, Mapping):
                yield from _walk(others, inner, at, schemas)
            elif properties:
                yield f"{at}: field not declared in schema"
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        for number, inner in enumerate(value):
            yield from _walk(schema.get("items", {}), inner, f"{path}{_place(inner, number, keys)}", schemas)


def _place(item: Any, number: int, keys: list[str]) -> str:
    if not keys or not isinstance(item, Mapping) or not all(key in item for key in keys):
        return f"[{number}]"
    return "[" + ",".join(f"{key}={json.dumps(item[key])}" for key in keys) + "]"


def _types(schema: Schema) -> set[str]:
    found = {one for option in schema.get("oneOf", []) for one in _types(option)}
    stated = schema.get("type", [])
    return (found | {stated} if isinstance(stated, str) else found | set(stated)) - {"null"}


def _fits(value: Any, name: str) -> bool:
    match name:
        case "integer" | "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, Mapping)


@cache
def _schemas(version: str) -> tuple[Mapping[str, Schema], Mapping[tuple[str, str, str], str]]:
    """Definitions by name, and the names of kinds by group, version and kind."""
    package = importlib.util.find_spec("kubernetes_validate")
    if package is None or package.origin is None:
        return {}, {}
    folder = Path(package.origin).parent / "kubernetes-json-schema" / f"v{version}.0-local"
    definitions: Mapping[str, Schema] = json.loads((folder / "_definitions.json").read_bytes())["$defs"]
    kinds = {
        (kind["group"], kind["version"], kind["kind"]): name
        for name, schema in definitions.items()
        for kind in schema.get("x-kubernetes-group-version-kind", [])
    }
    return definitions, kinds
