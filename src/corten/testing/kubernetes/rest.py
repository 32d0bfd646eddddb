"""The verbs of the small API server, on objects and what is below them: what is asked, who may, what is wrong."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corten.cluster.kinds import KNATIVE_SERVICE, Kind
from corten.testing.kubernetes import access, disruption, fields, knative, owners, schemas, simulation, statuses
from corten.testing.kubernetes.checks import NOT_NEGATIVE, check
from corten.testing.kubernetes.discovery import KINDS, served
from corten.testing.kubernetes.knative import Knative
from corten.testing.kubernetes.objects import Key, Object, Objects
from corten.testing.kubernetes.simulation import Fault, Pods

_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<api>[^/]+/[^/]+))(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+)(?P<rest>/.*)?)?"
)
_VERBS = {"GET": "get", "PATCH": "patch", "PUT": "update", "POST": "create", "DELETE": "delete"}


@dataclass(frozen=True)
class Call:
    """A request, as the verbs read it. `user` is who was found to ask."""

    method: str
    path: str
    query: Mapping[str, str]
    media_type: str
    body: bytes
    user: str
    agent: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case

    @property
    def document(self) -> Object:
        """Its body, which is JSON (kubectl sends that too, whatever it calls it)."""
        if "protobuf" in self.media_type:
            raise statuses.other_media_type()
        try:
            found = json.loads(self.body) if self.body else {}
        except ValueError as error:
            raise statuses.not_readable(str(error)) from error
        return found if isinstance(found, dict) else {}

    @property
    def manager(self) -> str:
        """Who writes fields by it: the program, where it does not say."""
        return self.query.get("fieldManager") or self.agent.partition("/")[0] or "unknown"


@dataclass
class Rest:
    """The objects, and the rules by which they are asked. To be called with `objects.changed` held."""

    objects: Objects
    pods: Pods
    version: str
    groups: tuple[str, ...]
    knative: Knative = field(default_factory=Knative)
    forbidden: set[tuple[str, str]] = field(default_factory=set)  # verb, plural (`pods/log`)
    over_quota: set[str] = field(default_factory=set)  # plurals
    denied: dict[str, str] = field(default_factory=dict)  # kind -> why a webhook says no

    def answer(self, call: Call) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers, body. Raises RefusedError."""
        if reviewed := access.review(call.path, call.document if "reviews" in call.path else {}, self.forbidden):
            return _json(201, reviewed)
        kind, namespace, name, sub, rest = self.parsed(call.path)
        self.allow(call, kind, namespace, name, sub)
        if sub in ("proxy", "log"):
            return self._pods(kind, namespace, name, sub, rest, call)
        key = (stored(kind), namespace if kind.namespaced else "", name)
        named = name or str(call.document.get("metadata", {}).get("name", ""))
        undo = self.objects.rehearse((*key[:2], named))
        is_new = call.method in ("POST", "PATCH") and (*key[:2], named) not in self.objects.items
        made = self._object(kind, key, sub, call)
        if call.query.get("dryRun") == "All":
            made = copy.deepcopy(made)
            undo()
        return _json(201 if is_new or call.method == "POST" else 200, made)

    def parsed(self, path: str) -> tuple[Kind, str, str, str, str]:
        """Kind, namespace, name, subresource and what follows. Raises RefusedError where nothing is served."""
        match = _PATH.fullmatch(path)
        kind = KINDS.get((match["core"] or match["api"], match["plural"])) if match else None
        if match is None or kind is None or not served(kind, self.groups):
            raise statuses.no_such_path()
        return kind, match["namespace"] or "", match["name"] or "", match["sub"] or "", match["rest"] or "/"

    def allow(self, call: Call, kind: Kind, namespace: str, name: str, sub: str = "") -> None:
        """Raises RefusedError for what a role lacks, and for a namespace nobody made."""
        verb = "watch" if call.query.get("watch") == "true" else _VERBS[call.method]
        verb = "list" if verb == "get" and not name else verb
        resource = f"{kind.plural}/{sub}" if sub else kind.plural
        if (verb, resource) in self.forbidden:
            raise statuses.forbidden(call.user, verb, resource, kind.group, namespace, name)
        # Who reads finds nothing there; that there is no such namespace is told to who writes.
        reads = call.method == "GET"
        if kind.namespaced and namespace and not reads and ("namespaces", "", namespace) not in self.objects.items:
            raise statuses.unknown("namespaces", "", namespace)

    def _object(self, kind: Kind, key: Key, sub: str, call: Call) -> Object:
        match call.method, sub:
            case "GET", "" if not key[2]:
                return self._list(kind, key[1], call.query)
            case "GET", "" | "status":
                return self._existing(kind, key)
            case (("GET" | "PATCH" | "PUT"), "scale"):
                return self._scale(kind, key, call)
            case "POST", "eviction" if kind.plural == "pods":
                self._existing(kind, key)
                disruption.evict(self.objects, key)
                return statuses.success(kind.plural, key[2])
            case "POST", "" if not key[2]:
                return self._create(kind, key, call)
            case "PATCH", "" if "apply-patch" in call.media_type:
                return self._apply(kind, key, call)
            case "PATCH", "" | "status":
                live = self._existing(kind, key)
                strategic = "strategic" in call.media_type
                made = fields.merge(live, call.document) if strategic else merge_patch(live, call.document)
                return self._replace(kind, key, made, sub, call)
            case "PUT", "" | "status":
                return self._replace(kind, key, call.document, sub, call)
            case "DELETE", "":
                gone = self._existing(kind, key)
                if kind.plural == "pods" and call.document.get("gracePeriodSeconds") != 0:
                    return simulation.end(self.objects, key)
                self.objects.delete(key)
                return statuses.success(kind.plural, key[2], gone["metadata"]["uid"])
            case _:
                raise statuses.not_allowed()

    def _create(self, kind: Kind, key: Key, call: Call) -> Object:
        made = {"apiVersion": kind.api, "kind": kind.name, **call.document}  # clients may leave it to the path
        key = (*key[:2], str(made.get("metadata", {}).get("name", "")))
        self._fit(kind, key[2], made)
        if call.query.get("fieldValidation") == "Strict" and (wrong := schemas.mistakes(made, self.version)):
            raise statuses.unknown_fields(kind, wrong)
        if key in self.objects.items:
            raise statuses.already_there(kind.plural, kind.group, key[2])
        self._admit(kind, key)
        check(kind, key, None, made)
        return self.objects.update(key, made, call.manager)

    def _apply(self, kind: Kind, key: Key, call: Call) -> Object:
        document = call.document
        if not call.query.get("fieldManager"):
            raise statuses.no_manager()
        self._fit(kind, key[2], document)
        # Whatever `fieldValidation` says: what no schema has, nobody could own.
        if wrong := schemas.mistakes(document, self.version):
            raise statuses.not_typed(document, key[1], wrong)
        self._admit(kind, key)
        live = self.objects.items.get(key)
        stated = document["metadata"].get("resourceVersion")
        if stated is not None and (live is None or live["metadata"]["resourceVersion"] != stated):
            raise statuses.stale(kind.plural, kind.group, key[2])
        return self.objects.apply(
            key,
            document,
            call.query["fieldManager"],
            force=call.query.get("force") == "true",
            check=lambda before, after: check(kind, key, before, after, dry=call.query.get("dryRun") == "All"),
        )

    def _fit(self, kind: Kind, name: str, document: Object) -> None:
        """Raises RefusedError where a body is not what its path says."""
        if (document.get("apiVersion"), document.get("kind")) != (kind.api, kind.name):
            raise statuses.other_kind(document, kind)
        if document.get("metadata", {}).get("name") != name:
            raise statuses.other_name(str(document.get("metadata", {}).get("name", "")), name)

    def _admit(self, kind: Kind, key: Key) -> None:
        if kind.plural in self.over_quota and key not in self.objects.items:
            raise statuses.over_quota(kind.plural, kind.group, key[2])
        if kind.name in self.denied:
            raise statuses.denied("policy.example.com", self.denied[kind.name])

    def _replace(self, kind: Kind, key: Key, made: Object, sub: str, call: Call) -> Object:
        live = self._existing(kind, key)
        if made.get("metadata", {}).get("resourceVersion") not in (None, live["metadata"]["resourceVersion"]):
            raise statuses.stale(kind.plural, kind.group, key[2])
        if sub == "status":
            self.objects.set_status(key, made.get("status", {}), call.manager)
            return self.objects.items[key]
        if call.query.get("fieldValidation") == "Strict" and (wrong := schemas.mistakes(made, self.version)):
            raise statuses.unknown_fields(kind, wrong)
        # A status is written by its subresource alone.
        made = {
            "apiVersion": kind.api,
            "kind": kind.name,
            **made,
            **({"status": live["status"]} if "status" in live else {}),
        }
        check(kind, key, live, made)
        return self.objects.update(key, made, call.manager)

    def _scale(self, kind: Kind, key: Key, call: Call) -> Object:
        live = self._existing(kind, key)
        if call.method != "GET":
            stated = call.document.get("metadata", {}).get("resourceVersion")
            if stated not in (None, "", live["metadata"]["resourceVersion"]):
                raise statuses.stale(kind.plural, kind.group, key[2])
            wanted = call.document.get("spec", {}).get("replicas", 0)  # as Go has it: none said is zero
            if wanted < 0:
                mistake = statuses.Mistake("spec.replicas", f"Invalid value: {wanted}: {NOT_NEGATIVE}")
                raise statuses.invalid("Scale", "autoscaling", key[2], [mistake])
            made = copy.deepcopy(live)
            made["spec"]["replicas"] = wanted
            live = self.objects.update(key, made, call.manager, "scale")
        chosen = live["spec"]["selector"].get("matchLabels", {})
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {name: live["metadata"][name] for name in kept},
            "spec": {"replicas": live["spec"].get("replicas", 1)},
            "status": {
                "replicas": live.get("status", {}).get("replicas", 0),
                "selector": ",".join(f"{name}={value}" for name, value in chosen.items()),
            },
        }

    def _list(self, kind: Kind, namespace: str, query: Mapping[str, str]) -> Object:
        """A page of `limit` objects, and where the next one begins."""
        chosen = [
            (key[1:], one)
            for key, one in sorted(self.objects.items.items())
            if key[0] == stored(kind) and namespace in ("", key[1]) and is_chosen(one, query)
        ]
        metadata: dict[str, Any] = {"resourceVersion": str(self.objects.version)}
        if token := query.get("continue"):
            try:
                version, _, last = base64.urlsafe_b64decode(token).decode().partition("@")
                too_old = int(version) < self.objects.oldest
            except ValueError as error:
                raise statuses.no_continuation(str(error)) from error
            if too_old:
                raise statuses.expired(
                    "The provided continue parameter is too old to display a consistent list result."
                )
            chosen = [(place, one) for place, one in chosen if "/".join(place) > last]
            metadata["resourceVersion"] = version
        limit = int(query.get("limit") or 0)
        if limit and len(chosen) > limit:
            last = "/".join(chosen[limit - 1][0])
            metadata["continue"] = base64.urlsafe_b64encode(f"{metadata['resourceVersion']}@{last}".encode()).decode()
            metadata["remainingItemCount"] = len(chosen) - limit
            chosen = chosen[:limit]
        items = [one for _, one in chosen]
        return {"apiVersion": kind.api, "kind": f"{kind.name}List", "metadata": metadata, "items": items}

    def _existing(self, kind: Kind, key: Key) -> Object:
        if key not in self.objects.items:
            raise statuses.unknown(kind.plural, kind.group, key[2])
        return self.objects.items[key]

    def _pods(  # noqa: PLR0917
        self, kind: Kind, namespace: str, name: str, sub: str, rest: str, call: Call
    ) -> tuple[int, Mapping[str, str], bytes]:
        bare, _, port = name.partition(":")
        found = self._existing(kind, (kind.plural, namespace, bare))
        if kind.plural == "services" and owners.controller(found).get("kind") == "Revision":
            held = knative.hold(self.objects, self.pods, self.knative, call.headers)
            if isinstance(held, tuple):
                return held[0], {"Content-Type": "text/plain"}, held[1]
            found = held
        elif kind.plural == "services":
            known = [str(one.get(word)) for one in found["spec"].get("ports", []) for word in ("name", "port")]
            ready = simulation.ready(self.objects, self.pods, found) if port in known else []
            if not ready:
                raise statuses.no_endpoints(bare)
            self.pods.turn += 1
            found = ready[self.pods.turn % len(ready)]
        if sub == "log":
            fault = self.pods.fault(found["spec"]["containers"][0]["image"])
            if fault in (Fault.PULL, Fault.UNSCHEDULABLE, Fault.NEVER_STARTED):
                waiting = "ContainerCreating" if fault is Fault.NEVER_STARTED else "trying and failing to pull image"
                raise statuses.not_started(bare, waiting)
            return 200, {"Content-Type": "text/plain"}, simulation.log(self.objects, self.pods, found)
        return simulation.answer(self.pods, found, call.method, rest)


