"""What an engine is: a few verbs, all blocking, all safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from corten.core.digest import Digest
from corten.core.resources import Resources


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """One replica to start. `id` is `DEPLOYMENT-rN-XXXXXX`, unique for ever; `env` is added to the image's own.

    To both the engine adds what tells a replica who and where it is: CORTEN_LISTEN, CORTEN_DEPLOYMENT, CORTEN_REVISION
    (`rN`), CORTEN_REPLICA. `resources` is what it may use at most, as far as `describe` says that it is kept to.
    Each of its `secrets` becomes a file in memory which the replica alone can read, and NAME_FILE tells it where; the
    value is in nothing else the engine makes, and gone when the replica has ended.
    """

    id: str
    deployment: str
    revision: int
    image: Digest
    env: Mapping[str, str] = field(default_factory=dict)
    egress: bool = False
    resources: Resources = field(default_factory=Resources)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Observed:
    """A replica as the engine sees it now.

    `address` is a unix socket's path or `host:port`; `pid` the model's process on this machine (0 when gone or
    unknown); `exit_code` is None while it runs, 128 + signal when a signal ended it, -1 when nobody saw it end.
    `reason` says why it ended where more is known than a code: that its memory ran out, with limit and peak.
    `out_of_memory`: it is known to have been that. `frozen`: it may get no processor.
    """

    id: str
    deployment: str
    revision: int
    running: bool
    address: str
    pid: int
    exit_code: int | None = None
    reason: str = ""
    frozen: bool = False
    out_of_memory: bool = False


class Engine(Protocol):
    """Runs replicas of images that are in the store. Replicas outlive the process that started them."""

    name: ClassVar[str]

    def describe(self) -> Mapping[str, str]:
        """What isolation replicas get here, for `status` and `doctor`: e.g. {"sandbox": "bubblewrap 0.8.0", ...}.

        `limits` begins with `none` where memory or processors of a replica cannot be limited; `devices` is `none` where
        it cannot have any. Where they are told, `gpus` is how many of NVIDIA's there are, and `cdi` the names of all
        devices that are described (`none: WHY` where the engine takes none by name).
        """
        ...

    def prepare(self, image: Digest) -> None:
        """Make an image ready to start (unpack its layers). Safe to repeat and to run twice at once."""
        ...

    def start(self, spec: ReplicaSpec) -> Observed:
        """Start a replica and return at once, before its model has loaded. Raises EngineError."""
        ...

    def list(self) -> Sequence[Observed]:
        """All replicas that were started and not removed, also by an earlier process: running or exited."""
        ...

    def freeze(self, replica_id: str) -> None:
        """Take the processor from it and all it started, keep its memory; nothing if it has ended."""
        ...

    def thaw(self, replica_id: str) -> None:
        """Give it the processor again; nothing if it has ended or is not frozen."""
        ...

    def terminate(self, replica_id: str) -> None:
        """Ask it to end (SIGTERM), a frozen one too; nothing if it has ended."""
        ...

    def kill(self, replica_id: str) -> None:
        """End it and everything it started, now (SIGKILL); nothing if it has ended."""
        ...

    def remove(self, replica_id: str) -> None:
        """Forget an ended replica and free what it held, its log too; ends it first if need be."""
        ...

    def logs(self, replica_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines it wrote, oldest first; empty when there is none. May be milliseconds behind it."""
        ...
