"""What an API server's refusal means, in our words: the cause, and what mends it.

The texts are those of Kubernetes 1.29 to 1.37; `tests/unit/cluster/test_failures.py` has each as it was recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from corten.errors import CortenError, EngineError, NotFoundError, RemoteError

_FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]*)")?'
)
_QUOTA = re.compile(
    r"exceeded quota: (?P<quota>[^,]+), requested: (?P<asked>.+), used: (?P<used>.+), limited: (?P<limit>.+)"
)
_POLICIES = (
    re.compile(r'admission webhook "(?P<policy>[^"]+)" denied the request:? ?(?P<why>.*)', re.DOTALL),
    re.compile(
        r"ValidatingAdmissionPolicy '(?P<policy>[^']+)' with binding '[^']+' denied request: (?P<why>.*)", re.DOTALL
    ),
)
_OWNER = re.compile(r'conflict with "(?P<owner>[^"]+)"')
# What is applied has a field that its kind has not, or has as something else: told with a 500, though it is for ever.
_NOT_TYPED = re.compile(r"failed to create typed patch object \([^)]*\): (?:errors:)?(?P<why>.*)", re.DOTALL)
_NAMESPACE = re.compile(r'namespaces "(?P<name>[^"]+)" not found')


def is_for_ever(document: Mapping[str, Any]) -> bool:
    """Whether asking again cannot help, whatever the status says."""
    return _NOT_TYPED.search(str(document.get("message", ""))) is not None


def failure(status: int, document: Mapping[str, Any], *, what: str, server: str) -> CortenError:
    """The error for a Status of the API (meta/v1) that came for `what` (`Deployment fraud`)."""
    message = str(document.get("message", "")) or f"HTTP {status}"
    match status:
        case 401:
            return RemoteError(
                "kubernetes.unauthorized",
                "the cluster does not know who is asking",
                where=server,
                why=f"{message}: the token or certificate is over, or of another cluster",
                hint="log in again (kubectl auth whoami tells whether it worked), or choose another --context",
            )
        case 403:
            return _forbidden(message, what, server)
        case 404 if found := _NAMESPACE.search(message):
            return NotFoundError(
                "kubernetes.no_namespace",
                f"no namespace `{found['name']}` in the cluster",
                where=server,
                hint=f"kubectl create namespace {found['name']}, or give another --namespace",
            )
        case 404:
            return NotFoundError("kubernetes.unknown", f"the cluster knows no {what}", where=server, why=message)
        case 409 if _is_ownership(document):
            return _owned(document, what)
        case 409:
            return RemoteError(
                "kubernetes.conflict",
                f"{what} was changed by somebody else at the same time",
                why=message,
                hint="run the same command again",
            )
        case 422 if "field is immutable" in message:
            return EngineError(
                "kubernetes.immutable",
                f"{what} has a field that cannot be changed",
                where=_fields(document),
                why=message,
                hint="it was made by something else: give another --name, or delete it (kubectl delete)",
            )
        case 500 if found := _NOT_TYPED.search(message):
            why = found["why"].strip()
            return EngineError(
                "kubernetes.refused",
                f"the cluster does not take {what}",
                where=", ".join(line.strip().partition(": ")[0].removeprefix(".") for line in why.splitlines()),
                why=why,
                hint="is the cluster older than what was rendered? `kubectl version` tells",
            )
        case 400 | 422:
            return _denied(message, what) or EngineError(
                "kubernetes.refused", f"the cluster does not take {what}", where=_fields(document), why=message
            )
        case _:
            return RemoteError(
                "kubernetes.busy" if status == 429 else "kubernetes.failed",
                f"the API server cannot do it now: {what}",
                where=server,
                why=f"{message} (HTTP {status}, several times)",
                hint="run the same command again: what was done is found and kept",
            )


def refusal_hint(message: str) -> str:
    """What mends that a controller was refused to make pods: it is told in the words of the API alone."""
    return failure(403, {"message": message}, what="", server="").hint or "ask who runs the cluster what they allow"


def _forbidden(message: str, what: str, server: str) -> CortenError:
    if found := _QUOTA.search(message):
        return EngineError(
            "kubernetes.quota",
            f"{what} does not fit into the namespace's quota `{found['quota']}`",
            why=f"asked for {found['asked']}; used {found['used']} of {found['limit']}",
            hint="give less (--replicas, --memory, --cpus), or have the quota raised",
        )
    if denied := _denied(message, what):
        return denied
    found = _FORBIDDEN.search(message)
    if found is None:
        return RemoteError("kubernetes.forbidden", f"not allowed: {what}", where=server, why=message)
    place = f" in namespace `{found['namespace']}`" if found["namespace"] else ""
    rule = f'apiGroups: ["{found["group"]}"], resources: ["{found["resource"]}"], verbs: ["{found["verb"]}"]'
    return RemoteError(
        "kubernetes.forbidden",
        f"`{found['user']}` may not {found['verb']} {found['resource']}{place}",
        where=server,
        why=f"a role lacks the rule {{{rule}}}",
        hint="corten k8s rbac prints the least Role that is needed: have it applied by who may",
    )


def _denied(message: str, what: str) -> CortenError | None:
    if "violates PodSecurity" in message:
        return EngineError(
            "kubernetes.denied",
            f"{what} does not pass Pod Security",
            why=message,
            hint="what is rendered passes `restricted`: look for what changes pods on their way (a webhook)",
        )
    if found := next(filter(None, (policy.search(message) for policy in _POLICIES)), None):
        return EngineError(
            "kubernetes.denied",
            f"{what} was denied by the cluster's policy `{found['policy']}`",
            why=found["why"] or message,
            hint="ask who runs the cluster what the policy wants",
        )
    return None


def _is_ownership(document: Mapping[str, Any]) -> bool:
    return any(cause.get("reason") == "FieldManagerConflict" for cause in document.get("details", {}).get("causes", []))


def _owned(document: Mapping[str, Any], what: str) -> CortenError:
    causes = [cause for cause in document["details"]["causes"] if cause.get("reason") == "FieldManagerConflict"]
    owners = sorted({match["owner"] for cause in causes if (match := _OWNER.search(cause.get("message", "")))})
    names = ", ".join(f"`{owner}`" for owner in owners)
    return EngineError(
        "kubernetes.owned",
        f"{what} is also changed by {names}",
        where=", ".join(cause.get("field", "") for cause in causes),
        why="each would undo what the other does; nothing was forced",
        hint=f"leave these fields to one of you, or stop {names} from setting them",
    )


def _fields(document: Mapping[str, Any]) -> str:
    causes = document.get("details", {}).get("causes", [])
    return ", ".join(dict.fromkeys(cause["field"] for cause in causes if cause.get("field")))
