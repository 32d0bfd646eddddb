"""The HTTP side of the small API server: discovery, objects, subresources, watches, refusals."""

from __future__ import annotations

import copy
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from corten.cluster.kinds import EVENT, NAMESPACE, OWNED, POD, SECRET, Kind
from corten.testing.kubernetes import fields, simulation, statuses
from corten.testing.kubernetes.objects import Key, Object, Objects
from corten.testing.kubernetes.simulation import Fault, Pods

_KINDS = {(kind.api, kind.plural): kind for kind in (*OWNED, SECRET, NAMESPACE, POD, EVENT)}
_PATH = re.compile(
    r"/(?:api/(?P<core>v1)|apis/(?P<api>[^/]+/[^/]+))(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<plural>[a-z]+)"
    r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>[a-z]+)(?P<rest>/.*)?)?"
)
_VERBS = {"GET": "get", "PATCH": "patch", "PUT": "update", "POST": "create", "DELETE": "delete"}
_NODE_PORTS = range(30_000, 32_768)
TOKEN = "good"  # noqa: S105 -- of this server


@dataclass
class Rules:
    """What is refused, and how often what goes wrong. Counts go down."""

    forbidden: set[tuple[str, str]] = field(default_factory=set)  # verb, plural
    over_quota: set[str] = field(default_factory=set)  # plurals
    denied: dict[str, str] = field(default_factory=dict)  # kind -> why a webhook says no
    busy: int = 0  # so many requests get a 429
    anonymous: bool = False  # who shows no token is let in: kubectl shows none without TLS
    broken: int = 0  # so many get no answer
    drop_watches: int = 0  # so many watches end at once
    compacted: bool = False  # watches from the past get a 410


@dataclass(frozen=True)
class Request:
    """A request that came."""

    method: str
    path: str
    query: Mapping[str, str]
    media_type: str = ""


