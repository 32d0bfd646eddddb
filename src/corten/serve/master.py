"""Several processes that answer as one replica: this one listens, hands connections out, and looks after the others.

It never loads the model. Another process does, forked from this one before it has a loop, and workers are forked from
that one, so that all share its memory; a model that does not survive a fork (see `sharing`) is loaded by each worker. A
connection goes to the worker that has the fewest: with a listening socket of their own, those who wake first take all
there are, and kept-alive connections stay where they are.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import msgspec

from corten.core.model import ModelSpec
from corten.errors import CortenError
from corten.http import UnixAddress, run
from corten.http.listener import Bound, Listener, bind, open_listener
from corten.http.loop import fetch_loop
from corten.serve.board import ENDED, Board
from corten.serve.handing import Line, Word
from corten.serve.member import Member
from corten.serve.meters import Meters
from corten.serve.own_folder import OwnFolder
from corten.serve.process import Exit, begin, leave, set_up
from corten.serve.relay import Relays
from corten.serve.restarts import Restarts
from corten.serve.seat import Seat
from corten.serve.settings import Settings
from corten.serve.state import State

_log = logging.getLogger(__name__)
_BACKLOG = 1024
_AT_ONCE = 64  # connections accepted in one turn of the loop
_LINGER_S = 0.5  # in which connections are still taken when told to stop
_LOOK_EVERY_S = 0.5
_POLL_S = 0.02
_END_S = 1.0  # between the end of a line and that of its process
_GRACE_S = 2.0  # for processes to end by themselves beyond the drain time
_STUCK_TIMES = 3.0  # of the predict timeout without a beat: the worker's loop hangs
_LEAST_STUCK_S = 10.0
_OVERSLEPT = 3.0  # times as long as it meant to: somebody stopped it


class _Role(Enum):
    """What a process is to the master."""

    LOADER = "loader"  # loads the model
    TEMPLATE = "template"  # has loaded it, and is forked from
    WORKER = "worker"  # forked, or a loader that cannot be
    READY = "ready"  # a worker that takes connections


class _Forked:
    """A process forked from this one, with what is used here of subprocess.Popen."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._code: int | None = None

    def kill(self) -> None:
        """See Popen."""
        if self._ended() is None:
            os.kill(self._pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """See Popen."""
        end_s = time.monotonic() + (math.inf if timeout is None else timeout)
        while (code := self._ended()) is None:
            if time.monotonic() > end_s:
                raise subprocess.TimeoutExpired("corten.serve", timeout or 0.0)
            time.sleep(_POLL_S)
        return code

    def _ended(self) -> int | None:
        if self._code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code


@dataclass(slots=True)
class _Process:
    """One of them; `own` is None for one that was forked from the template."""

    slot: int
    line: Line
    role: _Role
    started_s: float
    own: subprocess.Popen[bytes] | _Forked | None = None
    handed: int = 0


def serve_together(settings: Settings, spec: ModelSpec) -> int:
    """Serve by several processes until told to stop; gives the exit code. Call it before anything is started."""
    # Whoever is asked must find what became of a job, whoever took it.
    folder = _own_folder() if settings.jobs_dir is None else None
    if folder is not None:
        settings = msgspec.structs.replace(settings, jobs_dir=folder.path)
    workers = settings.workers_of(spec)
    board = Board.new(workers)
    fetch_loop()
    begin()  # what is imported by now is shared: the collector would write to all of it, in each process
    first = _forked(settings, spec, board, workers)

    async def together() -> int:
        return await _Master(settings, spec, board, first).run()

    try:
        return run(together())
    finally:
        if folder is not None:
            folder.remove()


def _forked(settings: Settings, spec: ModelSpec, board: Board, workers: int) -> _Process:
    """The process that loads the model. What was imported so far it shares with this one."""
    line, theirs = Line.pair()
    master = os.getpid()
    pid = os.fork()
    if pid == 0:
        line.close()
        seat = Seat(theirs.detach(), board.descriptor, 1, workers, False, master)
        leave(Member(settings, spec, seat).run())
    theirs.close()
    return _Process(1, line, _Role.LOADER, time.monotonic(), _Forked(pid))


class _Master:
    """The first process of a replica of several. Made inside a running loop."""

    def __init__(self, settings: Settings, spec: ModelSpec, board: Board, first: _Process) -> None:
        self._settings = settings
        self._spec = spec
        self._slots = range(1, settings.workers_of(spec) + 1)
        self._board = board
        self._processes: list[_Process] = []
        self._add(first)
        self._restarts = {slot: Restarts() for slot in (ENDED, *self._slots)}  # ENDED's are the template's
        self._alone = False  # each worker loads the model itself
        self._complete = False  # all workers were ready once
        self._stop = asyncio.Event()
        self._result = Exit.DONE
        self._board.take(ENDED, os.getpid())
        self._meters = Meters(self._board, ENDED)
        # Answers while there is no worker: alive, loading.
        self._site, self._lobby = set_up(spec, settings, self._meters)
        self._adopting: set[asyncio.Task[None]] = set()

    async def run(self) -> Exit:
        """Serve until told to stop; gives the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        relayed = None
        try:
            bound = await bind(self._settings.listen, mode=0o666, backlog=_BACKLOG)
            relayed = await self._relay()
        except CortenError as error:
            _log.critical(error.what, extra=error.as_dict())
            await self._lobby.close()
            await self._end_all()
            return Exit.WRONG_CONFIG
        for sock in bound.sockets:
            loop.add_reader(sock.fileno(), self._accept, sock)
        about = {"address": str(bound.address), "pid": os.getpid(), "workers": len(self._slots)}
        _log.info("listening", extra=about)
        looking = asyncio.create_task(self._look())
        try:
            await self._stop.wait()
            if self._result is Exit.DONE:
                await self._drain(bound)
        finally:
            looking.cancel()
            self._close(bound)
            if relayed is not None:
                relayed.close()
            await self._lobby.close()
            await self._end_all()
        if self._result is Exit.DONE:
            _log.info("stopped")
        return self._result

    # Connections

    async def _relay(self) -> Listener | None:
        """Take the connections of gRPC where the workers cannot: on a unix socket. Raises UsageError."""
        if not self._spec.grpc or not isinstance(address := self._settings.grpc_address, UnixAddress):
            return None
        relays = Relays(address, lambda: [one.slot for one in self._of(_Role.READY)] if self._complete else [])
        return await open_listener(address, relays.accepted, mode=0o666, backlog=_BACKLOG)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                connected = sock.accept()[0]
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:  # no descriptor left, say
                _log.warning("cannot accept a connection", extra={"reason": str(error)})
                return
            self._hand_out(connected)

    def _hand_out(self, connected: socket.socket) -> None:
        ready = self._of(_Role.READY) if self._complete else []
        for worker in sorted(ready, key=lambda one: self._board.load(one.slot, one.handed)):
            if worker.line.say(Word.CONNECTION, descriptor=connected.fileno()):
                worker.handed += 1
                connected.close()
                return
        connected.setblocking(False)
        task = asyncio.create_task(self._lobby.adopt(connected))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    # Processes

    def _of(self, *roles: _Role) -> list[_Process]:
        return [one for one in self._processes if one.role in roles]

    def _start(self, slot: int) -> None:
        """Start a process that loads the model."""
        line, theirs = Line.pair()
        jobs = {"CORTEN_JOBS_DIR": str(self._settings.jobs_dir)} if self._settings.jobs_dir else {}
        seat = Seat(theirs.fileno(), self._board.descriptor, slot, len(self._slots), self._alone, os.getpid())
        own = subprocess.Popen(
            [sys.executable, "-m", "corten.serve"],
            env={**os.environ, **jobs, "CORTEN_SEAT": seat.text},
            pass_fds=(theirs.fileno(), self._board.descriptor),
        )
        theirs.close()
        self._add(_Process(slot, line, _Role.LOADER, time.monotonic(), own))

    def _fork(self, slot: int) -> None:
        """Make the worker that is missing; where there is no template, the next one will make it."""
        if any(worker.slot == slot for worker in self._of(_Role.WORKER, _Role.READY)):
            return
        for template in self._of(_Role.TEMPLATE):
            line, theirs = Line.pair()
            if template.line.say(Word.FORK, str(slot), theirs.fileno()):
                self._add(_Process(slot, line, _Role.WORKER, time.monotonic()))
            theirs.close()

    def _add(self, process: _Process) -> None:
        self._processes.append(process)
        asyncio.get_running_loop().add_reader(process.line.fileno(), self._hear, process)

    def _hear(self, process: _Process) -> None:
        try:
            heard = process.line.hear()
        except BlockingIOError:
            return
        if heard is None:
            self._lost(process)
            return
        word, text, _ = heard
        match word:
            case Word.LOADED:
                process.role = _Role.TEMPLATE
                for slot in self._slots:
                    self._fork(slot)
            case Word.ALONE:
                process.role = _Role.WORKER
                if not self._alone:
                    self._alone = True
                    _log.info("each worker loads the model itself", extra={"reason": text})
                    for slot in self._slots[1:]:
                        self._start(slot)
            case Word.READY:
                process.role = _Role.READY
                self._one_more(process)
            case Word.CUT_SHORT:
                self._result = Exit.CUT_SHORT
            case _:
                _log.error("a worker said what the master does not understand", extra={"word": word.value})

    def _one_more(self, process: _Process) -> None:
        """A worker is ready: with all of them, the replica is."""
        if self._complete:
            process.line.say(Word.ALL_READY)
        elif len(self._of(_Role.READY)) == len(self._slots):
            self._complete = True
            for worker in self._of(_Role.READY):
                worker.line.say(Word.ALL_READY)
            _log.info("ready", extra={"model": self._spec.name, "workers": len(self._slots), "shared": not self._alone})
            # Who came while it was loading is to come again, to a worker.
            self._lobby.draining = True

    def _lost(self, process: _Process) -> None:
        """A line ended, so its process has, or is about to."""
        asyncio.get_running_loop().remove_reader(process.line.fileno())
        process.line.close()
        self._processes.remove(process)
        code = _ended(process.own) if process.own else None
        if self._stop.is_set():
            return
        if process.role in {_Role.WORKER, _Role.READY}:
            lasting = self._meters.registry.fold(map(self._board.published, (ENDED, process.slot)))
            self._board.publish(process.slot, b"")
            self._board.publish(ENDED, lasting)
        if not self._complete:
            # What fails at the start fails again: the platform is to know.
            _log.critical("a worker ended before all were ready", extra={"exit_code": code})
            self._give_up(Exit.MODEL_FAILED)
            return
        slot = ENDED if process.role is _Role.TEMPLATE else process.slot
        delay_s = self._restarts[slot].delay_s(time.monotonic() - process.started_s)
        _log.error("a process ended", extra={"role": process.role.value, "worker": slot, "again_in_s": delay_s})
        asyncio.get_running_loop().call_later(delay_s, self._again, process)

    def _again(self, ended: _Process) -> None:
        if self._stop.is_set():
            return
        forked = ended.own is None
        if forked:
            self._fork(ended.slot)
        else:
            self._start(ended.slot)

    async def _look(self) -> None:
        """End workers whose loop hangs: they cannot even say that they are stuck."""
        stuck_s = max(_LEAST_STUCK_S, _STUCK_TIMES * self._spec.limits.predict_timeout_s)
        while True:
            fell_asleep_s = time.monotonic()
            await asyncio.sleep(_LOOK_EVERY_S)
            if time.monotonic() - fell_asleep_s > _OVERSLEPT * _LOOK_EVERY_S:
                continue  # frozen, as they were: they shall have their turn first
            for worker in self._of(_Role.READY):
                silent_s = (time.monotonic_ns() - self._board.beat_ns(worker.slot)) / 1e9
                if self._board.beat_ns(worker.slot) and silent_s > stuck_s:
                    _log.critical("a worker hangs", extra={"worker": worker.slot, "silent_s": round(silent_s, 1)})
                    self._kill(worker)

    # The end

    def _signalled(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            _log.warning("told to stop again: leaving at once")
            leave(Exit.SECOND_SIGNAL)
        _log.info("told to stop", extra={"signal": number.name})
        self._stop.set()

    def _give_up(self, code: Exit) -> None:
        self._result = code
        self._stop.set()

    async def _drain(self, bound: Bound) -> None:
        """Connections are still handed out for a moment, with `Connection: close` in their answers, then no more."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._settings.drain_s + _GRACE_S
        _log.info("draining", extra={"workers": len(self._of(_Role.READY))})
        self._site.state = State.DRAINING
        self._lobby.draining = True
        workers = self._of(_Role.READY, _Role.WORKER)
        for worker in workers:
            worker.line.say(Word.DRAIN)
        linger_end_s = loop.time() + min(_LINGER_S, self._settings.drain_s)
        await _until(lambda: not self._connected(workers), linger_end_s)
        self._close(bound)
        for worker in workers:
            worker.line.say(Word.FINISH)
        await _until(lambda: not any(worker in self._processes for worker in workers), end_s)
        if any(worker in self._processes for worker in workers):
            _log.error("workers did not end in time")
            self._result = Exit.CUT_SHORT

    def _connected(self, workers: list[_Process]) -> bool:
        return self._lobby.connections > 0 or any(self._board.load(one.slot, one.handed) for one in workers)

    def _close(self, bound: Bound) -> None:
        for sock in bound.sockets:
            if sock.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(sock.fileno())
        for connected in bound.waiting():
            self._hand_out(connected)
        bound.close()

    def _kill(self, process: _Process) -> None:
        if process.own is not None:
            process.own.kill()
        elif pid := self._board.pid(process.slot):
            os.kill(pid, signal.SIGKILL)

    async def _end_all(self) -> None:
        """Whoever is still there: the template ends with its line, its forks with it."""
        for process in [*self._processes]:
            asyncio.get_running_loop().remove_reader(process.line.fileno())
            process.line.close()
            if process.own is not None:
                process.own.kill()
                process.own.wait()


def _own_folder() -> OwnFolder | None:
    """None where nothing can be written, so that jobs can be kept nowhere."""
    try:
        return OwnFolder()
    except OSError:
        return None


async def _until(true: Callable[[], bool], end_s: float) -> None:
    """Wait for something the memory of others says, so nobody tells when it does."""
    loop = asyncio.get_running_loop()
    while not true() and loop.time() < end_s:  # noqa: ASYNC110
        await asyncio.sleep(_POLL_S)


def _ended(process: subprocess.Popen[bytes] | _Forked) -> int:
    """The exit code of a process that has closed its line, so it is ending; if not, it is made to."""
    try:
        return process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
