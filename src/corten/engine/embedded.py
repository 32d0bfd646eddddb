"""Replicas as sandboxed processes of this machine, run from unpacked layers. No daemon of its own, no root needed."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Final, Self

from corten.core.digest import Digest
from corten.core.events import Event, Listener, Phase, nobody
from corten.core.home import Home
from corten.core.image import Image
from corten.core.process import ProcessId, descendants, parent, with_environment
from corten.core.resources import Resources
from corten.engine.base import Observed, ReplicaSpec
from corten.engine.bytecode import Bytecode, Tree
from corten.engine.cgroups import OUT_OF_MEMORY, Cgroups
from corten.engine.devices import refuse_devices
from corten.engine.folders import passable
from corten.engine.freezer import Freezer
from corten.engine.launch import Launched, SandboxProbe, default_hosts, launch_plain, launch_sandbox, probe, reap
from corten.engine.logs import keep_short, last_lines
from corten.engine.places import SOCKET, Places, check_image, environment
from corten.engine.plain import plain_process
from corten.engine.record import START_VARIABLE, Record, ReplicaFolder, check_id
from corten.engine.sandbox import JOBS, RUN, Bounds, Cell, Host, Sandbox
from corten.engine.secret_files import SecretFiles
from corten.errors import CortenError, EngineError, UsageError
from corten.store.layout import Layout
from corten.store.trees import Prepared, Trees
from corten.store.writing import translated

__all__ = ["Embedded", "Sandbox", "SandboxProbe", "probe"]

_RESOLVER: Final = Path("/etc/resolv.conf")
# bubblewrap writes the exit code a moment after its child is gone.
_REPORT_S: Final = 0.5
_SETTLE_S: Final = 0.25  # how long a start cut short may take to show itself
_LOOK_S: Final = 0.005


class Embedded:
    """The engine that is built in. See `engine.base.Engine` for the verbs.

    `sandbox` says what isolation is wanted; `bwrap` is bubblewrap's path (found on PATH by default). `listen` hears a
    WARNING when replicas run without sandbox. Threads may call it at the same time; two objects (a daemon and its
    successor) may work on the same home one after the other.
    """

    name: ClassVar[str] = "embedded"

    def __init__(
        self,
        home: Home,
        *,
        bwrap: str | None = None,
        sandbox: Sandbox = Sandbox.AUTO,
        listen: Listener = nobody,
        bounds: Bounds | None = None,
        cgroups: Cgroups | None = None,
        freezer: Freezer | None = None,
    ) -> None:
        self._home = home
        self._places = Places(home)
        self._secrets = SecretFiles(home)
        self._freezer = freezer or Freezer()
        self._bwrap = bwrap or shutil.which("bwrap")
        self._sandbox = sandbox
        self._listen = listen
        self._bounds = bounds or Bounds()
        self._cgroups = cgroups or Cgroups()
        self._layout = Layout(home.store)
        self._trees = Trees(self._layout, home.trees)
        self._bytecode = Bytecode(home.trees, self._bounds)
        self._probed: SandboxProbe | None = None
        # Held from the first note of a replica to the last: `list` must not take one that starts for a dead one.
        self._lock = threading.RLock()

    @classmethod
    def from_env(cls, home: Home, env: Mapping[str, str], *, listen: Listener = nobody) -> Self:
        """An engine as `CORTEN_SANDBOX` (auto, bwrap, none) and `CORTEN_BWRAP` (a path) say. Raises UsageError."""
        text = env.get("CORTEN_SANDBOX") or Sandbox.AUTO.value
        try:
            sandbox = Sandbox(text)
        except ValueError as error:
            known = ", ".join(choice.value for choice in Sandbox)
            raise UsageError("engine.bad_sandbox", f"no sandbox called `{text}`", why=f"known: {known}") from error
        return cls(home, bwrap=env.get("CORTEN_BWRAP") or None, sandbox=sandbox, listen=listen)

    # -- the verbs

    def describe(self) -> Mapping[str, str]:
        """What replicas are kept from here, for people."""
        found = self._isolation()
        lacking = self._cgroups.lacking(Resources(memory_bytes=1, cpus=1))
        limits = f"none for {' and '.join(lacking)}: no cgroup can be made" if lacking else "memory and cpu, by cgroups"
        if not found.works:
            return {
                "sandbox": f"none (plain process): {found.reason}",
                "user": "uid 65532" if self._plain_host() is Host.NOBODY else "your own",
                "network": "the machine's",
                "devices": "none",
                "limits": limits,
            }
        users = {
            Host.NOBODY: "uid 65532, outside the sandbox too",
            Host.CALLER: "uid 65532, outside the sandbox your own",
            Host.ROOT: f"uid 65532, outside the sandbox root without capabilities ({self._home.root} is closed)",
        }
        return {
            "sandbox": f"bubblewrap {found.version}",
            "user": users[found.host or Host.CALLER],
            "network": "none; with egress the machine's",
            "system calls": "filtered by seccomp",
            "files": "read-only root"
            + ("" if found.features.sized_tmpfs else "; /tmp without a limit (bubblewrap is older than 0.7)"),
            "devices": "none",
            "limits": limits,
        }

    def prepare(self, image: Digest) -> None:
        """Unpack an image's layers. Raises what `Trees.prepare` does, and EngineError for another platform."""
        self._prepared(image)

    def start(self, spec: ReplicaSpec) -> Observed:
        """Start a replica; see `engine.base.Engine`. One that was started before is returned as it is."""
        check_id(spec.id)
        refuse_devices(spec.resources)
        folder = self._folder(spec.id)
        with self._lock:
            if record := folder.read():
                return self._same(record, spec, folder)
        image, prepared = self._prepared(spec.image)
        found = self._isolation()
        with self._lock, translated(folder.path, f"start replica {spec.id}"):
            record = self._note(spec, image, prepared, found)
            self._cgroups.make(record.groups, spec.resources, self._bounds.processes)
            try:
                if found.works:
                    record = self._start_sandbox(record, spec, image, prepared, found)
                else:
                    record = self._start_plain(record, spec, image, prepared)
            except BaseException as error:
                if not isinstance(error, CortenError):
                    # Ctrl-C in the middle: unlike after an error of the launch's own, something may run already.
                    self._kill(folder.read() or record, folder)
                self._forget(folder)
                self._forget_jobs(spec.deployment)
                raise
            return self._observe(record, folder)

    def list(self) -> Sequence[Observed]:
        """All replicas with a record, also of an earlier process; ends what a killed predecessor left half-started."""
        with self._lock:
            self._bytecode.finish()
            return [self._observe(record, folder) for folder, record in self._records()]

    def freeze(self, replica_id: str) -> None:
        """Stop all its processes where they are. Written down first, so that nobody waits for one that is frozen."""
        with self._lock:
            folder, record = self._find(replica_id)
            if record is None or not self._observe(record, folder).running:
                return
            with translated(folder.path, f"freeze replica {replica_id}"):
                record = folder.write(replace(folder.read() or record, frozen=True))
            self._freezer.freeze(replica_id, lambda: _tree(record))

    def thaw(self, replica_id: str) -> None:
        """Let all its processes go on."""
        with self._lock:
            folder, record = self._find(replica_id)
            if record is not None:
                self._thaw(record, folder)

    def terminate(self, replica_id: str) -> None:
        """SIGTERM. A process that has no handler for it is ended at once: as PID 1 it would never see the signal."""
        with self._lock:
            folder, record = self._find(replica_id)
            if record is None or not self._observe(record, folder).running:
                return
            record = folder.read() or record
            process = record.process
            if process is None:
                return
            if record.host is None or process.heeds(signal.SIGTERM):
                process.send(signal.SIGTERM)
                self._thaw(record, folder)
                return
            with translated(folder.path, f"end replica {replica_id}"):
                record = folder.write(replace(record, ended=True))
            self._thaw(record, folder)
            process.kill()

    def kill(self, replica_id: str) -> None:
        """SIGKILL to the first process of the PID namespace: the kernel ends all others in it."""
        with self._lock:
            folder, record = self._find(replica_id)
            if record is not None:
                self._kill(record, folder)

    def remove(self, replica_id: str) -> None:
        """End it if it runs, then forget it. Repeated after a kill -9 in between, it goes on where it was."""
        with self._lock:
            folder, record = self._find(replica_id)
            if record is not None:
                self._kill(record, folder)
            if folder.path.is_dir():
                with translated(folder.path, f"remove replica {replica_id}"):
                    self._forget(folder)
            if record is not None:
                self._forget_jobs(record.deployment)

    def logs(self, replica_id: str, *, tail: int = 100) -> Sequence[str]:
        """The last lines; bytes that are no UTF-8 are shown as the replacement character."""
        folder, _ = self._find(replica_id)
        return last_lines(folder.log, tail)

    # -- starting

    def _prepared(self, digest: Digest) -> tuple[Image, Prepared]:
        image = self._layout.image(digest)
        check_image(image)
        self._places.make()
        return image, self._trees.prepare(image)

    def _note(self, spec: ReplicaSpec, image: Image, prepared: Prepared, found: SandboxProbe) -> Record:
        """Write down that a replica is about to start; its folder appears with the record in it."""
        record = Record(
            id=spec.id,
            deployment=spec.deployment,
            revision=spec.revision,
            image=spec.image,
            chain=prepared.chain,
            token=secrets.token_hex(16),
            address=self._places.address(spec.id),
            host=found.host if found.works else None,
            program=image.entrypoint[0],
            groups=self._cgroups.folders(spec.id),
            learning=found.works and _is_free(spec) and self._bytecode.published(prepared.chain) is None,
        )
        unfinished = self._home.replicas / f".new-{record.token}"
        unfinished.mkdir(mode=0o700)
        ReplicaFolder(unfinished).write(record)
        unfinished.rename(self._folder(spec.id).path)
        nobodys = (found.host if found.works else self._plain_host()) is Host.NOBODY
        self._places.make_for(spec.id, spec.deployment, nobodys=nobodys)
        return record

    def _start_sandbox(
        self, record: Record, spec: ReplicaSpec, image: Image, prepared: Prepared, found: SandboxProbe
    ) -> Record:
        folder = self._folder(record.id)
        noted = record

        def started(launched: Launched) -> None:
            nonlocal noted
            if launched.process:
                self._cgroups.enter(record.groups, launched.process)
            noted = folder.write(replace(record, process=launched.process, watcher=launched.watcher))

        env = environment(image, spec, f"unix:{RUN}/{SOCKET}")
        env |= {START_VARIABLE: record.token, "CORTEN_JOBS_DIR": JOBS}
        cell = Cell(
            root=prepared.root,
            hostname=spec.id,
            command=image.entrypoint,
            working_dir=image.working_dir,
            folders=prepared.folders,
            mounts=prepared.mounts,
            env=self._bytecode.environment(prepared.chain, env) if _is_free(spec) else env,
            pycache=self._bytecode.published(prepared.chain),
            run=self._places.run(spec.id),
            jobs=self._places.jobs(spec.deployment),
            egress=spec.egress,
            resolver=_RESOLVER.resolve() if spec.egress and _RESOLVER.exists() else None,
            secrets=spec.secrets,
        )
        launch_sandbox(
            found,
            cell,
            self._bounds_of(spec),
            image.platform,
            marker=_marker(record),
            log=folder.log,
            status=folder.status_file,
            started=started,
        )
        return noted

    def _start_plain(self, record: Record, spec: ReplicaSpec, image: Image, prepared: Prepared) -> Record:
        folder = self._folder(record.id)
        view = self._trees.view(image, prepared)
        host = self._plain_host()
        self._secrets.make(spec.id, spec.secrets, nobodys=host is Host.NOBODY)
        secrets = str(self._secrets.folder(spec.id))
        env = environment(image, spec, f"unix:{record.address}", secrets) | {START_VARIABLE: record.token}
        env |= {"CORTEN_JOBS_DIR": str(self._places.jobs(spec.deployment))}
        plain = plain_process(image, prepared.root, view, env)
        process = launch_plain(plain, self._bounds_of(spec), log=folder.log, host=host)
        if process:
            self._cgroups.enter(record.groups, process)
        return folder.write(replace(record, process=process))

    def _bounds_of(self, spec: ReplicaSpec) -> Bounds:
        """What a replica is bound to without cgroups: its memory too, where no cgroup does that."""
        if "memory" in self._cgroups.lacking(spec.resources):
            return replace(self._bounds, data_bytes=spec.resources.memory_bytes)
        return self._bounds

    def _same(self, record: Record, spec: ReplicaSpec, folder: ReplicaFolder) -> Observed:
        if (record.deployment, record.revision, record.image) == (spec.deployment, spec.revision, spec.image):
            return self._observe(record, folder)
        raise EngineError(
            "engine.id_taken",
            f"there is another replica `{spec.id}`",
            where=str(folder.path),
            why=f"of {record.deployment} r{record.revision}, image {record.image.short}",
            hint="ids are used once",
        )

    # -- looking

    def _observe(self, record: Record, folder: ReplicaFolder) -> Observed:
        if record.exit_code is None and record.process is None:
            record = self._adopt(record, folder)
        running = record.exit_code is None and record.process is not None and record.process.alive
        if not running and record.exit_code is None:
            code = self._exit_code(record, folder)
            self._secrets.remove(record.id)
            reason = self._cgroups.usage(record.groups).reason if code == 128 + signal.SIGKILL else ""
            record = self._write(folder, replace(record, exit_code=code, reason=reason))
        if running:
            with suppress(OSError):
                keep_short(folder.log)
            if record.learning:
                tree = Tree(record.chain, self._trees.root_of(record.chain), record.program)
                self._bytecode.learn(tree, self._places.run(record.id), self._isolation())
        return Observed(
            id=record.id,
            deployment=record.deployment,
            revision=record.revision,
            running=running,
            address=record.address,
            pid=record.process.pid if running and record.process else 0,
            exit_code=record.exit_code,
            reason=record.reason,
            out_of_memory=record.reason.startswith(OUT_OF_MEMORY),
            frozen=running and record.frozen,
        )

    def _adopt(self, record: Record, folder: ReplicaFolder) -> Record:
        """Find the process of a replica whose start was cut short. Only one that carries its token is its process."""
        deadline_s = time.monotonic() + _SETTLE_S
        while True:
            found = with_environment(_marker(record))
            child = folder.status().child
            first = next((process for process in found if process.pid == child), None)
            if first is None and record.host is None and found:
                first = min(found, key=lambda process: process.start_ticks)
            # Before and while it execs, a process shows no token: one look could miss what is just starting.
            if first is not None or time.monotonic() > deadline_s:
                break
            time.sleep(_LOOK_S)
        if first is not None:
            watcher = next((process for process in found if process.pid == parent(first.pid)), None)
            return self._write(folder, replace(record, process=first, watcher=watcher))
        _kill_marked(record)  # bubblewrap without a child: it cannot become a replica any more
        return record

    def _exit_code(self, record: Record, folder: ReplicaFolder) -> int:
        """128 + signal for a signal's end, -1 when nobody saw it."""
        if record.host is None:
            own = _own_exit_code(record.process)
            # Without a PID namespace nobody else ends what it started.
            _kill_marked(record)
            return own
        deadline_s = time.monotonic() + _REPORT_S
        while (code := folder.status().exit_code) is None and record.watcher and record.watcher.alive:
            if time.monotonic() > deadline_s:
                break
            time.sleep(0.001)
        if record.watcher:
            reap(record.watcher.pid)
        code = folder.status().exit_code
        if code is None:
            return -1
        return 128 + signal.SIGTERM if record.ended and code == 128 + signal.SIGKILL else code

    # -- ending

    def _kill(self, record: Record, folder: ReplicaFolder) -> None:
        if not self._observe(record, folder).running:
            return
        record = folder.read() or record
        # In a frozen cgroup of v1 not even SIGKILL reaches a process.
        self._thaw(record, folder)
        if record.process:
            record.process.kill()
        self._observe(record, folder)

    def _thaw(self, record: Record, folder: ReplicaFolder) -> None:
        if record.frozen:
            self._freezer.thaw(record.id, lambda: _tree(record))
            self._write(folder, replace(folder.read() or record, frozen=False))

    def _forget(self, folder: ReplicaFolder) -> None:
        """Remove a replica's folders; the record goes last, so that a removal cut short is seen and repeated."""
        self._bytecode.forget(folder.id)
        if record := folder.read():
            self._cgroups.remove(record.groups)
        self._freezer.forget(folder.id)
        shutil.rmtree(self._places.run(folder.id), ignore_errors=True)
        self._secrets.remove(folder.id)
        for path in folder.path.iterdir():
            if path.name != "record.json":
                path.unlink()
        away = self._home.replicas / f".old-{secrets.token_hex(8)}"
        folder.path.rename(away)
        shutil.rmtree(away, ignore_errors=True)

    def _forget_jobs(self, deployment: str) -> None:
        """Remove what is known of a deployment's jobs, with the last of its replicas."""
        if all(other.deployment != deployment for _, other in self._records()):
            shutil.rmtree(self._places.jobs(deployment), ignore_errors=True)

    # -- places

    def _folder(self, replica_id: str) -> ReplicaFolder:
        return ReplicaFolder(self._home.replicas / replica_id)

    def _find(self, replica_id: str) -> tuple[ReplicaFolder, Record | None]:
        folder = self._folder(check_id(replica_id))
        return folder, folder.read()

    def _records(self) -> Sequence[tuple[ReplicaFolder, Record]]:
        try:
            names = sorted(path.name for path in self._home.replicas.iterdir())
        except FileNotFoundError:
            return []
        folders = [self._folder(name) for name in names if not name.startswith(".")]
        return [(folder, record) for folder in folders if (record := folder.read()) is not None]

    # -- isolation

    def _isolation(self) -> SandboxProbe:
        """What was found out about the sandbox, once. Raises EngineError when one was insisted on and none works."""
        with self._lock:
            if self._probed is None:
                self._probed = self._probe()
            return self._probed

    def _probe(self) -> SandboxProbe:
        if self._sandbox is Sandbox.NONE:
            found = SandboxProbe(works=False, reason="switched off by CORTEN_SANDBOX=none")
        else:
            hosts = default_hosts(os.geteuid())
            found = probe(self._bwrap, hosts if self._passable() else hosts[-1:])
        if found.works:
            return found
        if self._sandbox is Sandbox.BWRAP:
            raise EngineError(
                "engine.no_sandbox",
                "replicas cannot be sandboxed on this machine",
                why=found.reason,
                hint="install bubblewrap (`apt-get install bubblewrap`), or allow plain processes: CORTEN_SANDBOX=auto",
            )
        message = f"replicas run WITHOUT a sandbox, as plain processes: {found.reason}"
        self._listen(Event("sandbox", Phase.WARNING, message, {"sandbox": "none", "reason": found.reason}))
        return found

    def _passable(self) -> bool:
        # Of our own folders `make_passable` sees to it; asking must not make them.
        above = {self._home.root.parent, self._home.run.parent} - {self._home.root}
        return all(passable(folder) for folder in above)

    def _plain_host(self) -> Host | None:
        return Host.NOBODY if os.geteuid() == 0 and self._passable() else None

    def _write(self, folder: ReplicaFolder, record: Record) -> Record:
        with suppress(OSError):  # disk full: what was seen is still true, and seen again next time
            folder.write(record)
        return record