class FakeApiServer:
    """A cluster of one node that is all made up, but for the API: that is as strict as the real one where it matters.

    Use as a context manager. `rules` says what is refused, `fault` what becomes of pods, `seen` what was asked.
    """

    def __init__(self, *, version: str = "1.36", groups: tuple[str, ...] = (), tick_s: float = 0.005) -> None:
        self.version = version
        self.groups = groups
        self.rules = Rules()
        self.objects = Objects()
        self.pods = Pods()
        self.seen: list[Request] = []
        self._tick_s = tick_s
        self._over = threading.Event()
        handler = type("_Bound", (_Handler,), {"site": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.01,)),
            threading.Thread(target=self._live),
        ]
        for name in ("default", "kube-system"):
            self.namespace(name)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with self.objects.changed:
            self.objects.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, path: Path, *, token: str = TOKEN, namespace: str = "default") -> Path:
        """Write a kubeconfig that leads here."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "dev", "user": {"token": token}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "dev", "namespace": namespace}}],
        }
        path.write_text(json.dumps(document))
        return path

    def namespace(self, name: str) -> None:
        """Make one."""
        with self.objects.changed:
            self.objects.put(("namespaces", "", name), {"apiVersion": "v1", "kind": "Namespace", "metadata": {}})

    def fault(self, image: str, fault: Fault) -> None:
        """From now on pods of an image (any part of its reference) do that."""
        with self.objects.changed:
            self.pods.faults[image] = fault

    def find(self, plural: str, name: str, namespace: str = "default") -> Object | None:
        """A copy of an object as it is now."""
        with self.objects.changed:
            return copy.deepcopy(self.objects.items.get((plural, namespace, name)))

    def names(self, plural: str, namespace: str = "default") -> list[str]:
        """The names of all objects of a kind."""
        with self.objects.changed:
            return sorted(key[2] for key in self.objects.items if key[:2] == (plural, namespace))

    def apply_as(
        self, manager: str, plural: str, manifest: Object, namespace: str = "default", *, force: bool = False
    ) -> None:
        """Somebody else applies something."""
        with self.objects.changed:
            key = (plural, namespace, manifest["metadata"]["name"])
            self.objects.apply(key, manifest, manager, force=force, check=lambda *_: None)

    def scale_as(self, manager: str, name: str, replicas: int, namespace: str = "default") -> None:
        """Somebody else (a HorizontalPodAutoscaler, `kubectl scale`) sets the number of replicas."""
        with self.objects.changed:
            key = ("deployments", namespace, name)
            made = copy.deepcopy(self.objects.items[key])
            made["spec"]["replicas"] = replicas
            self.objects.update(key, made, manager)

    def traffic(self, requests: int, name: str, namespace: str = "default") -> None:
        """Clients ask `/predict` so often, through the route's weights where there is one, else through the service."""
        with self.objects.changed:
            route = self.objects.items.get(("httproutes", namespace, name))
            alone: list[Object] = [{"name": name, "weight": 1}]
            backends: list[Object] = route["spec"]["rules"][-1]["backendRefs"] if route else alone
            total = sum(backend["weight"] for backend in backends)
            sent = 0
            for place, backend in enumerate(backends):
                last = place == len(backends) - 1
                share = requests - sent if last else requests * backend["weight"] // total
                sent += share
                found = simulation.ready(self.objects, self.objects.items["services", namespace, backend["name"]])
                for number in range(share if backend["weight"] else 0):
                    simulation.answer(self.pods, found[number % len(found)], "POST", "/predict")

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing goes on meanwhile."""
        with self.objects.changed:
            yield

    def _live(self) -> None:
        while not self._over.wait(self._tick_s):
            with self.objects.changed:
                simulation.tick(self.objects, self.pods)


class _Handler(BaseHTTPRequestHandler):
    site: ClassVar[FakeApiServer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the client to say that it has the head

    def do_GET(self) -> None:
        self._answer()

    do_PATCH = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 -- the stdlib's name
        del format

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        media_type = self.headers.get("Content-Type", "")
        self.site.seen.append(Request(self.command, parts.path, query, media_type))
        try:
            self._refuse_at_the_door()
            if query.get("watch") == "true":
                self._watch(parts.path, query)
                return
            with self.site.objects.changed:
                status, headers, answer = self._route(parts.path, query, body)
            self._send(status, answer, headers)
        except statuses.RefusedError as refused:
            self._send(refused.status, json.dumps(refused.body).encode(), {"Content-Type": "application/json"})
        except _BrokenError:
            self.close_connection = True

    def _refuse_at_the_door(self) -> None:
        rules = self.site.rules
        if rules.broken > 0:
            rules.broken -= 1
            raise _BrokenError
        if rules.busy > 0:
            rules.busy -= 1
            raise statuses.busy()
        shown = self.headers.get("Authorization", "" if not rules.anonymous else f"Bearer {TOKEN}")
        if shown != f"Bearer {TOKEN}":
            raise statuses.unauthorized()

    def _route(self, path: str, query: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        found = self._discovery(path)
        if found is not None:
            return 200, {"Content-Type": "application/json"}, json.dumps(found).encode()
        kind, namespace, name, sub, rest = self._parsed(path)
        self._allowed(kind, namespace, name)
        if sub in ("proxy", "log"):
            return self._pods(kind, namespace, name, sub, rest)
        key = (kind.plural, namespace if kind.namespaced else "", name)
        document = json.loads(body) if body else {}
        made = self._object(kind, key, sub, query, document)
        return 200, {"Content-Type": "application/json"}, json.dumps(made).encode()

    def _object(self, kind: Kind, key: Key, sub: str, query: Mapping[str, str], document: Object) -> Object:
        objects, name = self.site.objects, key[2]
        match self.command, sub:
            case "GET", "" if not name:
                return self._list(kind, key[1], query)
            case "GET", "":
                return self._existing(kind, key)
            case "GET", "scale":
                found = self._existing(kind, key)
                return {
                    "kind": "Scale",
                    "apiVersion": "autoscaling/v1",
                    "metadata": found["metadata"],
                    "spec": {"replicas": found["spec"].get("replicas", 1)},
                }
            case (("PATCH" | "PUT"), "scale"):
                made = copy.deepcopy(self._existing(kind, key))
                made["spec"]["replicas"] = document["spec"]["replicas"]
                objects.update(key, made, query.get("fieldManager", "unknown"))
                return document
            case "PATCH", "" if "apply-patch" in self.headers.get("Content-Type", ""):
                return self._apply(kind, key, query, document)
            case "PUT", "":
                live = self._existing(kind, key)
                if document["metadata"].get("resourceVersion") not in (None, live["metadata"]["resourceVersion"]):
                    raise statuses.stale(kind.plural, kind.group, name)
                _check(kind, key, live, document)
                return objects.update(key, document, query.get("fieldManager", "unknown"))
            case "DELETE", "":
                self._existing(kind, key)
                objects.delete(key)
                return {"kind": "Status", "status": "Success"}
            case _:
                raise statuses.no_such_path()

    def _apply(self, kind: Kind, key: Key, query: Mapping[str, str], document: Object) -> Object:
        rules, objects = self.site.rules, self.site.objects
        if kind.plural in rules.over_quota and key not in objects.items:
            raise statuses.over_quota(kind.plural, key[2])
        if kind.name in rules.denied:
            raise statuses.denied("policy.example.com", rules.denied[kind.name])
        stated = document["metadata"].get("resourceVersion")
        live = objects.items.get(key)
        if stated is not None and (live is None or live["metadata"]["resourceVersion"] != stated):
            raise statuses.stale(kind.plural, kind.group, key[2])
        dry = query.get("dryRun") == "All"
        owners, version, length = objects.owners.get(key), objects.version, len(objects.log)
        made = objects.apply(
            key,
            document,
            query.get("fieldManager", ""),
            force=query.get("force") == "true",
            check=lambda before, after: _check(kind, key, before, after, dry=dry),
        )
        if dry:
            objects.version = version
            del objects.log[length:]
            for place, before in ((objects.items, live), (objects.owners, owners)):
                place.pop(key, None)
                if before is not None:
                    place[key] = before  # type: ignore[assignment]
        return made

    def _list(self, kind: Kind, namespace: str, query: Mapping[str, str]) -> Object:
        items = [
            one
            for (plural, within, _), one in sorted(self.site.objects.items.items())
            if plural == kind.plural and namespace in ("", within) and _chosen(one, query)
        ]
        version = str(self.site.objects.version)
        return {
            "apiVersion": kind.api,
            "kind": f"{kind.name}List",
            "metadata": {"resourceVersion": version},
            "items": items,
        }

    def _existing(self, kind: Kind, key: Key) -> Object:
        if key not in self.site.objects.items:
            raise statuses.unknown(kind.plural, kind.group, key[2])
        return self.site.objects.items[key]

    def _allowed(self, kind: Kind, namespace: str, name: str) -> None:
        verb = _VERBS[self.command] if name or self.command != "GET" else "list"
        if (verb, kind.plural) in self.site.rules.forbidden:
            raise statuses.forbidden(verb, kind.plural, kind.group, namespace, name)
        if kind.namespaced and namespace and ("namespaces", "", namespace) not in self.site.objects.items:
            raise statuses.unknown("namespaces", "", namespace)

    def _parsed(self, path: str) -> tuple[Kind, str, str, str, str]:
        match = _PATH.fullmatch(path)
        kind = _KINDS.get((match["core"] or match["api"], match["plural"])) if match else None
        if match is None or kind is None or (kind.addition and kind.group not in self.site.groups):
            raise statuses.no_such_path()
        return kind, match["namespace"] or "", match["name"] or "", match["sub"] or "", match["rest"] or "/"

    def _discovery(self, path: str) -> Object | None:
        major, _, minor = self.site.version.partition(".")
        if path == "/version":
            return {"major": major, "minor": minor, "gitVersion": f"v{self.site.version}.0"}
        served = [kind for kind in _KINDS.values() if not kind.addition or kind.group in self.site.groups]
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups: dict[str, Object] = {}
            for kind in served:
                if kind.group:
                    one = {"groupVersion": kind.api, "version": kind.api.partition("/")[2]}
                    groups[kind.group] = {"name": kind.group, "versions": [one], "preferredVersion": one}
            for extra in self.site.groups:
                groups.setdefault(extra, {"name": extra, "versions": []})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": list(groups.values())}
        resources = [kind for kind in served if path in (f"/api/{kind.api}", f"/apis/{kind.api}")]
        if not resources:
            return None
        listed = [
            {
                "name": kind.plural,
                "singularName": "",
                "kind": kind.name,
                "namespaced": kind.namespaced,
                "verbs": ["get", "list", "patch", "create", "delete", "update", "watch"],
            }
            for kind in resources
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": resources[0].api, "resources": listed}

    def _pods(self, kind: Kind, namespace: str, name: str, sub: str, rest: str) -> tuple[int, dict[str, str], bytes]:
        site = self.site
        bare, _, port = name.partition(":")
        found = self._existing(kind, (kind.plural, namespace, bare))
        if kind.plural == "services":
            known = [str(value) for one in found["spec"]["ports"] for value in (one.get("name"), one["port"])]
            ready = simulation.ready(site.objects, found) if port in known else []
            if not ready:
                raise statuses.no_endpoints(bare)
            site.pods.turn += 1
            found = ready[site.pods.turn % len(ready)]
        if sub == "log" and site.pods.fault(found["spec"]["containers"][0]["image"]) in (
            Fault.PULL,
            Fault.UNSCHEDULABLE,
        ):
            raise statuses.not_started(bare)
        if sub == "log":
            crashes = site.pods.fault(found["spec"]["containers"][0]["image"]) is Fault.CRASH
            line = '{"level":"error","message":"the model did not load","error.message":"no such file"}\n'
            return 200, {"Content-Type": "text/plain"}, line.encode() if crashes else b'{"message":"ready"}\n'
        return simulation.answer(site.pods, found, self.command, rest)

    def _watch(self, path: str, query: Mapping[str, str]) -> None:
        """Chunked, as long as it lasts; a bookmark now and then."""
        site = self.site
        kind, namespace, name, _, _ = self._parsed(path)
        with site.objects.changed:
            self._allowed(kind, namespace, name)
        at = int(query.get("resourceVersion") or 0)
        if site.rules.compacted or at < site.objects.oldest:
            raise statuses.expired()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        left = min(float(query.get("timeoutSeconds", "10")), 60.0)
        while left > 0 and not site._over.is_set():  # noqa: SLF001
            with site.objects.changed:
                events = site.objects.since(at, kind.plural, namespace)
                if not events:
                    site.objects.changed.wait(0.05)
                    left -= 0.05
                    events = site.objects.since(at, kind.plural, namespace)
                at = site.objects.version
            for _, change, one in events:
                if _chosen(one, query):
                    self._chunk({"type": change, "object": one})
            self._chunk({"type": "BOOKMARK", "object": {"kind": kind.name, "metadata": {"resourceVersion": str(at)}}})
            if site.rules.drop_watches > 0:
                site.rules.drop_watches -= 1
                self.close_connection = True
                return
        self._write(b"0\r\n\r\n")

    def _chunk(self, event: Mapping[str, Any]) -> None:
        data = json.dumps(event).encode() + b"\n"
        self._write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
        except OSError as error:
            raise _BrokenError from error

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True


class _BrokenError(Exception):
    """The connection ends without an answer."""


def _chosen(one: Object, query: Mapping[str, str]) -> bool:
    labels = one["metadata"].get("labels", {})
    for part in filter(None, query.get("labelSelector", "").split(",")):
        name, equals, value = part.partition("=")
        if (equals and labels.get(name) != value) or name not in labels:
            return False
    for part in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = part.partition("=")
        if fields.value_at(one, tuple(f"f:{step}" for step in path.split("."))) != value:
            return False
    return True


def _check(kind: Kind, key: Key, live: Object | None, made: Object, *, dry: bool = False) -> None:
    """What the server finds wrong. Raises RefusedError."""
    name, spec = key[2], made.get("spec", {})
    if kind.plural == "deployments":
        spec.setdefault("replicas", 1)
        if live and live["spec"]["selector"] != spec["selector"]:
            why = f"{json.dumps(spec['selector'])}: field is immutable"
            raise statuses.invalid(kind.name, kind.group, name, "spec.selector", why)
    if live and live.get("immutable") and live.get("data") != made.get("data"):
        why = "field is immutable when `immutable` is set"
        raise statuses.invalid(kind.name, kind.group, name, "data", why)
    if kind.plural == "services":
        for number, port in enumerate(spec.get("ports", [])):
            # A dry run allocates nothing, and so does not find this.
            if not dry and port.get("nodePort", _NODE_PORTS.start) not in _NODE_PORTS:
                why = f"{port['nodePort']}: provided port is not in the valid range"
                raise statuses.invalid(kind.name, kind.group, name, f"spec.ports[{number}].nodePort", why)
    if kind.plural == "horizontalpodautoscalers" and spec.get("minReplicas") == 0:
        why = "0: must be greater than or equal to 1"
        raise statuses.invalid(kind.name, kind.group, name, "spec.minReplicas", why)
