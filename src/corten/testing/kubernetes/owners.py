"""What controllers make of objects, and that it goes with these: the garbage collector of the small cluster."""

from __future__ import annotations

from typing import Any

from corten.testing.kubernetes.objects import Key, Object, Objects


def made(objects: Objects, key: Key, owner: Object, body: Object) -> Object | None:
    """An object as a controller wants it for its owner; None while one of that name is somebody else's.

    `body` is all of it but who it belongs to; fields of others are kept.
    """
    live = objects.items.get(key)
    if live is not None and not is_controlled(live, owner):
        return None
    metadata: dict[str, Any] = {**(live or {}).get("metadata", {}), **body.get("metadata", {})}
    metadata["ownerReferences"] = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
            "controller": True,
        }
    ]
    return objects.put(key, {**(live or {}), **body, "metadata": metadata})


def is_controlled(one: Object, owner: Object) -> bool:
    """Whether it was made for that owner, and not for an earlier one of the same name."""
    return bool(controller(one).get("uid") == owner["metadata"]["uid"])


def controller(one: Object) -> Object:
    """Who it was made for; empty where somebody made it by itself."""
    return next((ref for ref in one["metadata"].get("ownerReferences", []) if ref.get("controller")), {})


def collect(objects: Objects) -> None:
    """End what belongs to nobody any more. Pods take their time, and are ended by who runs them."""
    there = {one["metadata"]["uid"] for one in objects.items.values()}
    for key, one in list(objects.items.items()):
        uid = controller(one).get("uid")
        if key[0] != "pods" and uid and uid not in there:
            objects.delete(key)
