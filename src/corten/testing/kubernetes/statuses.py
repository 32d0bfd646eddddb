"""Refusals as an API server words them: recorded from Kubernetes, with the names put in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RefusedError(Exception):
    """An answer that is no success: its status and body (meta/v1 Status)."""

    def __init__(self, status: int, reason: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
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


def forbidden(verb: str, plural: str, group: str, namespace: str, name: str = "") -> RefusedError:
    """A role lacks a rule."""
    of = f"{plural}.{group}" if group else plural
    named = f' "{name}"' if name else ""
    place = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    message = f'{of}{named} is forbidden: User "dev" cannot {verb} resource "{plural}" in API group "{group}"{place}'
    return RefusedError(403, "Forbidden", message, name=name, group=group, kind=plural)


def over_quota(plural: str, name: str) -> RefusedError:
    """The namespace may have no more of these."""
    message = (
        f'{plural} "{name}" is forbidden: exceeded quota: team, requested: count/{plural}=1, '
        f"used: count/{plural}=3, limited: count/{plural}=3"
    )
    return RefusedError(403, "Forbidden", message, name=name, kind=plural)


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
    """Fields (by path) that others own, with their names."""
    count = len(conflicts)
    owners = sorted({owner for _, owner in conflicts})
    listed = "\n".join(f"- {field}" for field, _ in conflicts)
    who = (
        f'conflict with "{owners[0]}"' if len(owners) == 1 else "conflicts with " + ", ".join(f'"{o}"' for o in owners)
    )
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{owner}"', "field": field}
        for field, owner in conflicts
    ]
    message = f"Apply failed with {count} conflict{'s' * (count > 1)}: {who}:\n{listed}"
    return RefusedError(409, "Conflict", message, causes=causes)


def invalid(kind: str, group: str, name: str, field: str, why: str) -> RefusedError:
    """A value that is not taken."""
    of = f"{kind}.{group}" if group else kind
    message = f'{of} "{name}" is invalid: {field}: Invalid value: {why}'
    causes = [{"reason": "FieldValueInvalid", "message": f"Invalid value: {why}", "field": field}]
    return RefusedError(422, "Invalid", message, name=name, group=group, kind=kind, causes=causes)


def not_started(pod: str) -> RefusedError:
    """The log of a container that never ran."""
    return RefusedError(
        400, "BadRequest", f'container "model" in pod "{pod}" is waiting to start: trying and failing to pull image'
    )


def busy() -> RefusedError:
    """Priority and fairness sheds load."""
    return RefusedError(
        429, "TooManyRequests", "The server is currently unable to handle the request", retryAfterSeconds=1
    )


def expired() -> RefusedError:
    """A watch from a version that is not kept any more."""
    return RefusedError(410, "Expired", "The resourceVersion for the provided watch is too old.")


def no_endpoints(service: str) -> RefusedError:
    """A service without a pod that is ready."""
    return RefusedError(503, "ServiceUnavailable", f'no endpoints available for service "{service}"')
