"""The objects of the small API server: versions, owners of fields, and everything that ever changed."""

from __future__ import annotations

import bisect
import copy
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from corten.testing.kubernetes import fields, statuses

Object = dict[str, Any]
# Plural, namespace, name.
Key = tuple[str, str, str]


class Writer(NamedTuple):
    """Who owns fields, as `managedFields` tells writers apart; `operation` is Apply or Update."""

    manager: str
    operation: str
    subresource: str = ""


Owners = dict[Writer, set[fields.Path]]
_CONTROLLERS = Writer("kube-controller-manager", "Update", "status")
_NODES = Writer("kubelet", "Update", "status")


@dataclass
class Objects:
    """What is stored. All methods are to be called with `changed` held, which wakes watches."""

    items: dict[Key, Object] = field(default_factory=dict)
    owners: dict[Key, Owners] = field(default_factory=dict)
    times: dict[Key, dict[Writer, str]] = field(default_factory=dict)  # when a writer changed something last
    log: list[tuple[int, str, str, str, Object]] = field(default_factory=list)  # version, type, plural, namespace
    version: int = 100
    oldest: int = 0  # watches from before that get a 410
    changed: threading.Condition = field(default_factory=threading.Condition)

    def apply(
        self,
        key: Key,
        wanted: Mapping[str, Any],
        manager: str,
        *,
        force: bool,
        check: Callable[[Object | None, Object], None],
    ) -> Object:
        """Server-side apply. Raises RefusedError for what others own."""
        live = self.items.get(key)
        mine = fields.owned(wanted)
        owners = copy.deepcopy(self.owners.get(key, {}))
        writer = Writer(manager, "Apply")
        before = owners.pop(writer, set())
        if live is not None:
            conflicts = [
                (fields.told(path), _told(other, live))
                for other, theirs in sorted(owners.items())
                for path in sorted(mine & theirs)
                if fields.value_at(live, path) != fields.value_at(wanted, path)
            ]
            if conflicts and not force:
                raise statuses.owned_by_others(conflicts)
            for who in owners:
                owners[who] -= {
                    path for path in mine & owners[who] if fields.value_at(live, path) != fields.value_at(wanted, path)
                }
        made = fields.merge(live or {}, wanted)
        for path in sorted(before - mine, key=len, reverse=True):
            if not any(path in theirs for theirs in owners.values()):
                fields.remove(made, path)
        check(live, made)
        owners[writer] = mine
        return self._write(key, made, {who: paths for who, paths in owners.items() if paths}, writer)

    def update(self, key: Key, made: Object, manager: str, subresource: str = "") -> Object:
        """Any other write: what it changes is the writer's from then on."""
        live, writer = self.items.get(key, {}), Writer(manager, "Update", subresource)
        differing = fields.changed(live, made)
        owners = {who: paths - differing for who, paths in self.owners.get(key, {}).items()}
        owners.setdefault(writer, set()).update(differing)
        return self._write(key, made, {who: paths for who, paths in owners.items() if paths}, writer)

    def set_status(self, key: Key, status: Mapping[str, Any], manager: str = "") -> None:
        """What a controller (empty: the one whose it is) says of an object; nothing is written when it is the same."""
        live = self.items[key]
        if live.get("status") != status:
            writer = _NODES if key[0] == "pods" else _CONTROLLERS
            writer = Writer(manager, *writer[1:]) if manager else writer
            owners = dict(self.owners.get(key, {}))
            owners[writer] = {("f:status", f"f:{name}") for name in status}
            self._write(key, {**live, "status": copy.deepcopy(dict(status))}, owners, writer)

    def rehearse(self, key: Key) -> Callable[[], None]:
        """Gives what takes back all that is done to an object from now on."""
        live, owners, version, length = self.items.get(key), self.owners.get(key), self.version, len(self.log)
        times = dict(self.times.get(key, {}))

        def undo() -> None:
            self.version = version
            del self.log[length:]
            for table in (self.items, self.owners, self.times):
                table.pop(key, None)
            if live is not None:
                self.items[key] = live
                self.owners[key] = owners or {}
                self.times[key] = times

        return undo

    def put(self, key: Key, made: Object) -> Object:
        """An object that a controller makes."""
        return self._write(key, made, self.owners.get(key, {}))

    def delete(self, key: Key) -> None:
        """Gone; watches are told."""
        gone = self.items.pop(key)
        self.owners.pop(key, None)
        self.times.pop(key, None)
        self._tell("DELETED", key, gone)

    def now(self, plural: str, namespace: str) -> list[Object]:
        """What is there."""
        found = [one for key, one in sorted(self.items.items()) if key[0] == plural and namespace in ("", key[1])]
        return copy.deepcopy(found)

    def since(self, version: int, plural: str, namespace: str) -> list[tuple[int, str, Object]]:
        """What changed after a version."""
        begin = bisect.bisect_right(self.log, version, key=lambda entry: entry[0])
        return [
            (at, kind, made)
            for at, kind, of, within, made in self.log[begin:]
            if of == plural and namespace in ("", within)
        ]

    def _write(self, key: Key, made: Object, owners: Owners, writer: Writer | None = None) -> Object:
        live = self.items.get(key)
        _, namespace, name = key
        made = copy.deepcopy(made)
        metadata = made.setdefault("metadata", {})
        old = live["metadata"] if live else {}
        specified = live is None or {**made, "status": 0, "metadata": 0} != {**live, "status": 0, "metadata": 0}
        times = dict(self.times.get(key, {}))
        if writer and (live is None or _content(live) != _content(made) or owners != self.owners[key]):
            times[writer] = _now()
        metadata |= {
            "name": name,
            "uid": old.get("uid") or f"uid-{self.version + 1}",
            "creationTimestamp": old.get("creationTimestamp") or _now(),
            "generation": old.get("generation", 0) + bool(specified),
            "managedFields": [
                {
                    "manager": who.manager,
                    "operation": who.operation,
                    **({"subresource": who.subresource} if who.subresource else {}),
                    "apiVersion": made["apiVersion"],
                    "time": times[who],
                    "fieldsType": "FieldsV1",
                    "fieldsV1": fields.to_fields_v1(paths),
                }
                for who, paths in sorted(owners.items())
            ],
        }
        if namespace:
            metadata["namespace"] = namespace
        self.times[key] = {who: times[who] for who in owners}
        if live is not None and _without_version(live) == _without_version(made):
            self.owners[key] = owners
            return live
        self.items[key] = made
        self.owners[key] = owners
        self._tell("MODIFIED" if live else "ADDED", key, made)
        return made

    def _tell(self, kind: str, key: Key, made: Object) -> None:
        self.version += 1
        made["metadata"]["resourceVersion"] = str(self.version)
        self.log.append((self.version, kind, key[0], key[1], copy.deepcopy(made)))
        self.changed.notify_all()


def _content(made: Object) -> Object:
    """All but what the server itself keeps of an object."""
    kept = ("labels", "annotations", "ownerReferences", "deletionTimestamp")
    metadata = made.get("metadata", {})
    return {**made, "metadata": {name: metadata[name] for name in kept if name in metadata}}


def _told(writer: Writer, live: Object) -> str:
    """A writer as conflicts name it (apimachinery, util/managedfields); who applies has no version."""
    below = f' with subresource "{writer.subresource}"' if writer.subresource else ""
    using = f" using {live['apiVersion']}" if writer.operation == "Update" else ""
    return f'"{writer.manager}"{below}{using}'


def _without_version(made: Object) -> Object:
    return {**made, "metadata": {**made["metadata"], "resourceVersion": ""}}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
