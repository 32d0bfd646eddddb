"""Who may do what, told to who asks: the reviews of the authorization API."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

_API = "authorization.k8s.io/v1"


def review(path: str, asked: dict[str, Any], forbidden: Collection[tuple[str, str]]) -> dict[str, Any] | None:
    """The answer to a SelfSubjectAccessReview; None for any other path."""
    if path != f"/apis/{_API}/selfsubjectaccessreviews":
        return None
    wanted = asked["spec"]["resourceAttributes"]
    resource = "/".join(filter(None, (wanted["resource"], wanted.get("subresource"))))
    allowed = (wanted["verb"], resource) not in forbidden
    status = {"allowed": allowed, **({} if allowed else {"reason": "no RBAC policy matched"})}
    return {**asked, "apiVersion": _API, "kind": "SelfSubjectAccessReview", "status": status}
