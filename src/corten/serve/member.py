"""One process of several: loads the model, or is forked from one that has; answers the connections it is handed.

The model is loaded in the main thread, and called in it: a fork goes on in the thread that forked, so a model that
belongs to one thread is in the right one in every worker. The event loop has a thread beside it.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING

from corten.core.model import ModelSpec
from corten.core.schema import Schema, Style
from corten.http import Server, UnixAddress, run
from corten.http.loop import fetch_loop
from corten.observe import logs
from corten.serve.board import Board
from corten.serve.handing import Line, Word
from corten.serve.loading import Loaded, load
from corten.serve.meters import WATCHING, Meters
from corten.serve.process import (
    EXPIRE_EVERY_S,
    Exit,
    drain,
    leave,
    log_failure,
    set_up,
    settle,
    start_grpc,
    tell_loaded,
)
from corten.serve.relay import own_address
from corten.serve.room import with_room
from corten.serve.seat import Seat
from corten.serve.settings import Settings
from corten.serve.sharing import Footprint
from corten.serve.site import Site
from corten.serve.state import State
from corten.serve.worker import Worker

if TYPE_CHECKING:
    from corten.serve.grpc_server import GrpcServer

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1


class Member:
    """A process with a seat."""

    def __init__(self, settings: Settings, spec: ModelSpec, seat: Seat) -> None:
        self._settings = settings
        self._spec = spec
        self._board = Board(seat.board, seat.workers)
        self._line = Line(socket.socket(fileno=seat.line))
        self._seat = seat

    def run(self) -> int:
        """Load, then be a worker, or what workers are forked from."""
        die_with(self._seat.master)
        # Ctrl-C reaches the whole group; what is to be done then the master says.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        before = Footprint.take()
        try:
            loaded = load(self._spec, self._settings.models_dir, self._settings.app_dir)
        except BaseException as error:
            log_failure(error)
            return Exit.MODEL_FAILED
        _preload(loaded.runner.schema)
        settle()
        obstacle = "" if loaded.runner.loop is None else "the model has an event loop of its own"
        obstacle = obstacle or Footprint.take().obstacle(before)
        if self._seat.alone or obstacle:
            self._line.say(Word.ALONE, obstacle)
            self._work(self._line, self._seat.slot, loaded)
        self._line.say(Word.LOADED)
        return self._fork(loaded)

    def _fork(self, loaded: Loaded) -> int:
        """Make workers when told to. Nothing else is done here: one thread, no loop, nothing to be forked halfway."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps them; the master hears their lines end
        parent = os.getpid()
        while (heard := self._line.wait()) is not None:
            word, text, descriptor = heard
            if word is Word.FORK and descriptor is not None:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    die_with(parent)
                    self._line.close()
                    _new_chance()
                    self._work(Line(socket.socket(fileno=descriptor)), int(text), loaded)
                os.close(descriptor)
        return Exit.DONE

    def _work(self, line: Line, slot: int, loaded: Loaded) -> None:
        """Be a worker to the end of the process."""
        logs.configure(level=self._settings.log_level, fields={**self._settings.identity, "worker": str(slot)})
        made: SimpleQueue[Worker] = SimpleQueue()
        threading.Thread(
            target=with_room, args=(self._loop, line, slot, loaded, made), name="corten-loop", daemon=True
        ).start()
        made.get().run()
        while True:
            time.sleep(3600)  # the loop's thread ends the process

    def _loop(self, line: Line, slot: int, loaded: Loaded, made: SimpleQueue[Worker]) -> None:
        code = int(Exit.MODEL_FAILED)
        try:
            code = run(_Work(self._settings, self._spec, self._board, slot, line).run(loaded, made))
        except BaseException:
            _log.critical("the worker's loop failed", exc_info=True)
        leave(code)


class _Work:
    """A worker's loop: connections in, answers out, and once in a while what it has counted on the board."""

    def __init__(self, settings: Settings, spec: ModelSpec, board: Board, slot: int, line: Line) -> None:
        self._settings = settings
        self._spec = spec
        self._board = board
        self._slot = slot
        self._line = line
        self._received = 0
        self._finish = asyncio.Event()
        self._adopting: set[asyncio.Task[None]] = set()

    async def run(self, loaded: Loaded, made: SimpleQueue[Worker]) -> Exit:
        loop = asyncio.get_running_loop()
        self._board.take(self._slot, os.getpid())
        meters = Meters(self._board, self._slot)
        site, server = set_up(self._spec, self._settings, meters)
        worker = Worker(loop)
        made.put(worker)
        site.install(loaded, worker)
        grpc = await self._start_grpc(site) if self._spec.grpc else None
        loop.add_reader(self._line.fileno(), self._hear, site, server)
        ticking = asyncio.create_task(self._tick(site, server, meters))
        self._line.say(Word.READY)
        await self._finish.wait()
        drained = await drain(site, server, grpc, self._settings.drain_s, linger_s=0.0)
        ticking.cancel()
        self._publish(server, meters)
        if not drained:
            self._line.say(Word.CUT_SHORT)
        site.close()
        await server.close()
        return Exit.DONE if drained else Exit.CUT_SHORT

    async def _start_grpc(self, site: Site) -> GrpcServer:
        """All workers listen on one port; of a unix socket each has one of its own, and the master relays."""
        address = self._settings.grpc_address
        if isinstance(address, UnixAddress):
            return await start_grpc(site, own_address(address, self._slot), shared=True)
        return await start_grpc(site, address, shared=True)

    def _hear(self, site: Site, server: Server) -> None:
        with suppress(BlockingIOError):
            while True:
                heard = self._line.hear()
                if heard is None:
                    _log.error("the master is gone")
                    leave(Exit.CUT_SHORT)
                    return
                word, _, descriptor = heard
                match word:
                    case Word.CONNECTION if descriptor is not None:
                        self._received += 1
                        task = asyncio.create_task(server.adopt(socket.socket(fileno=descriptor)))
                        self._adopting.add(task)
                        task.add_done_callback(self._adopting.discard)
                    case Word.ALL_READY:
                        site.state = State.READY
                        if self._slot == 0:
                            tell_loaded(self._settings)
                    case Word.DRAIN:
                        site.state = State.DRAINING
                        server.draining = True
                    case Word.FINISH:
                        self._finish.set()
                    case _:
                        _log.error("the master said what a worker does not understand", extra={"word": word.value})

    async def _tick(self, site: Site, server: Server, meters: Meters) -> None:
        while True:
            site.expire()
            if site.stuck_s():
                _log.critical("a call of the model does not return; the worker ends")
                leave(Exit.CUT_SHORT)
            self._publish(server, meters)
            await asyncio.sleep(EXPIRE_EVERY_S)

    def _publish(self, server: Server, meters: Meters) -> None:
        self._board.count(
            self._slot, connections=server.connections, received=self._received, beat_ns=time.monotonic_ns()
        )
        self._board.publish(self._slot, meters.dump())
        if self._slot == WATCHING:
            self._board.publish(self._board.drift, meters.drift_report())


def die_with(parent: int) -> None:
    """Be killed by the kernel when the parent ends, however it ends (PR_SET_PDEATHSIG of prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        leave(Exit.CUT_SHORT)  # it was faster


def _preload(schema: Schema) -> None:
    """Import what each worker would import for itself."""
    fetch_loop()
    if schema.style is Style.ROWS:
        importlib.import_module("corten.serve.drift")


def _new_chance() -> None:
    """Workers that are forked would all draw the same numbers."""
    random.seed()
    # Importing it here would be each worker's own.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
