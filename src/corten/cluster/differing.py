"""Where what is there is not what was wanted: field by field, with who wrote it. Pure.

Only fields that were wanted are compared: defaults and what controllers add are nobody's mistake.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corten.cluster.port import MANAGER, Manifest
from corten.exporters.quantity import parse_quantity

# Lists whose items are told apart by a field (structured merge keys of the API).
_KEYS = ("name", "containerPort", "mountPath", "topologyKey", "type", "port")
_AMOUNTS = ("requests", "limits", "sizeLimit", "tolerance")
# Managers, each with what it owns (`fieldsV1`) of some part of an object.
Owners = Sequence[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Difference:
    """One field: what it was to be, what it is (None: not there)."""

    kind: str
    name: str
    path: str
    wanted: Any
    found: Any
    owners: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As it stands in `--json` output."""
        return {
            "kind": self.kind,
            "name": self.name,
            "path": self.path,
            "wanted": self.wanted,
            "found": self.found,
            "owners": list(self.owners),
        }


def differences(wanted: Manifest, found: Manifest | None) -> list[Difference]:
    """All fields of one object that are not as wanted; the object itself when it is not there."""
    kind, name = str(wanted["kind"]), str(wanted["metadata"]["name"])
    if found is None:
        return [Difference(kind, name, "", "there", None)]
    # Not all of them own every field: controllers write a status to each object.
    owners = [
        (str(entry.get("manager", "")), entry.get("fieldsV1", {}))
        for entry in found["metadata"].get("managedFields", [])
        if not str(entry.get("manager", "")).startswith(MANAGER)
    ]
    return [
        Difference(kind, name, path, want, have, tuple(sorted({who for who, _ in whose})))
        for path, want, have, whose in _walk(wanted, found, "", owners)
    ]


def _walk(wanted: Any, found: Any, path: str, owners: Owners) -> Iterator[tuple[str, Any, Any, Owners]]:
    """`owners` are those who own something here, with what they own of it."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for key, inner in wanted.items():
            # A dot within a key would look like two.
            step = f"[{key}]" if "." in key else f".{key}"
            yield from _walk(inner, found.get(key), f"{path}{step}", _of(owners, f"f:{key}"))
        return
    key = _key_of(wanted)
    if key and isinstance(found, Sequence) and not isinstance(found, str):
        for item in wanted:
            other = next((each for each in found if isinstance(each, Mapping) and each.get(key) == item[key]), None)
            yield from _walk(item, other, f"{path}[{item[key]}]", _of_item(owners, key, item[key]))
        return
    if wanted != found and not _same_amount(wanted, found, path):
        # What is empty is left out by the API.
        if not wanted and not found and not isinstance(wanted, bool | int):
            return
        yield path.removeprefix("."), wanted, found, owners


def _of(owners: Owners, step: str) -> Owners:
    """Who owns a field below, with what; who owns the whole of an atomic one (no steps are below it) owns that too."""
    return [(who, fields.get(step, {})) for who, fields in owners if step in fields or not fields]


def _of_item(owners: Owners, key: str, value: Any) -> Owners:
    """The same for an item of a list: its step has all keys of the list, of which one is enough here."""
    return [
        (who, fields.get(step, {}))
        for who, fields in owners
        for step in (fields or [""])
        if not step or (step.startswith("k:") and json.loads(step[2:]).get(key) == value)
    ]


def _key_of(value: Any) -> str:
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        return ""
    return next((key for key in _KEYS if all(key in item for item in value)), "")


def _same_amount(wanted: Any, found: Any, path: str) -> bool:
    if not any(word in path for word in _AMOUNTS) or not isinstance(found, str | int):
        return False
    amount = parse_quantity(wanted) if isinstance(wanted, str | int) else None
    return amount is not None and amount == parse_quantity(found)
