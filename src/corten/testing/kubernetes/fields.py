"""Who owns which field: server-side apply as structured-merge-diff does it, for the kinds that are used here.

A field is a path of steps as `managedFields` writes them: `f:spec`, `k:{"name":"model"}` for the item of a list with
keys, and `.` for that item itself. Lists without keys, and selectors, are atomic.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]

_ATOMIC_MAPS = ("selector", "matchLabels", "labelSelector", "podSelector")
_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "conditions": ("type",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
# What the server says of an object, and nobody owns.
_SERVERS = {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"}


def owned(manifest: Mapping[str, Any]) -> set[Path]:
    """The fields that applying an object owns."""
    return {path for path in _paths(manifest) if not _is_servers(path)}


def merge(live: Any, applied: Any, field: str = "") -> Any:
    """The live value with what was applied over it."""
    if isinstance(live, dict) and isinstance(applied, Mapping) and field not in _ATOMIC_MAPS:
        return {**live, **{key: merge(live.get(key), value, key) for key, value in applied.items()}}
    keys = _list_keys(field, applied)
    if not keys or not isinstance(live, list):
        return json.loads(json.dumps(applied))
    result = list(live)
    for item in applied:
        place = next((index for index, other in enumerate(result) if _key(other, keys) == _key(item, keys)), None)
        if place is None:
            result.append(json.loads(json.dumps(item)))
        else:
            result[place] = merge(result[place], item)
    return result


def value_at(value: Any, path: Path) -> Any:
    """What a field has in an object; None where it is not there."""
    for step in path:
        if step == ".":
            return value is not None
        value = _step(value, step)
        if value is None:
            return None
    return value


def remove(value: Any, path: Path) -> None:
    """Take a field out of an object, and what is empty then."""
    *way, last = path
    trail = [value]
    for step in way:
        value = _step(value, step)
        if value is None:
            return
        trail.append(value)
    if last == ".":
        items = trail[-2] if len(trail) > 1 else None
        if isinstance(items, list) and value in items:
            items.remove(value)
    elif isinstance(value, dict):
        value.pop(last.removeprefix("f:"), None)


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> set[Path]:
    """The fields in which two states of an object differ."""
    paths = owned(before) | owned(after)
    return {path for path in paths if value_at(before, path) != value_at(after, path)}


def to_fields_v1(paths: set[Path]) -> dict[str, Any]:
    """As `managedFields` has them."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        place = tree
        for step in path:
            place = place.setdefault(step, {})
    return tree


def told(path: Path) -> str:
    """A field as conflicts name it: `.spec.template.spec.containers[name="model"].image`."""
    text = ""
    for step in path:
        if step.startswith("k:"):
            keys = json.loads(step[2:])
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
        elif step != ".":
            text += "." + step.removeprefix("f:")
    return text


def _paths(value: Any, at: Path = (), field: str = "") -> Iterator[Path]:
    if isinstance(value, Mapping) and value and field not in _ATOMIC_MAPS:
        for key, inner in value.items():
            yield from _paths(inner, (*at, f"f:{key}"), key)
        return
    keys = _list_keys(field, value)
    if keys and value:
        for item in value:
            step = f"k:{json.dumps(dict(zip(keys, _key(item, keys), strict=True)), separators=(',', ':'))}"
            yield (*at, step, ".")
            yield from _paths(item, (*at, step))
        return
    yield at


def _is_servers(path: Path) -> bool:
    match path:
        case ("f:apiVersion" | "f:kind" | "f:status", *_):
            return True
        case ("f:metadata", field, *_):
            return field.removeprefix("f:") in _SERVERS
        case _:
            return False


def _list_keys(field: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        return ()
    if field == "ports" and value:
        return ("containerPort", "protocol") if "containerPort" in value[0] else ("port", "protocol")
    return _KEYS.get(field, ())


def _key(item: Any, keys: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(item.get(key, "TCP" if key == "protocol" else None) for key in keys)


def _step(value: Any, step: str) -> Any:
    if step.startswith("f:"):
        return value.get(step[2:]) if isinstance(value, dict) else None
    keys = json.loads(step[2:])
    if not isinstance(value, list):
        return None
    return next((item for item in value if _key(item, tuple(keys)) == tuple(keys.values())), None)
