"""Replicas as containers of podman or Docker, over the API both have. See `engine.base.Engine` for the verbs.

What there is to know stands in the containers' labels, so a later daemon finds all of it by asking; only what the API
has no room for is in `replicas/ID`.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import ClassVar, Final, Self

from corten.core.digest import Digest
from corten.core.home import Home
from corten.core.image import Image
from corten.core.process import ProcessId, descendants
from corten.engine.base import Observed, ReplicaSpec
from corten.engine.cgroups import OUT_OF_MEMORY, Usage
from corten.engine.connecting import connecting
from corten.engine.container import (
    DEPLOYMENT_LABEL,
    GPUS_LABEL,
    HOME_LABEL,
    IMAGE_LABEL,
    REPLICA_LABEL,
    REVISION_LABEL,
    Container,
    body,
)
from corten.engine.container_host import ContainerHost
from corten.engine.container_images import ContainerImages
from corten.engine.devices import choose, gpus_here
from corten.engine.docker_api import DISK_FULL, Config, DockerApi, Inspected, Listed, RefusedError
from corten.engine.endpoint import Kind
from corten.engine.freezer import Freezer
from corten.engine.libpod import specification
from corten.engine.notes import Notes
from corten.engine.oom import OomWatches
from corten.engine.places import SOCKET, Places, check_image, environment
from corten.engine.record import check_id
from corten.engine.sandbox import JOBS, RUN, Bounds
from corten.engine.secret_files import SecretFiles
from corten.errors import CortenError, EngineError
from corten.store.layout import Layout
from corten.store.writing import translated

# How long an engine may take to see that a process of it has ended.
_END_S: Final = 5.0
_POLL_S: Final = 0.01
_CONFLICT: Final = 409
# podman's `stopping` has a process still; its `stopped` has none and an exit code.
_RUNNING: Final = ("running", "paused", "stopping")
# Files in replicas/ID: SIGTERM would have ended it; it is stopped by signals, the engine cannot freeze.
_ENDED, _STOPPED = "ended", "stopped"


class Containers:
    """The engine over one socket. Threads may call it at the same time.

    Subclasses say whose socket it is. `api` talks to it; `uid` is who we are, `gpus` looks for this machine's.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]

    def __init__(
        self,
        home: Home,
        api: DockerApi,
        *,
        bounds: Bounds | None = None,
        uid: int | None = None,
        gpus: Callable[[], Sequence[int]] = gpus_here,
    ) -> None:
        self._home = home
        self._places = Places(home)
        self._secrets = SecretFiles(home)
        self._api = api
        self._bounds = bounds or Bounds()
        self._uid = os.geteuid() if uid is None else uid
        self._host = ContainerHost(home, api, self._uid)
        self._notes = Notes(home)
        self._oom = OomWatches()
        self._gpus_here = gpus
        self._choosing = threading.Lock()
        self._layout = Layout(home.store)
        self._freezer = Freezer(())
        # Whose containers they are: a home may have others' replicas besides the daemon's (`ops.quarters`).
        self._owner = Digest.of(str(home.replicas).encode()).hex[:12]
        self._images = ContainerImages(self._layout, api, Digest.of(str(home.root).encode()).hex[:12])
        self._starting: set[str] = set()
        # Of containers by their id: an id is never used twice, and what has ended stays so.
        self._processes: dict[str, ProcessId | None] = {}
        self._ended: dict[str, Observed] = {}
        self._lock = threading.Lock()

    @classmethod
    def from_env(cls, home: Home, env: Mapping[str, str]) -> Self:
        """An engine where `CONTAINER_HOST` or `DOCKER_HOST` say, or at the usual place.

        Raises EngineError `engine.no_container_engine`, UsageError `engine.bad_host`.
        """
        return cls(home, DockerApi(connecting(cls.kind, home, env)))

    # -- the verbs

    def describe(self) -> Mapping[str, str]:
        """What replicas are kept from here, for people."""
        return {**self._host.describe(), "gpus": str(len(self._gpus_here()))}

    def prepare(self, image: Digest) -> None:
        """Have the engine load it, without the layers it has. Raises NotFoundError, EngineError."""
        self._prepared(image)

    def start(self, spec: ReplicaSpec) -> Observed:
        """Start a replica; one that was started before is returned as it is."""
        check_id(spec.id)
        if known := self._api.inspect(self._named(spec.id)):
            return self._same(known, spec)
        image, reference = self._prepared(spec.image)
        with self._begun(spec), translated(self._home.root, f"start replica {spec.id}"):
            try:
                found = self._create(spec, image, reference)
            except RefusedError as error:
                if error.status == _CONFLICT and (known := self._api.inspect(self._named(spec.id))):
                    return self._same(known, spec)
                raise self._refused(spec, error) from error
            try:
                if self._hears_of_memory(spec):
                    self._api.init_libpod(found)
                    self._listen(self._api.inspect(found))
                self._api.start(found)
            except RefusedError as error:
                raise self._refused(spec, error) from error
        seen = self._api.inspect(found)
        if seen is None:
            raise EngineError("engine.start_failed", f"replica `{spec.id}` is gone", why="somebody removed it")
        return self._observe(seen, spec.id)

    def list(self) -> Sequence[Observed]:
        """All containers of this home, but for those that are just being started."""
        with self._lock:
            starting = set(self._starting)
        listed = self._api.list(f"{HOME_LABEL}={self._owner}")
        named = {replica: each for each in listed if (replica := _label(each, REPLICA_LABEL)) not in starting}
        seen = [self._look(named[replica], replica) for replica in sorted(named)]
        return [each for each in seen if each is not None]

    def freeze(self, replica_id: str) -> None:
        """By the engine's own cgroups; where it has none, by signals."""
        found = self._found(replica_id)
        if found is None or found.state.status != "running" or self._notes.has(replica_id, _STOPPED):
            return
        try:
            self._api.pause(found.id)
        except RefusedError as error:
            if not self._runs(found.id):
                return
            if ProcessId.of(found.state.pid) is None:
                raise EngineError(
                    "engine.cannot_freeze", f"replica `{replica_id}` cannot be frozen", why=error.why
                ) from error
            # Written down first, so that nobody waits for one that is frozen.
            self._notes.add(replica_id, _STOPPED)
            self._freezer.freeze(replica_id, lambda: descendants(found.state.pid))

    def thaw(self, replica_id: str) -> None:
        """Let it go on."""
        if (found := self._found(replica_id)) is not None:
            self._thaw(found, replica_id)

    def terminate(self, replica_id: str) -> None:
        """SIGTERM. A process that has no handler for it is ended at once: as PID 1 it would never see the signal."""
        found = self._found(replica_id)
        if found is None or not _alive(found):
            return
        process = ProcessId.of(found.state.pid)
        deaf = process is not None and not process.heeds(signal.SIGTERM)
        if deaf:
            self._notes.add(replica_id, _ENDED)
        self._thaw(found, replica_id)
        self._signal(found.id, signal.SIGKILL if deaf else signal.SIGTERM)

    def kill(self, replica_id: str) -> None:
        """SIGKILL: the kernel ends all others in its PID namespace."""
        if (found := self._found(replica_id)) is not None:
            self._kill(found, replica_id)

    def remove(self, replica_id: str) -> None:
        """End it if it runs, then forget it. Repeated after a kill -9 in between, it goes on where it was."""
        found = self._found(replica_id)
        if found is not None:
            self._kill(found, replica_id)
            self._removed(found.id)
        self._forget(replica_id, _label(found.config, DEPLOYMENT_LABEL) if found else "")

    def logs(self, replica_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines of what the engine kept; bytes that are no UTF-8 are shown as the replacement character."""
        check_id(replica_id)
        if tail <= 0:
            return []
        most = None if self._host.is_podman else tail
        return self._api.logs(self._named(replica_id), most).decode("utf-8", "replace").splitlines()[-tail:]

    # -- starting

    def _prepared(self, digest: Digest) -> tuple[Image, str]:
        self._places.make()
        image = self._layout.image(digest)
        check_image(image)
        return image, self._images.load(image)

    @contextmanager
    def _begun(self, spec: ReplicaSpec) -> Iterator[None]:
        """While a replica is being started it is not listed; of one that cannot be, nothing is left."""
        with self._lock:
            self._starting.add(spec.id)
        try:
            # Read from the outside by nobody but the owner of the home, and, below it, by the replica.
            root, foreign = self._uid == 0, self._uid != 0 and not self._host.keeps_id
            mode = 0o777 if foreign else 0o700
            self._places.make_for(spec.id, spec.deployment, nobodys=root, mode=mode)
            self._secrets.make(spec.id, spec.secrets, nobodys=root, foreign=foreign)
            yield
        except BaseException:
            with suppress(CortenError):
                self._api.remove(self._named(spec.id))
            self._forget(spec.id, spec.deployment)
            raise
        finally:
            with self._lock:
                self._starting.discard(spec.id)

    def _create(self, spec: ReplicaSpec, image: Image, reference: str) -> str:
        """Make the container. Of two at once each sees which GPUs the other has."""
        with self._choosing if spec.resources.gpus else nullcontext():
            container = self._container(spec, image, reference, self._gpus(spec.resources.gpus))
            if self._host.is_podman and spec.resources.with_devices:
                return self._api.create_libpod(specification(self._named(spec.id), container))
            return self._api.create(self._named(spec.id), body(container))

    def _gpus(self, count: int) -> tuple[int, ...]:
        if not count:
            return ()
        labels = [_label(one, GPUS_LABEL) for one in self._api.list(f"{HOME_LABEL}={self._owner}") if _may_run(one)]
        return choose(self._gpus_here(), [int(gpu) for text in labels for gpu in text.split(",") if gpu], count)

    def _container(self, spec: ReplicaSpec, image: Image, reference: str, gpus: tuple[int, ...]) -> Container:
        self._places.address(spec.id)
        env = environment(image, spec, f"unix:{RUN}/{SOCKET}") | {"CORTEN_JOBS_DIR": JOBS}
        return Container(
            spec=spec,
            source=image,
            image=reference,
            labels={
                HOME_LABEL: self._owner,
                REPLICA_LABEL: spec.id,
                DEPLOYMENT_LABEL: spec.deployment,
                REVISION_LABEL: str(spec.revision),
                IMAGE_LABEL: str(spec.image),
                GPUS_LABEL: ",".join(map(str, gpus)),
            },
            env=env,
            run=self._places.run(spec.id),
            jobs=self._places.jobs(spec.deployment),
            bounds=self._bounds,
            userns="keep-id:uid=65532,gid=65532" if self._host.keeps_id else "",
            seccomp=self._host.seccomp,
            healthy=not self._host.is_podman or Path("/run/systemd/system").is_dir(),
            limits=self._host.limits,
            secrets=self._secrets.folder(spec.id) if spec.secrets else None,
            gpus=gpus,
            relabel=self._host.has_selinux,
        )

    def _same(self, known: Inspected, spec: ReplicaSpec) -> Observed:
        of = (_label(known.config, name) for name in (DEPLOYMENT_LABEL, REVISION_LABEL, IMAGE_LABEL))
        if tuple(of) == (spec.deployment, str(spec.revision), str(spec.image)):
            return self._observe(known, spec.id)
        raise EngineError(
            "engine.id_taken",
            f"there is another replica `{spec.id}`",
            where=known.name.lstrip("/"),
            why=f"of {_label(known.config, DEPLOYMENT_LABEL)} r{_label(known.config, REVISION_LABEL)}",
            hint="ids are used once",
        )

    def _refused(self, spec: ReplicaSpec, error: RefusedError) -> EngineError:
        if error.code == DISK_FULL:
            return error
        hint = "corten doctor"
        if spec.egress:
            hint = "does the engine have its usual network? `egress` needs its bridge"
        if spec.resources.with_devices:
            hint = "is the device described for the engine? `corten doctor` shows what there is"
        return EngineError(
            "engine.start_failed", f"{self.name} could not start replica `{spec.id}`", why=error.why, hint=hint
        )

    # -- looking

    def _named(self, replica_id: str) -> str:
        # Two homes on one machine may have the same replicas.
        return f"corten-{self._owner}-{replica_id}"

    def _found(self, replica_id: str) -> Inspected | None:
        found = self._api.inspect(self._named(check_id(replica_id)))
        return found if found is not None and _label(found.config, HOME_LABEL) == self._owner else None

    def _look(self, listed: Listed, replica_id: str) -> Observed | None:
        """One of a list, asked about only where the list does not say enough."""
        if ended := self._ended.get(listed.id):
            return ended
        process = self._processes.get(listed.id)
        if listed.state in _RUNNING and process is not None and process.alive:
            return self._running(listed, replica_id, process.pid, frozen=listed.state == "paused")
        found = self._api.inspect(listed.id)
        return None if found is None else self._observe(found, replica_id)

    def _observe(self, found: Inspected, replica_id: str) -> Observed:
        if _alive(found):
            process = self._processes.setdefault(found.id, ProcessId.of(found.state.pid))
            self._listen(found)
            if process is None or process.alive:
                pid = process.pid if process else 0
                return self._running(found, replica_id, pid, frozen=found.state.status == "paused")
            found = self._until_ended(found)
        return self._gone(found, replica_id)

    def _running(self, one: Listed | Inspected, replica_id: str, pid: int, *, frozen: bool) -> Observed:
        labelled = one if isinstance(one, Listed) else one.config
        return Observed(
            id=replica_id,
            deployment=_label(labelled, DEPLOYMENT_LABEL),
            revision=int(_label(labelled, REVISION_LABEL)),
            running=True,
            address=self._places.address(replica_id),
            pid=pid,
            frozen=frozen or self._notes.has(replica_id, _STOPPED),
        )

    def _gone(self, found: Inspected, replica_id: str) -> Observed:
        state = found.state
        code = -1 if state.status == "created" else state.exit_code
        if code == 128 + signal.SIGKILL and self._notes.has(replica_id, _ENDED):
            code = 128 + signal.SIGTERM
        reason = self._why_killed(found) if code == 128 + signal.SIGKILL else ""
        self._secrets.remove(replica_id)
        self._ended[found.id] = Observed(
            id=replica_id,
            deployment=_label(found.config, DEPLOYMENT_LABEL),
            revision=int(_label(found.config, REVISION_LABEL)),
            running=False,
            address=self._places.address(replica_id),
            pid=0,
            exit_code=code,
            reason=reason or state.error,
            out_of_memory=reason.startswith(OUT_OF_MEMORY),
        )
        return self._ended[found.id]

    def _why_killed(self, found: Inspected) -> str:
        limit = found.host_config.memory
        if found.state.oom_killed or self._oom.ran_out(found.id):
            return Usage(limit, limit, killed=1).reason  # the kernel ends it at the limit: that is how far it got
        return ""

    def _hears_of_memory(self, spec: ReplicaSpec) -> bool:
        """Whether it must be listened for: of cgroups of version 1 podman's monitor hears too late, if at all."""
        return bool(
            spec.resources.memory_bytes and self._host.limits and self._host.is_podman and self._host.has_old_cgroups
        )

    def _listen(self, found: Inspected | None) -> None:
        if found is not None and found.host_config.memory and self._host.has_old_cgroups:
            self._oom.watch(found.id, found.state.pid)

    def _until_ended(self, found: Inspected) -> Inspected:
        """Wait for the engine to see that a process of it is gone."""
        deadline_s = time.monotonic() + _END_S
        while _alive(found) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
            found = self._api.inspect(found.id) or found
        return found

    def _runs(self, container: str) -> bool:
        found = self._api.inspect(container)
        return found is not None and _alive(found)

    # -- ending

    def _kill(self, found: Inspected, replica_id: str) -> None:
        if not _alive(found):
            return
        self._thaw(found, replica_id)
        self._signal(found.id, signal.SIGKILL)
        self._until_ended(found)

    def _thaw(self, found: Inspected, replica_id: str) -> None:
        if found.state.status == "paused":
            with self._unless_ended(found.id):
                self._api.unpause(found.id)
        if self._notes.has(replica_id, _STOPPED):
            self._freezer.thaw(replica_id, lambda: descendants(found.state.pid))
            self._notes.remove(replica_id, _STOPPED)

    def _signal(self, container: str, number: signal.Signals) -> None:
        with self._unless_ended(container):
            self._api.kill(container, number.name)

    @contextmanager
    def _unless_ended(self, container: str) -> Iterator[None]:
        """What an engine refuses because the container has just ended is done."""
        try:
            yield
        except RefusedError:
            found = self._api.inspect(container)
            if found is not None and _alive(self._until_ended(found)):
                raise

    def _removed(self, container: str) -> None:
        """Remove a container; podman refuses while it is still clearing up behind it."""
        deadline_s = time.monotonic() + _END_S
        while True:
            try:
                self._api.remove(container)
            except RefusedError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(_POLL_S)
                continue
            self._ended.pop(container, None)
            self._processes.pop(container, None)
            self._oom.forget(container)
            return

    def _forget(self, replica_id: str, deployment: str) -> None:
        """Remove a replica's folders, and what is known of jobs with the last of its deployment."""
        shutil.rmtree(self._places.run(replica_id), ignore_errors=True)
        self._secrets.remove(replica_id)
        self._notes.forget(replica_id)
        if deployment:
            others = self._api.list(f"{HOME_LABEL}={self._owner}")
            if all(_label(each, DEPLOYMENT_LABEL) != deployment for each in others):
                shutil.rmtree(self._places.jobs(deployment), ignore_errors=True)


class Podman(Containers):
    """podman's containers: of a running service, or of one started for the home."""

    name: ClassVar[str] = "podman"
    kind: ClassVar[Kind] = Kind.PODMAN


class Docker(Containers):
    """Docker's containers."""

    name: ClassVar[str] = "docker"
    kind: ClassVar[Kind] = Kind.DOCKER


def _alive(found: Inspected) -> bool:
    return found.state.status in _RUNNING


def _may_run(listed: Listed) -> bool:
    return listed.state in (*_RUNNING, "created", "configured", "initialized")


def _label(labelled: Listed | Config, name: str) -> str:
    return (labelled.labels or {}).get(name, "")
