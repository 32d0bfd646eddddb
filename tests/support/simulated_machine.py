"""Replicas and their engine on a fake clock: processes that load, compute, hang, freeze, drain and die."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from simulated_envoy import Answer, Asked, GoneError, ResetError

from corten.engine.base import Observed, ReplicaSpec

FIRST_PID = 10_000_000  # above any the kernel gives: what looks into /proc finds nothing there


@dataclass(frozen=True)
class Model:
    """How replicas of an image behave. `ready_s`: None when they never get ready. `failing`: the share of errors.

    `deadly_s`: how long a poisoned request is computed before it ends its replica.
    """

    ready_s: float | None = 0.5
    service_s: float = 0.03
    dies_after_s: float | None = None
    ends_after_term_s: float = 0.05
    failing: float = 0.0
    deadly_s: float = 0.0
    size: int = 100
    at_once: int = 8


class Process:
    """One replica. `ended` is called when it is gone."""

    def __init__(self, spec: ReplicaSpec, pid: int, model: Model, world, ended: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.spec, self.pid, self.model, self._world, self._ended = spec, pid, model, world, ended
        self.address = f"/run/{spec.id}/s"
        self.code: int | None = None
        self.frozen = self.stopped = self.leaving = False
        self._ready_s = None if model.ready_s is None else loop.time() + model.ready_s
        self._hands: dict[asyncio.Future, Asked] = {}
        self._queue: deque[tuple[asyncio.Future, Asked]] = deque()
        self._computing = 0
        self._owed: list[Callable[[], None]] = []  # what would have happened while it got no processor
        if model.dies_after_s is not None:
            loop.call_later(model.dies_after_s, self.die, 1)

    @property
    def awake(self) -> bool:
        return not self.frozen and not self.stopped

    @property
    def ready(self) -> bool:
        loaded = self._ready_s is not None and asyncio.get_running_loop().time() >= self._ready_s
        return self.code is None and loaded and not self.leaving

    async def probe(self, path: str) -> int:
        if self.code is not None:
            raise GoneError
        while not self.awake:  # it is answered when it gets the processor again  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        if self.code is not None:
            raise ResetError
        return 200 if self.ready or path == "/livez" else 503

    async def handle(self, asked: Asked) -> Answer:
        if self.code is not None:
            raise GoneError
        loop = asyncio.get_running_loop()
        done: asyncio.Future = loop.create_future()
        self._hands[done] = asked
        if self._ready_s is None or loop.time() < self._ready_s:
            self._when_awake(lambda: self._finish(done, Answer(503, code="loading")))
        else:
            self._queue.append((done, asked))
            self._go_on()
        try:
            return await done
        finally:
            self._hands.pop(done, None)

    def _go_on(self) -> None:
        if self.code is not None:
            return
        if not self.awake:
            self._owed.append(self._go_on)
            return
        while self._queue and self._computing < self.model.at_once:
            self._compute(*self._queue.popleft())

    def _compute(self, done: asyncio.Future, asked: Asked) -> None:
        if done.done():  # the gateway has given it up
            return
        self._computing += 1
        self._world.computed(asked, self)
        if asked.poison:
            asyncio.get_running_loop().call_later(self.model.deadly_s, self.die, 139)
            return
        chance = self._world.chance
        took_s = min(chance.expovariate(1 / self.model.service_s), 5 * self.model.service_s)
        answer = Answer(500, code="model") if chance.random() < self.model.failing else Answer(200)
        asyncio.get_running_loop().call_later(took_s, self._computed, done, asked, answer)

    def _computed(self, done: asyncio.Future, asked: Asked, answer: Answer) -> None:
        def finish() -> None:
            self._computing -= 1
            self._finish(done, answer)
            self._go_on()

        self._when_awake(finish)

    def _when_awake(self, then: Callable[[], None]) -> None:
        if self.code is None and self.awake:
            then()
        else:
            self._owed.append(then)

    def _finish(self, done: asyncio.Future, answer: Answer) -> None:
        self._hands.pop(done, None)
        if not done.done():
            done.set_result(answer)
        self._leave()

    def _leave(self) -> None:
        if self.leaving and not self._hands:
            asyncio.get_running_loop().call_later(self.model.ends_after_term_s, self.die, 0)

    def wake(self, *, frozen: bool | None = None, stopped: bool | None = None) -> None:
        self.frozen = self.frozen if frozen is None else frozen
        self.stopped = self.stopped if stopped is None else stopped
        while self.awake and self._owed and self.code is None:
            self._owed.pop(0)()

    def terminate(self) -> None:
        if not self.leaving and self.code is None:
            self.leaving = True
            self.wake(frozen=False)
            self._leave()

    def die(self, code: int) -> None:
        if self.code is not None:
            return
        self.code = code
        for done in list(self._hands):
            if not done.done():
                done.set_exception(ResetError())
                done.exception()  # nobody may be listening any more
        self._ended()


@dataclass
class Machine:
    """What outlives daemons: the processes, by id. `models` says how an image behaves, `memory` is all there is and
    `least` the least that ever was left of it.
    """

    world: object
    models: dict[str, Model] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    memory: int = 10_000
    serial: int = FIRST_PID
    least: int = 0

    def alive(self) -> list[Process]:
        return [each for each in self.processes.values() if each.code is None]

    def at(self, address: str) -> Process | None:
        return next((each for each in self.processes.values() if each.address == address), None)

    def held(self, pid: int) -> int:
        return next((each.model.size for each in self.alive() if each.pid == pid), 0)

    def stopped(self, pid: int) -> bool:
        return any(each.stopped for each in self.alive() if each.pid == pid)

    def gone(self, pid: int) -> bool:
        return all(each.pid != pid for each in self.alive())

    def available(self) -> int:
        return self.memory - sum(each.model.size for each in self.alive())


class SimulatedEngine:
    """`engine.base.Engine` over a machine; `step` is called before anything is done, and may be the daemon's death."""

    name = "simulated"

    def __init__(self, machine: Machine, step: Callable[[], None]) -> None:
        self._machine, self._step = machine, step

    def describe(self):
        return {"sandbox": "none (nothing runs)"}

    def prepare(self, image) -> None:
        self._step()

    def start(self, spec: ReplicaSpec) -> Observed:
        self._step()
        if spec.id not in self._machine.processes:
            self._machine.serial += 1
            model = self._machine.models[str(spec.image)]
            world = self._machine.world
            made = Process(spec, self._machine.serial, model, world, world.somebody_died)
            self._machine.processes[spec.id] = made
            self._machine.least = min(self._machine.least, self._machine.available())
        return _observed(self._machine.processes[spec.id])

    def list(self):
        self._step()
        return [_observed(each) for _, each in sorted(self._machine.processes.items())]

    def freeze(self, replica_id: str) -> None:
        self._with(replica_id, lambda each: each.wake(frozen=True))

    def thaw(self, replica_id: str) -> None:
        self._with(replica_id, lambda each: each.wake(frozen=False))

    def terminate(self, replica_id: str) -> None:
        self._with(replica_id, lambda each: each.terminate())

    def kill(self, replica_id: str) -> None:
        self._with(replica_id, lambda each: each.die(137))

    def remove(self, replica_id: str) -> None:
        self.kill(replica_id)
        self._machine.processes.pop(replica_id, None)

    def logs(self, replica_id: str, *, tail: int = 100):
        return [f"the last words of {replica_id}"][:tail]

    def _with(self, replica_id: str, do: Callable[[Process], None]) -> None:
        self._step()
        found = self._machine.processes.get(replica_id)
        if found is not None and found.code is None:
            do(found)


def _observed(each: Process) -> Observed:
    running = each.code is None
    spec = each.spec
    return Observed(
        spec.id, spec.deployment, spec.revision, running, each.address, each.pid if running else 0, each.code,
        frozen=running and each.frozen,
    )  # fmt: skip
