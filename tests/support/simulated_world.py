"""One world on a fake clock: the daemon's real code and the gateway's real resources, simulated processes, faults.

What runs is `Controller` with its planner, scaler, judge, rests and holds, `Router`, `State` on SQLite and the
resources of `gateway.plan`; simulated are the machine's processes (`simulated_machine`), Envoy, which reads those
resources (`simulated_envoy`), and the clients. A daemon may die at any of its steps: at each write to the state and each
word to engine or gateway; then another starts from what is written.
"""

# ruff: noqa: ASYNC110 -- a fake clock's waits cost nothing
from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from simulated_daemon import DaemonKilledError, InlineTasks, Life, MortalState, SimulatedGateway
from simulated_envoy import HOLD_SOCKET, Answer, Asked, GoneError, ResetError, SimulatedEnvoy
from simulated_machine import Machine, Model, Process, SimulatedEngine

from corten.control import database
from corten.control.controller import Controller
from corten.control.memory import Memory
from corten.control.probe import Answer as Probed
from corten.control.router import Router
from corten.control.state import State
from corten.control.vault import Vault
from corten.core.deployment import ReplicaState, RolloutState, Settings
from corten.core.digest import Digest
from corten.core.front import Front
from corten.gateway import plan
from corten.testing.clock import run_at_once

# What a client is told to come back for, and for how long after the daemon is there again: Envoy takes nothing to one
# that refused it, the daemon included, for up to `max_ejection_time`.
AGAIN_S = {"gateway.no_controller": 2.0, "gateway.unavailable": 1.0}
STILL_AWAY_S = {"gateway.no_controller": 0.1, "gateway.unavailable": 30.5}
PATIENCE = 60  # how often a client comes back
DECIDED_S = 0.2  # from a decision until it is in force
UNSEEN_DEATH_S, UNSEEN_HANG_S = 1.0, 3.0  # after which the daemon knows


@dataclass
class Outcome:
    """What a client was told in the end, and how often it was asked to come back or lost its connection meanwhile."""

    id: int
    name: str
    began_s: float
    ended_s: float = 0.0
    status: int = 0
    code: str = ""
    again: int = 0
    poison: bool = False


class CheckRequest:
    """What `Holding.answer` needs of a request."""

    def __init__(self, path: str, headers) -> None:
        self.path, self.headers = path, headers
        self.answer = Answer(0)

    def respond(self, status: int, body: bytes = b"", *, headers=()) -> None:
        del body
        self.answer = Answer(status, dict(headers))

    def fail(self, status: int, code: str, message: str, *, headers=()) -> None:
        self.answer = Answer(status, dict(headers), f"{code}: {message}")