def _is_free(spec: ReplicaSpec) -> bool:
    """Whether bytecode is ours to care for; a deployment that sets one of these cares for it itself."""
    return not {"PYTHONPYCACHEPREFIX", "PYTHONDONTWRITEBYTECODE"} & spec.env.keys()


def _tree(record: Record) -> list[ProcessId]:
    """All processes of a replica, as far as they can be found."""
    first = record.process
    if first is None or not first.alive:
        return []
    if record.host is not None:
        return descendants(first.pid)  # nothing leaves its PID namespace
    return list(dict.fromkeys([*descendants(first.pid), *with_environment(_marker(record))]))


def _marker(record: Record) -> str:
    return f"{START_VARIABLE}={record.token}"


def _own_exit_code(process: ProcessId | None) -> int:
    """The exit code of a plain process if it is our child. A first thread may be gone before the others are."""
    if process is None:
        return -1
    deadline_s = time.monotonic() + _REPORT_S
    while (code := reap(process.pid)) is None and parent(process.pid) == os.getpid():
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.001)
    return -1 if code is None else code


def _kill_marked(record: Record) -> None:
    """End all processes a plain one started, those that left its session too. Repeated: they may start others."""
    for _ in range(100):
        found = with_environment(_marker(record))
        if not found:
            return
        for process in found:
            process.kill()
            reap(process.pid)
