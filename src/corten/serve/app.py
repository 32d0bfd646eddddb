"""The life of a server: listen, load, be ready, drain, end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from corten.adapters.threads import limit_threads
from corten.core.model import ModelSpec
from corten.errors import CortenError
from corten.http import Server, run
from corten.observe import logs
from corten.serve.loading import Loaded, load, read_spec
from corten.serve.meters import Meters
from corten.serve.process import (
    EXPIRE_EVERY_S,
    SWITCH_S,
    Exit,
    begin,
    drain,
    has_little,
    leave,
    log_failure,
    set_up,
    settle,
    start_grpc,
    tell_loaded,
)
from corten.serve.room import make_heap_room
from corten.serve.settings import Settings
from corten.serve.site import Site
from corten.serve.state import State
from corten.serve.worker import Worker

if TYPE_CHECKING:
    from corten.serve.grpc_server import GrpcServer

_log = logging.getLogger(__name__)

_THREAD_END_S = 0.2
_SETTLE_S = 0.5


def main(env: Mapping[str, str]) -> int:
    """Serve the model of this image until told to stop; returns the exit code."""
    begin()
    logs.configure()
    try:
        settings = Settings.from_env(env)
        logs.configure(level=settings.log_level, fields=settings.identity)
        spec = read_spec(settings.app_dir)
    except CortenError as error:
        _log.critical(error.what, extra=error.as_dict())
        return Exit.WRONG_CONFIG
    sys.setswitchinterval(SWITCH_S)
    limit_threads(os.environ, settings.workers_of(spec))
    if settings.seat is not None:
        from corten.serve.member import Member  # one of several processes

        return Member(settings, spec, settings.seat).run()
    if settings.workers_of(spec) > 1:
        from corten.serve.master import serve_together

        return serve_together(settings, spec)
    code = run(_App(settings, spec).run())
    tell_loaded(settings)
    return code


class _App:
    """Wires the parts together and owns the two things that wait: the model's thread and the expiry of requests."""

    def __init__(self, settings: Settings, spec: ModelSpec) -> None:
        self._settings = settings
        self._spec = spec
        self._stop = asyncio.Event()

    async def run(self) -> Exit:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        site, server = set_up(self._spec, self._settings, Meters())
        try:
            # Anyone who can reach the folder may connect: the gateway runs as another user than the replica.
            address = await server.listen(self._settings.listen, mode=0o666)
        except CortenError as error:
            _log.critical(error.what, extra=error.as_dict())
            await server.close()
            return Exit.WRONG_CONFIG
        _log.info("listening", extra={"address": str(address), "pid": os.getpid()})
        grpc = None
        if self._spec.grpc:
            try:
                grpc = await start_grpc(site, self._settings.grpc_address)
            except CortenError as error:
                _log.critical(error.what, extra=error.as_dict())
                await server.close()
                return Exit.WRONG_CONFIG
        worker = Worker(loop)
        worker.start()
        expiry = asyncio.create_task(self._expire(site))
        try:
            return await self._serve(site, server, worker, grpc)
        finally:
            expiry.cancel()
            site.close()
            await server.close()
            if not worker.stop(_THREAD_END_S):
                _log.warning("the model's thread does not end; leaving without it")

    async def _serve(self, site: Site, server: Server, worker: Worker, grpc: GrpcServer | None) -> Exit:
        loaded = await self._load(worker)
        if isinstance(loaded, BaseException):
            log_failure(loaded)
            return Exit.MODEL_FAILED
        if loaded is not None:
            self._ready(site, loaded, worker)
            await self._stop.wait()
        site.state = State.DRAINING
        _log.info("draining", extra={"in_flight": server.in_flight, "connections": server.connections})
        if not await drain(site, server, grpc, self._settings.drain_s):
            return Exit.CUT_SHORT
        _log.info("stopped")
        return Exit.DONE

    async def _load(self, worker: Worker) -> Loaded | BaseException | None:
        """The model, what it raised, or None when told to stop meanwhile."""
        settings, spec = self._settings, self._spec
        done: asyncio.Future[Loaded | BaseException] = asyncio.get_running_loop().create_future()

        def attempt() -> Loaded | BaseException:
            make_heap_room()
            try:
                return load(spec, settings.models_dir, settings.app_dir)
            except BaseException as error:
                return error

        worker.submit(attempt, done.set_result)
        stopped = asyncio.create_task(self._stop.wait())
        either: set[asyncio.Future[Any]] = {done, stopped}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        return done.result() if done.done() else None

    def _ready(self, site: Site, loaded: Loaded, worker: Worker) -> None:
        if has_little():
            # Whoever woke it waits for the first answer, which would be some milliseconds later.
            asyncio.get_running_loop().call_later(_SETTLE_S, settle)
        else:
            settle()
        site.install(loaded, worker)
        site.state = State.READY
        tell_loaded(self._settings)
        _log.info("ready", extra={"model": self._spec.name, "load_s": round(loaded.load_s, 3)})

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            _log.warning("told to stop again: leaving at once")
            leave(Exit.SECOND_SIGNAL)
        _log.info("told to stop", extra={"signal": number.name})
        self._stop.set()

    async def _expire(self, site: Site) -> None:
        while True:
            await asyncio.sleep(EXPIRE_EVERY_S)
            site.expire()
