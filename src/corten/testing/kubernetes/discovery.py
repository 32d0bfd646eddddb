"""What the small API server says of itself: version, kinds, and the part of its OpenAPI that kubectl asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from corten.cluster.kinds import (
    DAEMON_SET,
    EVENT,
    KNATIVE_ROUTE,
    NAMESPACE,
    OWNED,
    POD,
    REVISION,
    SECRET,
    Kind,
)
from corten.exporters.base import Addition

NODE = Kind("v1", "Node", "nodes", namespaced=False)
CONFIGURATION = Kind("serving.knative.dev/v1", "Configuration", "configurations", addition=Addition.KNATIVE)
KINDS: Mapping[tuple[str, str], Kind] = {
    (kind.api, kind.plural): kind
    for kind in (*OWNED, KNATIVE_ROUTE, REVISION, CONFIGURATION, SECRET, NAMESPACE, POD, EVENT, NODE, DAEMON_SET)
}
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_SHORT = {
    "configmaps": ["cm"],
    "daemonsets": ["ds"],
    "deployments": ["deploy"],
    "horizontalpodautoscalers": ["hpa"],
    "namespaces": ["ns"],
    "networkpolicies": ["netpol"],
    "nodes": ["no"],
    "poddisruptionbudgets": ["pdb"],
    "pods": ["po"],
    "serviceaccounts": ["sa"],
    "services": ["svc"],
}
# Under a kind: the group and version of what is spoken there, its kind, what may be done.
_BELOW: Mapping[str, Iterable[tuple[str, str, str, str, list[str]]]] = {
    "deployments": (
        ("scale", "autoscaling", "v1", "Scale", ["get", "patch", "update"]),
        ("status", "", "", "Deployment", ["get", "patch", "update"]),
    ),
    "pods": (
        ("eviction", "policy", "v1", "Eviction", ["create"]),
        ("log", "", "", "Pod", ["get"]),
        ("proxy", "", "", "PodProxyOptions", ["create", "get"]),
        ("status", "", "", "Pod", ["get", "patch", "update"]),
    ),
    "services": (("proxy", "", "", "ServiceProxyOptions", ["create", "get"]),),
}


def served(kind: Kind, groups: Iterable[str]) -> bool:
    """Whether a cluster to which these groups (`keda.sh`, or `keda.sh/v1alpha1` alone) were added has a kind."""
    return kind.addition is None or kind.group in groups or kind.api in groups


def document(path: str, version: str, groups: tuple[str, ...]) -> dict[str, Any] | None:
    """What is answered at one of the paths of discovery; None where it is no such path."""
    major, _, minor = version.partition(".")
    kinds = [kind for kind in KINDS.values() if served(kind, groups)]
    match path.strip("/").split("/"):
        case ["version"]:
            return {"major": major, "minor": minor, "gitVersion": f"v{version}.0"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return _groups(kinds, groups)
        case ["api" | "apis", *api] if found := [kind for kind in kinds if kind.api == "/".join(api)]:
            return _resources(found)
        case ["openapi", "v3"]:
            paths = {_root(kind): {"serverRelativeURL": f"/openapi/v3/{_root(kind)}"} for kind in kinds}
            return {"paths": paths}
        case ["openapi", "v3", *root] if found := [kind for kind in kinds if _root(kind) == "/".join(root)]:
            return _open_api(found, version)
        case _:
            return None


def _root(kind: Kind) -> str:
    return f"apis/{kind.api}" if kind.group else f"api/{kind.api}"


def _groups(kinds: Iterable[Kind], groups: tuple[str, ...]) -> dict[str, Any]:
    versions: dict[str, dict[str, None]] = {}
    for kind in kinds:
        if kind.group:
            versions.setdefault(kind.group, {})[kind.api] = None
    for name in groups:
        group, slash, _ = name.partition("/")
        versions.setdefault(group, {}).update({name: None} if slash else {})
    # As the aggregation layer has it: each group has a version.
    listed = [
        {"groupVersion": api, "version": api.rpartition("/")[2]}
        for name in versions
        for api in versions[name] or [f"{name}/v1"]
    ]
    by_group = {name: [one for one in listed if one["groupVersion"].startswith(f"{name}/")] for name in versions}
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": name, "versions": found, "preferredVersion": found[0]} for name, found in by_group.items()],
    }


def _resources(kinds: list[Kind]) -> dict[str, Any]:
    listed: list[dict[str, Any]] = []
    for kind in kinds:
        one = {"name": kind.plural, "singularName": kind.name.lower(), "kind": kind.name, "namespaced": kind.namespaced}
        listed.append({**one, "verbs": _VERBS, "shortNames": _SHORT.get(kind.plural, [])})
        for sub, group, version, name, verbs in _BELOW.get(kind.plural, ()) if kind.addition is None else ():
            below = {"name": f"{kind.plural}/{sub}", "singularName": "", "kind": name, "namespaced": kind.namespaced}
            listed.append({**below, "verbs": verbs, **({"group": group, "version": version} if group else {})})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kinds[0].api, "resources": listed}


def _open_api(kinds: list[Kind], version: str) -> dict[str, Any]:
    """That PATCH knows dry runs and strict fields: kubectl leaves validation to the server then."""
    known = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldValidation")]
    paths = {}
    for kind in kinds:
        group, _, of = kind.api.rpartition("/")
        meant = {"group": group, "version": of, "kind": kind.name}
        patch = {"parameters": known, "x-kubernetes-group-version-kind": meant, "x-kubernetes-action": "patch"}
        paths[kind.path("{namespace}", "{name}")] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": f"v{version}.0"}, "paths": paths}
