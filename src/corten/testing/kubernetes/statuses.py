"""Refusals as an API server words them: recorded from Kubernetes, with the names put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corten.cluster.kinds import Kind


class RefusedError(Exception):
    """An answer that is no success: its status and body (meta/v1 Status)."""

    def __init__(self, status: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details,
            "code": status,
        }


def unauthorized() -> RefusedError:
    """The token is unknown or over."""
    return RefusedError(401, "Unauthorized", "Unauthorized")


def forbidden(user: str, verb: str, plural: str, group: str, namespace: str, name: str = "") -> RefusedError:  # noqa: PLR0917
    """A role lacks a rule."""
    of = f"{plural}.{group}" if group else plural
    named = f' "{name}"' if name else ""
    place = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    message = f'{of}{named} is forbidden: User "{user}" cannot {verb} resource "{plural}" in API group "{group}"{place}'
    return RefusedError(403, "Forbidden", message, name=name, group=group, kind=plural)


def over_quota(plural: str, group: str, name: str) -> RefusedError:
    """The namespace may have no more of these."""
    of = f"{plural}.{group}" if group else plural
    message = (
        f'{of} "{name}" is forbidden: exceeded quota: team, requested: count/{of}=1, '
        f"used: count/{of}=3, limited: count/{of}=3"
    )
    return RefusedError(403, "Forbidden", message, name=name, group=group, kind=plural)


def denied(webhook: str, why: str) -> RefusedError:
    """A policy of the cluster says no."""
    return RefusedError(400, "BadRequest", f'admission webhook "{webhook}" denied the request: {why}')


def unknown(plural: str, group: str, name: str) -> RefusedError:
    """There is no such object."""
    of = f"{plural}.{group}" if group else plural
    return RefusedError(404, "NotFound", f'{of} "{name}" not found', name=name, group=group, kind=plural)


def no_such_path() -> RefusedError:
    """No kind of that path is served."""
    return RefusedError(404, "NotFound", "the server could not find the requested resource")


def stale(plural: str, group: str, name: str) -> RefusedError:
    """Somebody wrote it since it was read."""
    of = f"{plural}.{group}" if group else plural
    message = (
        f'Operation cannot be fulfilled on {of} "{name}": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    return RefusedError(409, "Conflict", message, name=name, group=group, kind=plural)


def owned_by_others(conflicts: Sequence[tuple[str, str]]) -> RefusedError:
    """Fields (by path) that others own, with who they are, as the server says it (`"kubectl" using apps/v1`)."""
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": field}
        for field, owner in conflicts
    ]
    if len(conflicts) == 1:
        ((field, owner),) = conflicts
        return RefusedError(
            409, "Conflict", f"Apply failed with 1 conflict: conflict with {owner}: {field}", causes=causes
        )
    lines = [
        line
        for owner in sorted({owner for _, owner in conflicts})
        for line in (f"conflicts with {owner}:", *(f"- {field}" for field, other in conflicts if other == owner))
    ]
    told = "\n".join(lines)
    return RefusedError(409, "Conflict", f"Apply failed with {len(conflicts)} conflicts: {told}", causes=causes)


@dataclass(frozen=True)
class Mistake:
    """What is wrong with a field: `body` is what the server says of it, `reason` which kind of mistake that is."""

    field: str
    body: str
    reason: str = "FieldValueInvalid"


def invalid(kind: str, group: str, name: str, mistakes: Sequence[Mistake]) -> RefusedError:
    """Values that are not taken, all of them in one answer."""
    of = f"{kind}.{group}" if group else kind
    told = [f"{one.field}: {one.body}" for one in mistakes]
    listed = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
    causes = [{"reason": one.reason, "message": one.body, "field": one.field} for one in mistakes]
    message = f'{of} "{name}" is invalid: {listed}'
    return RefusedError(422, "Invalid", message, name=name, group=group, kind=kind, causes=causes)


def no_version(plural: str, group: str, text: str) -> RefusedError:
    """A `resourceVersion` to watch from that is none: ones that are given out are numbers."""
    why = f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax'
    return invalid(plural, group, "", [Mistake("resourceVersion", why)])


def not_started(pod: str, waiting: str) -> RefusedError:
    """The log of a container that never ran."""
    return RefusedError(400, "BadRequest", f'container "model" in pod "{pod}" is waiting to start: {waiting}')


def busy() -> RefusedError:
    """Priority and fairness sheds load."""
    return RefusedError(
        429,
        "TooManyRequests",
        "The server has received too many requests and has asked us to try again later",
        retryAfterSeconds=1,
    )


def expired(message: str) -> RefusedError:
    """A version that is not kept any more."""
    return RefusedError(410, "Expired", message)


def disrupted(budget: str, status: Mapping[str, Any]) -> RefusedError:
    """An eviction that a PodDisruptionBudget does not allow."""
    why = (
        f"The disruption budget {budget} needs {status['desiredHealthy']} healthy pods "
        f"and has {status['currentHealthy']} currently"
    )
    causes = [{"reason": "DisruptionBudget", "message": why}]
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    return RefusedError(429, "TooManyRequests", message, causes=causes)


def not_typed(document: Mapping[str, Any], namespace: str, wrong: Sequence[str]) -> RefusedError:
    """Fields that no schema has, in what is applied. A plain error of Go, and so no better status than 500."""
    of = f"{namespace}/{document['metadata']['name']}; {document['apiVersion']}, Kind={document['kind']}"
    told = wrong[0] if len(wrong) == 1 else "errors:\n" + "\n".join(f"  {one}" for one in wrong)
    return RefusedError(500, "", f"failed to create typed patch object ({of}): {told}")


def unknown_fields(kind: Kind, wrong: Sequence[str]) -> RefusedError:
    """The same in what is created or replaced, with `fieldValidation=Strict`."""
    names = ", ".join(f'unknown field "{one.partition(":")[0].removeprefix(".")}"' for one in wrong)
    of = kind.api.rpartition("/")[2]
    message = f'{kind.name} in version "{of}" cannot be handled as a {kind.name}: strict decoding error: {names}'
    return RefusedError(400, "BadRequest", message)


def no_manager() -> RefusedError:
    """Who applies without saying who that is."""
    why = "Required value: is required for apply patch"
    causes = [{"reason": "FieldValueRequired", "message": why, "field": "fieldManager"}]
    message = f'PatchOptions.meta.k8s.io "" is invalid: fieldManager: {why}'
    return RefusedError(422, "Invalid", message, group="meta.k8s.io", kind="PatchOptions", causes=causes)


def other_kind(document: Mapping[str, Any], kind: Kind) -> RefusedError:
    """A body of another kind than its path."""
    given = f"{document.get('apiVersion')}, Kind={document.get('kind')}"
    return RefusedError(
        400, "BadRequest", f"the object provided is unrecognized: {given}, expected {kind.api}, Kind={kind.name}"
    )


def other_name(name: str, path: str) -> RefusedError:
    """A body of another name than its path."""
    message = f"the name of the object ({name}) does not match the name on the URL ({path})"
    return RefusedError(400, "BadRequest", message)


def already_there(plural: str, group: str, name: str) -> RefusedError:
    """Something of that name was created before."""
    of = f"{plural}.{group}" if group else plural
    return RefusedError(409, "AlreadyExists", f'{of} "{name}" already exists', name=name, group=group, kind=plural)


def not_allowed() -> RefusedError:
    """A verb that a path does not have."""
    return RefusedError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def not_readable(why: str) -> RefusedError:
    """A body that is no JSON."""
    return RefusedError(400, "BadRequest", f"error decoding patch: {why}")


def no_continuation(why: str) -> RefusedError:
    """A `continue` that no list gave."""
    return RefusedError(400, "BadRequest", f"invalid continue token: continue key is not valid: {why}")


def other_media_type() -> RefusedError:
    """A body in protobuf, which is not spoken here: clients try JSON then."""
    why = "the body of the request was in an unknown format - accepted media types include: application/json"
    return RefusedError(415, "UnsupportedMediaType", why)


def success(plural: str, name: str, uid: str = "") -> dict[str, Any]:
    """What is said where there is no object to be given back."""
    details = {"name": name, "kind": plural, **({"uid": uid} if uid else {})}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def no_endpoints(service: str) -> RefusedError:
    """A service without a pod that is ready."""
    return RefusedError(503, "ServiceUnavailable", f'no endpoints available for service "{service}"')
