"""What an exporter is: a pure function from a deployment to the files another system runs it from.

Same workload, same files, byte for byte: no clock, no network, no client of that system. An exporter that cannot give
what a deployment asks for refuses it (`refuse`), for what is left out silently is found out in production.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from corten.core.deployment import Settings
from corten.core.reference import Reference
from corten.errors import UsageError

HTTP_PORT = 8080


class Addition(Enum):
    """What a cluster may have besides Kubernetes itself; the value is the word people give."""

    GATEWAY_API = "gateway-api"
    KEDA = "keda"
    KEDA_HTTP = "keda-http"
    KEDA_HTTP_ALPHA = "keda-http-v1alpha1"  # its older API, HTTPScaledObject
    PROMETHEUS = "prometheus"
    KNATIVE = "knative"
    ARGO_ROLLOUTS = "argo-rollouts"
    KSERVE = "kserve"


@dataclass(frozen=True, slots=True, order=True)
class SecretVariable:
    """An environment variable that is taken from a secret the other system keeps: its name there, and the key in it."""

    variable: str
    secret: str
    key: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is known of the cluster that is rendered for, and how deployments fit into it.

    `version` is Kubernetes' major and minor one. `gateway` is the `NAMESPACE/NAME` of the Gateway that routes are bound
    to. Pods of `monitoring` and `scalers` (namespaces) may read metrics. Without `user_namespaces` root in a container
    is root's number on its node.
    """

    version: tuple[int, int] = (1, 34)
    additions: frozenset[Addition] = frozenset()
    namespace: str = ""
    gateway: str = ""
    monitoring: str = "monitoring"
    scalers: str = "keda"
    pull_secrets: tuple[str, ...] = ()
    priority_class: str = ""
    user_namespaces: bool = True

    def has(self, addition: Addition) -> bool:
        """Whether it has that."""
        return addition in self.additions

    @property
    def holds(self) -> bool:
        """Whether something there holds the first request to a deployment without a replica, by host name."""
        return self.has(Addition.KEDA_HTTP) or self.has(Addition.KEDA_HTTP_ALPHA)


@dataclass(frozen=True, slots=True)
class Workload:
    """A deployment to be written down for another system.

    `image` names a registry and a digest: the other system pulls it. `weights` is an image of the model's files alone,
    where they are to be mounted. `revision` is a label (`r3`), empty where nobody counts. `host` is what clients ask
    by. `notes` are annotations: where the image came from.
    """

    name: str
    image: Reference
    settings: Settings = field(default_factory=Settings)
    revision: str = ""
    weights: Reference | None = None
    secrets: tuple[SecretVariable, ...] = ()
    host: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    cluster: Cluster = field(default_factory=Cluster)

    @property
    def version(self) -> str:
        """What tells this revision from others: its label, or the digest's first digits where nobody counts."""
        return self.revision or (self.image.digest.short if self.image.digest else self.image.tag)

    @property
    def gpus(self) -> int:
        """How many GPUs each replica has."""
        return self.settings.resources.gpus

    @property
    def scales(self) -> bool:
        """Whether the requests decide how many replicas there are."""
        return self.settings.most_replicas > self.settings.replicas

    @property
    def most(self) -> int:
        """How many replicas there may be."""
        return max(self.settings.most_replicas, self.settings.replicas)


class Exporter(Protocol):
    """Writes a workload down for another system. Found by name: entry points `corten.exporters`."""

    name: str

    def render(self, workload: Workload) -> Mapping[str, str]:
        """Text of files by their relative path, in the order they are to be read. Raises UsageError."""


def refuse(exporter: str, what: str, *, why: str, hint: str = "") -> UsageError:
    """The error for what a deployment asks for and `exporter` cannot give."""
    return UsageError("render.unsupported", f"{what} cannot be rendered for `{exporter}`", why=why, hint=hint)


def refuse_devices(exporter: str, settings: Settings) -> None:
    """Raises UsageError `render.unsupported` for devices by name: a cluster gives them by number, on any node."""
    if devices := settings.resources.devices:
        raise refuse(
            exporter,
            f"`--device {devices[0]}`",
            why="a cluster knows devices by kind and number, and gives whichever is free",
            hint="--gpus N",
        )


def refuse_what_only_our_gateway_does(exporter: str, settings: Settings) -> None:
    """Raises UsageError `render.unsupported` for access rules and mirrored requests: nobody would miss them in time."""
    for asked, what in (
        (settings.auth == "token", "`auth = token`"),
        (settings.rate_per_s, "`rate_per_s`"),
        (settings.canary.mirror, "`mirror`"),
    ):
        if asked:
            raise refuse(
                exporter,
                what,
                why="it is Corten's own gateway that does this, and requests do not pass it there",
                hint="leave it out, and let the gateway in front of the service do it",
            )