def stored(kind: Kind) -> str:
    """The name its objects are kept by: the plural, but for the Services of Knative."""
    return "ksvc" if kind == KNATIVE_SERVICE else kind.plural


def is_chosen(one: Object, query: Mapping[str, str]) -> bool:
    """Whether the selectors of a request choose an object: `a=b`, `a!=b`, `a`, `!a`, `a in (b, c)`."""
    labels = one["metadata"].get("labels", {})
    for part in re.findall(r"[^,(]+(?:\([^)]*\))?", query.get("labelSelector", "")):
        if not _selects(part.strip(), labels):
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        path, unequal, value = re.fullmatch(r"([^=!]+)(!?)==?(.*)", part).groups()  # type: ignore[union-attr]
        found = fields.value_at(one, tuple(f"f:{step}" for step in path.split("."))) or ""
        if (found == value) == bool(unequal):
            return False
    return True


def _selects(part: str, labels: Mapping[str, str]) -> bool:
    if among := re.fullmatch(r"(\S+) (notin|in) \((.*)\)", part):
        known = [one.strip() for one in among[3].split(",")]
        return (labels.get(among[1]) in known) == (among[2] == "in")
    if part.startswith("!"):
        return part[1:] not in labels
    name, unequal, value = re.fullmatch(r"([^=!]+)(!?)(?:==?(.*))?", part).groups()  # type: ignore[union-attr]
    if value is None:
        return name in labels
    return (labels.get(name) == value) != bool(unequal)


def merge_patch(live: Any, patch: Any) -> Any:
    """A merge patch of JSON (RFC 7386): lists go whole."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    made = dict(live) if isinstance(live, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merge_patch(made.get(key), value)
    return made


def _json(status: int, document: Object) -> tuple[int, Mapping[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(document).encode()