class World:
    """Everything. `mortality` is the chance of a daemon to die at a step."""

    def __init__(self, seed: int, *, mortality: float = 0.0, memory: int = 10_000, dies_at: int | None = None) -> None:
        self.seed, self.chance, self.mortality = seed, random.Random(seed), mortality
        self.machine = Machine(self, memory=memory)
        connection = sqlite3.connect(":memory:", isolation_level=None)
        database._configure(connection)
        database._migrate(connection, Path("memory"))
        self.connection = connection
        self.state = State(connection, Path("memory"))
        self.envoy = SimulatedEnvoy(self, self.chance)
        self.life: Life | None = None
        self.controller: Controller | None = None
        self.outcomes: list[Outcome] = []
        self.clients: set[asyncio.Task] = set()
        self.executions: Counter[int] = Counter()
        self.bugs: list[str] = []
        self.log: list[str] = []
        self.deaths = 0  # of daemons
        self.dies_at = dies_at  # the next daemon's death
        self.steps = 0  # of all daemons
        self.jump_s = 0.0  # of the wall's clock, as the next daemon finds it
        self.blind_until_s = 0.0  # what befell a replica just now the daemon cannot know yet
        self.serial = itertools.count(1)
        self._images = itertools.count()
        self._awaited_daemon = asyncio.Event()
        self._wanted: dict[str, list[tuple[float, int]]] = {}
        self._back_s = 0.0  # since when there is a daemon
        self._down_s: float | None = None  # how long the next daemon takes to come

    # Time

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    def note(self, text: str) -> None:
        self.log.append(f"{self.now_s:9.3f} {text}")

    def story(self) -> str:
        told = self.connection.execute("SELECT at_s, deployment, step, phase, message FROM events ORDER BY seq")
        lines = [f"{at_s % 100_000:9.3f} {' '.join(map(str, words))}" for at_s, *words in told]
        return "\n".join(["", f"seed {self.seed}", *self.log[-60:], *lines[-80:]])

    # The network

    async def send(self, address: str, asked: Asked, headers) -> Answer:
        if address == HOLD_SOCKET:
            return await self.ask_daemon(asked.path, headers)
        found = self.machine.at(address)
        if found is None:
            raise GoneError
        return await found.handle(asked)

    async def probe(self, address: str, path: str) -> int:
        found = self.machine.at(address)
        if found is None:
            raise GoneError
        return await found.probe(path)

    async def ask_daemon(self, path: str, headers) -> Answer:
        life, controller = self.life, self.controller
        if life is None or controller is None or life.dead:
            raise GoneError
        request = CheckRequest(path, headers)
        task = life.spawn(controller.holding.answer(request))
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()  # whoever asked may have gone
        if life.dead or task.cancelled():
            raise ResetError
        return request.answer

    def computed(self, asked: Asked, process) -> None:
        del process
        self.executions[asked.id] += 1

    # The gateway

    async def start_envoy(self) -> None:
        resources = self.envoy.resources
        await asyncio.sleep(0.2)
        if not self.envoy.alive:
            self.envoy = SimulatedEnvoy(self, self.chance)
            self.envoy.publish(resources)

    def publish(self, step: plan.Step) -> None:
        """A step is in force now: what the daemon does must not leave fewer replicas than are wanted."""
        before = self._taking()
        self.envoy.publish(step.publish, step.drop)
        after = self._taking()
        for one in self.state.deployments():
            wanted = min(one.replicas, self._wanted_lately(one.name))
            swap = one.rollout is not None and one.rollout.swap
            had, has = before[one.name], after[one.name]
            if has < min(had, wanted) and not (one.deleting or swap or self._is_blind(one.name)):
                self.note("too few")
                self.bugs.append(f"{one.name}: {had} took requests, then {has}, of {wanted} wanted")

    def _wanted_lately(self, name: str) -> int:
        """The least that was wanted since what is being done now was decided."""
        wanted = self._wanted.setdefault(name, [])
        wanted.append((self.now_s, self.state.deployment(name).replicas))
        wanted[:] = [each for each in wanted if self.now_s - each[0] <= DECIDED_S]
        return min(number for _, number in wanted)

    def _is_blind(self, name: str) -> bool:
        """Whether something befell a replica that the daemon cannot have seen yet."""
        hangs = any(each.stopped for each in self.machine.alive() if each.spec.deployment == name)
        return self.now_s <= self.blind_until_s or (hangs and self.now_s - self._back_s <= UNSEEN_HANG_S)

    def _taking(self) -> Counter[str]:
        """Replicas that get requests by weight and would answer them."""
        weighty = set(self.envoy.weights())
        found: Counter[str] = Counter()
        for host in self.envoy.hosts.values():
            process = self.machine.at(host.address)
            if host.cluster in weighty and host.priority == 0 and not host.draining and process and process.ready:
                found[host.cluster.partition("/")[0]] += process.awake
        return found

    def kill_envoy(self) -> None:
        self.note("gateway killed")
        self.envoy.end()
        for task in list(self.clients):
            if not task.done():
                task.cancel("gateway")

    # The daemon

    def _new_life(self) -> Life:
        dies_at = self.dies_at
        if dies_at is None and self.mortality:
            dies_at = 1 + int(self.chance.expovariate(self.mortality))
        return Life(self, dies_at)

    async def daemons(self) -> None:
        """One daemon after the other, until cancelled."""
        while True:
            life = self.life = self._new_life()
            begun_s = self.now_s
            wall_s = 1_000_000.0 + self.jump_s
            wake = asyncio.Event()
            router = Router(lambda _front, life=life: SimulatedGateway(self, life), Front(), wake.set)
            controller = Controller(
                state=MortalState(self.connection, life),
                engine=SimulatedEngine(self.machine, life.step),
                router=router,
                tasks=InlineTasks(wake.set, life),
                clock=lambda wall_s=wall_s: wall_s + asyncio.get_running_loop().time(),
                new_suffix=lambda: f"{next(self.serial):06d}",
                wake=wake,
                tell=lambda: None,
                vault=Vault(Path("memory")),
                ask=self._ask,
                jobs=self._jobs,
                stopped=self.machine.stopped,
                gone=self.machine.gone,
                memory=Memory(held=self.machine.held, available=self.machine.available, total=lambda: 0),
            )
            self.controller = controller
            try:
                await controller.adopt()
                works = [controller.run(), controller.router.run(), controller.scaler.run()]
                jobs = [life.spawn(work) for work in works]
                wake.set()
                self._awaited_daemon.set()
                self._back_s = self.now_s
                await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
                if not life.dead:
                    self.bugs.append("a loop of the daemon ended")
                    return
            except DaemonKilledError:
                pass
            finally:
                self._awaited_daemon.clear()
                life.dead = True
                self.steps += life.steps
                for task in list(life.tasks):
                    task.cancel()
                controller.tasks.abandon()
                self.note(f"daemon gone after {self.now_s - begun_s:.2f} s and {life.steps} steps")
            await asyncio.sleep(0.0 if self._down_s is None else self._down_s)

    def daemon_died(self, life: Life) -> None:
        self.deaths += 1
        self.dies_at = None
        self._down_s = self.chance.choice((0.05, 0.3, 1.5))
        for task in list(life.tasks):
            task.cancel()

    def kill_daemon(self) -> None:
        if self.life is not None and not self.life.dead:
            self.life.kill()

    def strike(self, process: Process, *, hang: bool = False) -> None:
        """A replica is killed by somebody, or stopped."""
        self.note(f"{'hangs' if hang else 'killed'}: {process.spec.id}")
        self.blind_until_s = max(self.blind_until_s, self.now_s + (UNSEEN_HANG_S if hang else UNSEEN_DEATH_S))
        if hang:
            process.wake(stopped=True)
        else:
            process.die(137)

    def somebody_died(self) -> None:
        """The kernel tells the daemon at once."""
        if self.controller is not None and self.life is not None and not self.life.dead:
            self.controller.wake.set()

    async def _ask(self, address: str, path: str, *, timeout_s: float) -> Probed:
        try:
            async with asyncio.timeout(timeout_s):
                return Probed(await self.probe(address, path), "")
        except (ConnectionError, TimeoutError) as error:
            return Probed(0, type(error).__name__)

    async def _jobs(self, address: str, *, timeout_s: float) -> int:
        del address, timeout_s
        return 0

    # The user

    async def told(self, change: Callable[[Controller], object]) -> None:
        """Tell the daemon something, again if it dies over it, as the command line does."""
        while True:
            await self._awaited_daemon.wait()
            assert self.controller is not None
            try:
                change(self.controller)
            except DaemonKilledError:
                await asyncio.sleep(0.02)
                continue
            self.controller.wake.set()
            return

    async def deploy(self, name: str, model: Model, **settings) -> None:
        image = Digest.of(f"image {next(self._images)}".encode())
        self.machine.models[str(image)] = model
        swap = settings.pop("swap", False)
        wanted = Settings(**settings)
        self.note(f"deploy {name}: {model}")

        def change(controller: Controller) -> None:
            controller.state.deploy(name, image, wanted, generation=None, now_s=controller.clock(), swap=swap)

        await self.told(change)

    async def roll_back(self, name: str, to: int) -> None:
        def change(controller: Controller) -> None:
            controller.state.roll_back(name, to, generation=None, now_s=controller.clock())

        self.note(f"roll back {name} to r{to}")
        await self.told(change)

    async def delete(self, name: str) -> None:
        def change(controller: Controller) -> None:
            if controller.state.find(name) is not None:
                controller.state.delete(name, now_s=controller.clock())

        self.note(f"delete {name}")
        await self.told(change)

    async def until(self, holds: Callable[[], bool], timeout_s: float = 120.0) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not holds():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"not within {timeout_s:g} s" + self.story()) from None

    def settled(self, name: str) -> bool:
        """Whether what is wanted of a deployment is there, and nothing else."""
        one = self.state.find(name)
        own = [each for each in self.machine.alive() if each.spec.deployment == name]
        if one is None:
            return not own
        if one.deleting or one.wanted is None or (one.rollout and one.rollout.state is RolloutState.PROGRESSING):
            return False
        records = self.state.replicas(name)
        routed = [each for each in records if each.replica.state is ReplicaState.READY and each.routed]
        frozen = [each for each in records if each.replica.state is ReplicaState.FROZEN]
        if any(each.replica.state in (ReplicaState.DRAINING, ReplicaState.STOPPING) for each in records):
            return False
        running = [each for each in own if not each.frozen]
        return len(routed) == len(running) == one.replicas and len(own) == len(running) + len(frozen)

    def in_force(self) -> bool:
        """Whether the gateway has been told how things stand."""
        controller = self.controller
        return self._awaited_daemon.is_set() and controller.router.in_force == controller.table()

    def summary(self, name: str) -> tuple:
        """What a deployment has come to, for comparing two worlds."""
        one = self.state.deployment(name)
        frozen = sorted(each.spec.revision for each in self.machine.alive() if each.frozen)
        running = sorted(each.spec.revision for each in self.machine.alive() if not each.frozen)
        wanted, serving = (each.number if each else None for each in (one.wanted, one.serving))
        rollout = one.rollout.state if one.rollout else None
        return (wanted, serving, rollout, one.replicas, one.resting, running, frozen, sorted(self.envoy.weights()))

    # Clients

    def ask(self, name: str, *, poison: bool = False, headers=None) -> asyncio.Task:
        outcome = Outcome(next(self.serial), name, self.now_s, poison=poison)
        self.outcomes.append(outcome)
        return asyncio.get_running_loop().create_task(self._client(outcome, headers or {}))

    async def _client(self, outcome: Outcome, headers) -> None:
        asked = Asked(outcome.id, f"/{outcome.name}/predict", headers, outcome.poison)
        for again in range(PATIENCE):
            outcome.again = again
            answer = await self._once(asked)
            if answer is None:
                await asyncio.sleep(0.3)  # no connection, or it broke with the gateway
            elif answer.code in AGAIN_S and self._was_away(STILL_AWAY_S[answer.code]):
                await asyncio.sleep(AGAIN_S[answer.code])
            else:
                break
        outcome.ended_s = self.now_s
        outcome.status, outcome.code = (answer.status, answer.code) if answer else (0, "no gateway")

    async def _once(self, asked: Asked) -> Answer | None:
        envoy = self.envoy
        if not envoy.alive:
            return None
        task = asyncio.get_running_loop().create_task(envoy.answer(asked))
        self.clients.add(task)
        task.add_done_callback(self.clients.discard)
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            self.bugs.append(repr(error))
            return Answer(0, code="the simulated gateway failed")
        return None if task.cancelled() else task.result()

    def _was_away(self, still_s: float) -> bool:
        """Whether there is no daemon, or was none until lately."""
        return not self._awaited_daemon.is_set() or self.now_s - self._back_s <= still_s

    async def load(self, name: str, per_s: float, seconds: float) -> None:
        """Requests as they come, whether those before were answered or not."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            await asyncio.sleep(self.chance.expovariate(per_s))
            self.ask(name)

    # Judging

    async def all_answered(self, timeout_s: float = 180.0) -> None:
        await self.until(lambda: all(each.ended_s for each in self.outcomes), timeout_s)

    def failed(self) -> list[Outcome]:
        return [each for each in self.outcomes if each.status != 200 and not each.poison]

    def check(self) -> None:
        assert not self.bugs, "\n".join(self.bugs[:5]) + self.story()
        assert not self.failed(), "\n".join(map(str, self.failed()[:5])) + self.story()


def live(seed: int, story, **options):
    """Tell a story of a world to its end; the world, and what the story gives.

    What the daemon logs as an error that is nobody's fault is a bug.
    """

    async def main():
        world = World(seed, **options)
        handler = _Complaints(world)
        logging.getLogger("corten.control").addHandler(handler)
        daemons = asyncio.get_running_loop().create_task(world.daemons())
        try:
            async with asyncio.timeout(3600):
                told = await story(world)
            world.check()
        finally:
            logging.getLogger("corten.control").removeHandler(handler)
            world.mortality = 0.0
            daemons.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await daemons
            world.envoy.end()
        return world, told

    return run_at_once(main)


class _Complaints(logging.Handler):
    """A plan that does not end is a bug, whatever else comes of it."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        dead = record.exc_info and isinstance(record.exc_info[1], DaemonKilledError)
        if "does not end" in text or (text.startswith("task ") and not dead):
            self._world.bugs.append(text)
