"""What was deployed when: numbered records, kept in the cluster beside what they describe.

A record is a Secret that never changes (what it says of the environment may be one); its state is a label. It holds the
whole rendered set, so that going back needs neither the image's store nor the machine it was deployed from.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from corten.cluster.kinds import SECRET
from corten.cluster.port import Api, Manifest
from corten.exporters.manifests.names import DEPLOYMENT_LABEL, DOMAIN, MANAGED_BY

_RELEASE = f"{DOMAIN}/release"
_STATE = f"{DOMAIN}/state"
_STATE_MANAGER = "corten-state"
KEPT = 10


class ReleaseState(Enum):
    """What became of a release."""

    PROGRESSING = "progressing"  # being deployed, or what did it was interrupted
    DEPLOYED = "deployed"  # what serves
    SUPERSEDED = "superseded"  # served once
    FAILED = "failed"  # never served, or was rolled back


@dataclass(frozen=True, slots=True)
class Release:
    """One. `wanted` is what was asked for, `manifests` what was made of it."""

    deployment: str
    number: int
    state: ReleaseState
    created_s: float
    wanted: Mapping[str, Any]
    manifests: tuple[Manifest, ...]

    @property
    def label(self) -> str:
        """The name people use: `r7`."""
        return f"r{self.number}"

    @property
    def image(self) -> str:
        """The reference that was deployed."""
        return str(self.wanted.get("image", ""))


def history(api: Api, name: str, namespace: str) -> list[Release]:
    """All releases that are kept, oldest first."""
    found = api.list(SECRET, namespace, labels=f"{DEPLOYMENT_LABEL}={name},{_RELEASE}")
    return sorted((_release(one) for one in found.items), key=lambda one: one.number)


def everybodys(api: Api, namespace: str) -> dict[str, list[Release]]:
    """The releases of all deployments by their names."""
    by_name: dict[str, list[Release]] = {}
    for one in api.list(SECRET, namespace, labels=_RELEASE).items:
        release = _release(one)
        by_name.setdefault(release.deployment, []).append(release)
    return {name: sorted(found, key=lambda one: one.number) for name, found in sorted(by_name.items())}


def current(releases: Sequence[Release]) -> Release | None:
    """The one that serves."""
    return next((one for one in reversed(releases) if one.state is ReleaseState.DEPLOYED), None)


def record(api: Api, release: Release, namespace: str) -> None:
    """Write one down; again, when that was begun before."""
    name = secret_name(release)
    document = {
        "created_s": release.created_s,
        "wanted": release.wanted,
        "manifests": list(release.manifests),
    }
    # Without a time in it, the same release is the same bytes: they may be written twice.
    packed = gzip.compress(json.dumps(document, sort_keys=True).encode(), mtime=0)
    api.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {DEPLOYMENT_LABEL: release.deployment, MANAGED_BY: "corten", _RELEASE: str(release.number)},
            },
            "type": f"{DOMAIN}/release.v1",
            "immutable": True,
            "data": {"record": base64.b64encode(packed).decode()},
        },
        namespace,
    )
    mark(api, release, release.state, namespace)


def mark(api: Api, release: Release, state: ReleaseState, namespace: str) -> None:
    """Say what became of a release."""
    label = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(release), "namespace": namespace, "labels": {_STATE: state.value}},
    }
    api.apply(label, namespace, manager=_STATE_MANAGER)


def forget_old(api: Api, releases: Sequence[Release], namespace: str) -> None:
    """Keep the newest ones, and the one that serves."""
    for release in releases[:-KEPT]:
        if release.state is not ReleaseState.DEPLOYED:
            api.delete(SECRET, secret_name(release), namespace)


def secret_name(release: Release) -> str:
    """What the record of a release is called."""
    return f"corten-{release.deployment}-{release.label}"


def _release(secret: Manifest) -> Release:
    labels = secret["metadata"]["labels"]
    document = json.loads(gzip.decompress(base64.b64decode(secret["data"]["record"])))
    return Release(
        deployment=labels[DEPLOYMENT_LABEL],
        number=int(labels[_RELEASE]),
        state=ReleaseState(labels.get(_STATE, ReleaseState.PROGRESSING.value)),
        created_s=document["created_s"],
        wanted=document["wanted"],
        manifests=tuple(document["manifests"]),
    )
