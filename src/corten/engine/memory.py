"""An engine whose replicas are records in memory: for tests of what drives engines."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar

from corten.core.digest import Digest
from corten.core.home import Home
from corten.engine.base import Observed, ReplicaSpec
from corten.engine.record import check_id
from corten.errors import EngineError, NotFoundError


@dataclass(slots=True)
class Machine:
    """What outlives an engine object: the "processes" of one machine. Give the same one to a second engine.

    `images` are those that can be started (None: any). `unkillable` replicas do not heed `terminate`.
    `log_lines` are what each replica wrote. `calls` are the verbs used, in order, for tests that count them.
    """

    images: set[Digest] | None = None
    observed: dict[str, Observed] = field(default_factory=dict)
    specs: dict[str, ReplicaSpec] = field(default_factory=dict)
    log_lines: dict[str, list[str]] = field(default_factory=dict)
    unkillable: set[str] = field(default_factory=set)
    calls: list[tuple[str, str]] = field(default_factory=list)
    next_pid: int = 1000
    fail_next_start: EngineError | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)


class Memory:
    """See `engine.base.Engine` for the verbs. Nothing runs; replicas end by `exit` or by being asked to."""

    name: ClassVar[str] = "memory"

    def __init__(self, home: Home | None = None, *, machine: Machine | None = None) -> None:
        del home  # engines are made with one; this one keeps nothing there
        self.machine = machine or Machine()

    # -- for tests

    def exit(self, replica_id: str, code: int = 1, *, lines: Sequence[str] = ()) -> None:
        """Let a running replica end by itself, with its last words."""
        with self._called("exit", replica_id):
            self._end(replica_id, code)
            self.machine.log_lines.setdefault(replica_id, []).extend(lines)

    def say(self, replica_id: str, line: str) -> None:
        """Let a replica write a line to its log."""
        with self.machine.lock:
            self.machine.log_lines.setdefault(replica_id, []).append(line)

    # -- the verbs

    def describe(self) -> Mapping[str, str]:
        """Says that there is no isolation, because there is nothing to isolate."""
        return {"sandbox": "none (nothing runs)"}

    def prepare(self, image: Digest) -> None:
        """Raises NotFoundError `store.image_unknown` for an image the machine does not have."""
        with self._called("prepare", str(image)):
            self._check_image(image)

    def start(self, spec: ReplicaSpec) -> Observed:
        """Record a replica as running. One that was started before is returned as it is."""
        check_id(spec.id)
        with self._called("start", spec.id):
            known = self.machine.specs.get(spec.id)
            if known is not None:
                return self._same(known, spec)
            if error := self.machine.fail_next_start:
                self.machine.fail_next_start = None
                raise error
            self._check_image(spec.image)
            self.machine.next_pid += 1
            self.machine.specs[spec.id] = spec
            self.machine.observed[spec.id] = Observed(
                id=spec.id,
                deployment=spec.deployment,
                revision=spec.revision,
                running=True,
                address=f"/memory/{spec.id}/s",
                pid=self.machine.next_pid,
            )
            return self.machine.observed[spec.id]

    def list(self) -> Sequence[Observed]:
        """All that were started and not removed, by id."""
        with self.machine.lock:
            return [self.machine.observed[replica_id] for replica_id in sorted(self.machine.observed)]

    def freeze(self, replica_id: str) -> None:
        """Record it as frozen."""
        with self._called("freeze", replica_id):
            self._set_frozen(replica_id, frozen=True)

    def thaw(self, replica_id: str) -> None:
        """Record it as not frozen."""
        with self._called("thaw", replica_id):
            self._set_frozen(replica_id, frozen=False)

    def terminate(self, replica_id: str) -> None:
        """End with 143, as a process without a handler for SIGTERM does."""
        with self._called("terminate", replica_id):
            if replica_id not in self.machine.unkillable:
                self._end(replica_id, 128 + signal.SIGTERM)

    def kill(self, replica_id: str) -> None:
        """End with 137."""
        with self._called("kill", replica_id):
            self._end(replica_id, 128 + signal.SIGKILL)

    def remove(self, replica_id: str) -> None:
        """Forget it."""
        with self._called("remove", replica_id):
            self.machine.observed.pop(replica_id, None)
            self.machine.specs.pop(replica_id, None)
            self.machine.log_lines.pop(replica_id, None)

    def logs(self, replica_id: str, *, tail: int = 100) -> Sequence[str]:
        """What `say` and `exit` were given."""
        check_id(replica_id)
        with self.machine.lock:
            return self.machine.log_lines.get(replica_id, [])[-tail:] if tail > 0 else []

    # -- inside

    @contextmanager
    def _called(self, verb: str, subject: str) -> Iterator[None]:
        if verb not in ("prepare", "start"):
            check_id(subject)
        with self.machine.lock:
            self.machine.calls.append((verb, subject))
            yield

    def _check_image(self, image: Digest) -> None:
        if self.machine.images is not None and image not in self.machine.images:
            raise NotFoundError("store.image_unknown", f"no image `{image}`", hint="corten build SOURCE")

    def _same(self, known: ReplicaSpec, spec: ReplicaSpec) -> Observed:
        if (known.deployment, known.revision, known.image) != (spec.deployment, spec.revision, spec.image):
            raise EngineError("engine.id_taken", f"there is another replica `{spec.id}`", hint="ids are used once")
        return self.machine.observed[spec.id]

    def _set_frozen(self, replica_id: str, *, frozen: bool) -> None:
        seen = self.machine.observed.get(replica_id)
        if seen is not None and seen.running:
            self.machine.observed[replica_id] = replace(seen, frozen=frozen)

    def _end(self, replica_id: str, code: int) -> None:
        seen = self.machine.observed.get(replica_id)
        if seen is not None and seen.running:
            self.machine.observed[replica_id] = replace(seen, running=False, pid=0, exit_code=code, frozen=False)
