"""One life of the simulated daemon: it may end at any of its steps, and then neither writes nor says anything more.

A step is whatever others can see: a write to the state, a word to engine or gateway.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from simulated_envoy import HOLD_SOCKET, SimulatedEnvoy

from corten.control.state import State
from corten.control.tasks import Tasks
from corten.core.front import Front
from corten.core.route import RouteTable
from corten.errors import EngineError
from corten.gateway import plan

if TYPE_CHECKING:
    from simulated_world import World


class DaemonKilledError(BaseException):
    """Not an Exception: nothing in the daemon outlives it."""


class Life:
    """One daemon process. It ends at step `dies_at` (None: not by itself)."""

    def __init__(self, world: World, dies_at: int | None) -> None:
        self.world, self.dies_at, self.steps, self.dead = world, dies_at, 0, False
        self.tasks: set[asyncio.Task] = set()

    def step(self) -> None:
        """It is about to do something that others can see."""
        if not self.dead:
            self.steps += 1
            if self.steps == self.dies_at:
                self.kill()
        if self.dead:
            raise DaemonKilledError

    def kill(self) -> None:
        self.dead = True
        self.world.daemon_died(self)

    def spawn(self, work) -> asyncio.Task:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, DaemonKilledError):
                self.world.bugs.append(repr(error))


class MortalState(State):
    """A state whose every write is a step of a life."""

    def __init__(self, connection: sqlite3.Connection, life: Life) -> None:
        super().__init__(connection, Path("memory"))
        self._life = life

    def _run(self, sql: str, *values):
        if not sql.startswith("SELECT"):
            self._life.step()
        return super()._run(sql, *values)


class InlineTasks(Tasks):
    """Without threads, which a fake clock would overtake: what blocks takes its time and is then done at once."""

    def __init__(self, on_end: Callable[[], None], life: Life) -> None:
        super().__init__(on_end)
        self._life = life

    async def off_loop(self, call, *arguments):
        await asyncio.sleep(self._life.world.chance.uniform(0.0005, 0.02))
        return call(*arguments)

    def abandon(self) -> None:
        """What a killed process does with its tasks."""
        for task in list(self._running.values()):
            task.remove_done_callback(self._ended)
            task.add_done_callback(self._life._done)
            task.cancel()


class SimulatedGateway:
    """`gateway.base.Gateway`: drives the world's Envoy as `gateway.envoy` does the real one."""

    def __init__(self, world: World, life: Life) -> None:
        self._world, self._life = world, life
        self._upstreams: plan.Upstreams = {}
        self._watcher: asyncio.Task | None = None

    async def start(self, table: RouteTable) -> None:
        self._life.step()
        envoy = self._world.envoy
        if envoy.alive:
            self._upstreams = envoy.endpoints()
        else:
            await self._world.start_envoy()
        await self.apply(table)
        self._watcher = self._life.spawn(self._watch())

    async def apply(self, table: RouteTable) -> None:
        for step in plan.steps(self._upstreams, table, Path(HOLD_SOCKET)):
            self._life.step()
            await asyncio.sleep(self._world.chance.uniform(0.001, 0.01))
            if self._world.envoy.alive:
                self._world.publish(step)
            await asyncio.sleep(0.005)
            self._upstreams = step.upstreams

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            if not self._world.envoy.alive:
                self._life.step()
                await self._world.start_envoy()

    async def routable(self, address: str) -> bool:
        own = [host for host in self._envoy.hosts.values() if host.address == address and not host.priority]
        return any(map(self._envoy.routable, own))

    async def in_flight(self, address: str) -> int:
        return sum(host.active for host in self._envoy.hosts.values() if host.address == address)

    async def traffic(self):
        return self._envoy.traffic()

    @property
    def _envoy(self) -> SimulatedEnvoy:
        self._life.step()
        if not self._world.envoy.alive:
            raise EngineError("gateway.silent", "the gateway does not answer")
        return self._world.envoy

    async def listen(self, front: Front) -> None:
        del front

    async def restart(self) -> None:
        self._life.step()

    async def stop(self) -> None:
        self._life.step()
        if self._watcher:
            self._watcher.cancel()
        self._world.envoy.end()

    async def detach(self) -> None:
        if self._watcher:
            self._watcher.cancel()
