"""The loop: look, plan, write down, do. All of its knowledge is in the state, the engine and the gateway."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from corten.control.actions import (
    Action,
    FailRollout,
    Forget,
    Freeze,
    Kill,
    RecordExit,
    Remove,
    Resume,
    Seen,
    StartReplica,
    Terminate,
    Thaw,
)
from corten.control.answers import Answers
from corten.control.canaries import Canaries
from corten.control.care import DRAIN_POLL_S, Care
from corten.control.exits import ExitWatch
from corten.control.holding import Holding
from corten.control.lines import line
from corten.control.memory import Memory
from corten.control.mirror import Mirror
from corten.control.probation import Probation
from corten.control.probe import Answer, ask, jobs
from corten.control.ready import Ready
from corten.control.reconcile import plan
from corten.control.record import record
from corten.control.records import Deployment, ReplicaRecord
from corten.control.resting import Resting, start_s
from corten.control.router import Router
from corten.control.routes import route_table
from corten.control.scaler import Scaler
from corten.control.state import State
from corten.control.tasks import Tasks
from corten.control.vault import Vault
from corten.core.deployment import Replica, ReplicaState, Revision
from corten.core.events import Event, Phase
from corten.core.process import is_gone, is_stopped
from corten.core.rest import Strategy
from corten.core.route import RouteTable
from corten.engine.base import Engine, Observed, ReplicaSpec
from corten.errors import CortenError, EngineError

_log = logging.getLogger(__name__)

BUSY_TICK_S = 0.25  # while anything is on its way
IDLE_TICK_S = 5.0  # deaths are told by pidfd; this is for what nobody told
BLIND_TICK_S = 1.0  # while something is in the way, or some replica's process cannot be watched
MOMENT_S = 3.0  # for somebody to have nothing to do
ROOM_S = 20.0  # for others to give back memory; whoever starts goes on then as it is
LOG_LINES = 50
_MOST_PASSES = 50
_KILLED, _UNSEEN = 128 + signal.SIGKILL, -1  # exit codes


@dataclass(slots=True)
class Controller:
    """Brings what is there to what is wanted. Runs on one loop; `clock` gives steady seconds since the epoch."""

    state: State
    engine: Engine
    router: Router
    tasks: Tasks
    clock: Callable[[], float]
    new_suffix: Callable[[], str]
    wake: asyncio.Event
    tell: Callable[[], None]
    vault: Vault
    ask: Callable[..., Awaitable[Answer]] = ask
    jobs: Callable[..., Awaitable[int]] = jobs
    stopped: Callable[[int], bool] = is_stopped
    gone: Callable[[int], bool] = is_gone
    memory: Memory = field(default_factory=Memory)
    trouble: str = ""
    canaries: Canaries = field(init=False)
    scaler: Scaler = field(init=False)
    holding: Holding = field(init=False)
    mirror: Mirror = field(init=False)
    resting: Resting = field(init=False)
    answers: Answers = field(init=False)
    care: Care = field(init=False)
    _observed: dict[str, Observed] = field(default_factory=dict)
    _just_started: dict[str, Observed] = field(default_factory=dict)
    _exits: ExitWatch | None = None

    def __post_init__(self) -> None:
        self.canaries = Canaries(self.state, self.router, self.clock, self._changed)
        self.mirror = Mirror(self.state, self.clock)
        self.answers = Answers(self.state, self.router, self._condemn)
        self.care = Care(
            state=self.state,
            router=self.router,
            tasks=self.tasks,
            clock=self.clock,
            wake=self.wake.set,
            reached=self._tell_who_waits,
            ask=self.ask,
            jobs=self.jobs,
            stopped=self.stopped,
        )
        ready = Ready(self.state, self.router, self.jobs, self.gone)
        probation = Probation(ready.busiest, ready.loses_one, self.state.suspects, self.clock)
        self.holding = Holding(self._arrived, ready.reaches, probation)
        self.resting = Resting(
            self.state, self.memory, self.clock, self._changed, self.holding.waiting, ready.is_working
        )
        self.scaler = Scaler(self.state, self.router, self.clock, self._changed, self.resting)

    def _condemn(self, replica_id: str, reason: str) -> None:
        self.care.notes(replica_id).hung = reason
        self.wake.set()

    def _changed(self) -> None:
        self.wake.set()
        self.tell()

    async def adopt(self) -> None:
        """Take over what an earlier daemon left: forget nothing that runs, end what nobody knows."""
        self._exits = ExitWatch(self.wake.set)
        self.state.restart_clocks(now_s=self.clock())
        self.sweep_secrets()
        await self._look()
        known = {one.replica.id: one for one in self.state.replicas()}
        for stray in set(self._observed) - set(known):
            _log.warning("replica %s is in no deployment: removing it", stray)
            await self.tasks.off_loop(self.engine.remove, stray)
        for one in known.values():
            if one.replica.state is ReplicaState.STOPPING:
                await self.tasks.off_loop(self.engine.terminate, one.replica.id)
            elif one.replica.state is ReplicaState.STARTING and not one.replica.address:
                self._adopt_unfinished(one.replica)
        await self._start_gateway(self.table(alive_only=True))

    def _adopt_unfinished(self, replica: Replica) -> None:
        """The daemon before died between intending to start this replica and writing down where it is."""
        found = self._observed.get(replica.id)
        if found is None:
            # Not given up: a daemon that dies at each line it writes would never get further.
            revision = self.state.revision(replica.deployment, replica.revision)
            self.tasks.ensure(f"start {replica.id}", lambda: self._start(replica.id, revision))
        elif found.running:
            self.state.locate(replica.id, found.address, found.pid)
        else:
            self.state.abandon(replica.id, "the daemon ended while this was being started", now_s=self.clock())

    async def run(self) -> None:
        """Go on until cancelled; a failing look or plan is logged and tried again."""
        while True:
            try:
                async with asyncio.timeout(self._tick_s()):
                    await self.wake.wait()
            except TimeoutError:
                pass
            self.wake.clear()
            try:
                await self.step()
                self.trouble = ""
            except CortenError as error:
                self.trouble = str(error)
                _log.error("cannot go on for now: %s", error)
                await asyncio.sleep(BUSY_TICK_S)
            self.tell()

    async def step(self) -> None:
        """One turn: look, then plan and act until nothing is left to do."""
        await self._look()
        await self._start_gateway(self.table())
        for deployment in self.state.deployments():
            await self._converge(deployment.name)
        self.router.want(self.table())
        self._tend()
        self._tell_who_waits()

    def table(self, *, alive_only: bool = False) -> RouteTable:
        """The routes as they should be; `alive_only` leaves out replicas whose death is not written down yet."""
        records = [one for one in self.state.replicas() if not alive_only or self._running(one.replica.id)]
        trust = self.state.credentials.trust(now_s=self.clock())
        return replace(route_table(self.state.deployments(), records), trust=trust)

    def seen(self, name: str) -> list[Seen]:
        """A deployment's replicas as the planner sees them."""
        deployment = self.state.find(name)
        rollout = deployment.canary if deployment else None
        shadow = rollout.target if rollout and rollout.mirror else 0
        return [self._seen(one, shadow) for one in self.state.replicas(name)]

    def logs(self, replica_id: str, tail: int) -> Sequence[str]:
        """A replica's last lines; blocks."""
        try:
            return self.engine.logs(replica_id, tail=tail)
        except EngineError:
            return ()

    async def _start_gateway(self, table: RouteTable) -> None:
        """While anything is deployed there is a gateway; what is in its way (a taken port) is told, not fatal."""
        if self.router.running or not self.state.deployments():
            return
        try:
            await self.router.start(table)
        except CortenError as error:
            if self.router.trouble != str(error):
                _log.error("no gateway: %s", error)
            self.router.trouble = str(error)

    # Looking

    async def _look(self) -> None:
        self._just_started.clear()
        observed = await self.tasks.off_loop(self.engine.list)
        # What was started while the list was made may be missing in it, and must not be taken for dead.
        self._observed = {each.id: each for each in observed} | self._just_started

    def _running(self, replica_id: str) -> bool:
        found = self._observed.get(replica_id)
        return self.tasks.running(f"start {replica_id}") or (found is not None and found.running)

    def _seen(self, one: ReplicaRecord, shadow: int) -> Seen:
        """`shadow` is the revision that is asked copies of requests only."""
        replica = one.replica
        notes = self.care.notes(replica.id)
        found = self._observed.get(replica.id)
        reached = self.router.open_to if replica.revision == shadow else self.router.sends_to
        return Seen(
            id=replica.id,
            revision=replica.revision,
            state=replica.state,
            running=self._running(replica.id),
            since_s=replica.changed_s,
            ready_s=one.ready_s,
            probed=notes.probed,
            routable=one.routed and reached(replica.address),
            unrouted=not self.router.open_to(replica.address),
            idle=notes.idle,
            hung=notes.hung,
            frozen=self._is_frozen(replica.id, found),
            working=notes.working,
            restarts=replica.restarts,
            settled=one.settled,
            exit_code=found.exit_code if found else None,
            reason=str(notes.error or "") or replica.reason or (found.reason if found else ""),
        )

    # Acting

    async def _converge(self, name: str) -> None:
        for _ in range(_MOST_PASSES):
            deployment = self.state.find(name)
            if deployment is None:
                return
            actions = plan(deployment, self.seen(name), self.clock())
            for action in actions:
                await self._carry_out(deployment, action)
            if all(isinstance(action, Kill) for action in actions):
                return
        _log.error("the plan for %s does not end", name)

    async def _carry_out(self, deployment: Deployment, action: Action) -> None:
        """Write it down, then do it; what takes long is done by a task, and looked at again when that has ended."""
        name, now_s = deployment.name, self.clock()
        match action:
            case StartReplica(revision=number):
                revision = self.state.revision(name, number)
                new_id = f"{name}-{revision.label}-{self.new_suffix()}"
                record(self.state, name, action, now_s=now_s, new_id=new_id)
                self.tasks.ensure(f"start {new_id}", lambda: self._start(new_id, revision))
            case RecordExit(id=replica):
                if self._ended_over_requests(name, replica):
                    self.holding.probation.ended(name)
                record(self.state, name, action, now_s=now_s)
            case Terminate(id=replica):
                record(self.state, name, action, now_s=now_s)
                self.tasks.ensure(f"end {replica}", lambda: self._end(self.engine.terminate, replica))
            case Kill(id=replica):
                record(self.state, name, action, now_s=now_s)
                self.tasks.ensure(f"end {replica}", lambda: self._end(self.engine.kill, replica))
            case Freeze(id=replica):
                self.tasks.ensure(f"freeze {replica}", lambda: self._set_frozen(replica, frozen=True))
            case Thaw(id=replica):
                self.tasks.ensure(f"thaw {replica}", lambda: self._set_frozen(replica, frozen=False))
            case Resume(id=replica):
                record(self.state, name, action, now_s=now_s)
                self.care.resume(replica)
            case Remove(id=replica):
                await self._end(self.engine.remove, replica)
                record(self.state, name, action, now_s=now_s)
                self.care.forget(replica)
            case FailRollout(id=replica):
                details = await self._explain(replica)
                record(self.state, name, action, now_s=now_s, details=details)
            case Forget():
                record(self.state, name, action, now_s=now_s)
                self.sweep_secrets()
            case _:
                record(self.state, name, action, now_s=now_s)
        self.tell()

    def _ended_over_requests(self, name: str, replica_id: str) -> bool:
        """Whether a replica whose end is seen now may have ended over what it had in hand.

        Not when we ended it or somebody killed it, as far as it is known not to have been the kernel, for memory.
        """
        working = (ReplicaState.READY, ReplicaState.DRAINING)
        states = [one.replica.state for one in self.state.replicas(name) if one.replica.id == replica_id]
        found = self._observed.get(replica_id)
        by_itself = found is not None and (found.exit_code not in (_KILLED, _UNSEEN) or found.out_of_memory)
        return states[0] in working and by_itself and not self.care.notes(replica_id).hung

    async def _start(self, replica_id: str, revision: Revision) -> None:
        try:
            await self._begin(replica_id, revision)
        except CortenError as error:
            self.care.notes(replica_id).error = error
            _log.error("replica %s did not start: %s", replica_id, error)

    async def _begin(self, replica_id: str, revision: Revision) -> None:
        settings = revision.settings
        spec = ReplicaSpec(
            id=replica_id,
            deployment=revision.deployment,
            revision=revision.number,
            image=revision.image,
            env={**settings.env, "CORTEN_DRAIN_S": f"{settings.drain_s:g}"},
            egress=settings.egress,
            resources=settings.resources,
            secrets=self.vault.read(settings.secret_ids),
        )
        try:
            await self.tasks.off_loop(self.engine.prepare, revision.image)
            await self._make_room(revision.deployment)
            self.memory.promised.add(replica_id)
            observed = await self.tasks.off_loop(self.engine.start, spec)
        finally:
            self.memory.promised.discard(replica_id)
        self._observed[replica_id] = self._just_started[replica_id] = observed
        self.state.locate(replica_id, observed.address, observed.pid)

    async def _make_room(self, name: str) -> None:
        """Let what rests give way, one after the other, until a replica of this deployment fits or nothing is left."""
        now_s = asyncio.get_running_loop().time
        deadline_s, patient_until_s = now_s() + ROOM_S, now_s() + MOMENT_S
        while self.memory.lacks(name, self.state.replicas()) and now_s() < deadline_s:
            gone = await self.resting.evict(name, f"`{name}` needs its memory")
            if not gone and now_s() < patient_until_s:
                await asyncio.sleep(BUSY_TICK_S)  # who was asked just now may have nothing to do in a moment
                continue
            if not gone:
                return
            while self._is_leaving(gone) and now_s() < deadline_s:  # noqa: ASYNC110 -- the state, which tells nobody
                await asyncio.sleep(DRAIN_POLL_S)

    def _is_leaving(self, name: str) -> bool:
        """Whether a deployment that gave way still holds what it gave."""
        one = self.state.find(name)
        if one is None:
            return False
        actions = plan(one, self.seen(name), self.clock())
        leaving = (ReplicaState.DRAINING, ReplicaState.STOPPING)
        return bool(actions) or any(each.replica.state in leaving for each in self.state.replicas(name))

    async def _end(self, verb: Callable[[str], None], replica_id: str) -> None:
        try:
            await self.tasks.off_loop(verb, replica_id)
        except CortenError as error:
            _log.error("replica %s: %s", replica_id, error)

    def _is_frozen(self, replica_id: str, found: Observed | None) -> bool:
        """Whether it is, or is about to be."""
        if self.tasks.running(f"thaw {replica_id}"):
            return False
        return self.tasks.running(f"freeze {replica_id}") or (found is not None and found.frozen)

    async def _set_frozen(self, replica_id: str, *, frozen: bool) -> None:
        await self._end(self.engine.freeze if frozen else self.engine.thaw, replica_id)
        if (found := self._observed.get(replica_id)) is not None:
            self._observed[replica_id] = replace(found, frozen=frozen)

    async def _explain(self, replica_id: str) -> Mapping[str, Any]:
        """Why a rollout failed: its replica's last lines and answers, and the engine's own error if it had one."""
        notes = self.care.notes(replica_id)
        lines = await self.tasks.off_loop(self.logs, replica_id, LOG_LINES) if replica_id else ()
        details: dict[str, Any] = {"replica": replica_id, "log": list(lines), "answer": notes.answer}
        if notes.error is not None:
            details["error"] = {**notes.error.as_dict(), "exit_code": notes.error.exit_code}
        return details

    # What goes on beside the loop

    def _tend(self) -> None:
        """See to it that replicas and canaries are looked after, and processes watched."""
        self.care.tend(self._running)
        canaries = [one.name for one in self.state.deployments() if one.canary is not None]
        self.tasks.ensure_only("canary ", {name: partial(self.canaries.watch, name) for name in canaries})
        pids = {each.pid for each in self._observed.values() if each.running and each.pid}
        if self._exits is not None:
            self._exits.watch_only(pids)

    # Who waits for a replica

    def _arrived(self, name: str) -> None:
        self.resting.wake(name)

    def _tell_who_waits(self) -> None:
        shares = {route.deployment: route.revisions for route in self.table().deployments}
        lines = {}
        for one in self.state.deployments():
            weights = {share.revision: share.weight for share in shares[one.name] if share.weight}
            lines[one.name] = line(one, weights, self.seen(one.name), start_s(self.state.replicas(one.name)))
        self.holding.know(lines)

    def _tick_s(self) -> float:
        busy = (ReplicaState.STARTING, ReplicaState.DRAINING, ReplicaState.STOPPING)
        records = self.state.replicas()
        for one in records:
            state = one.replica.state
            if state in busy or (state is ReplicaState.EXITED and not one.settled):
                return BUSY_TICK_S
        if self.trouble or self.router.trouble:
            return BLIND_TICK_S
        blind = any(each.running and not each.pid for each in self._observed.values())
        return BLIND_TICK_S if blind else IDLE_TICK_S

    def must_swap(self, name: str, strategy: Strategy) -> bool:
        """Whether a new revision has to wait for the end of the one that runs: two do not fit, or the user says so."""
        records = [one for one in self.state.replicas() if one.replica.pid]
        match strategy:
            case Strategy.SURGE:
                return False
            case Strategy.SWAP:
                return True
            case Strategy.AUTO:
                self.memory.learn(records)  # of one that got ready a moment ago nobody has looked yet
                return not self.memory.takes_another(name, records)

    def sweep_secrets(self) -> None:
        """Keep no secret that no revision has."""
        self.vault.sweep(self.state.secret_ids())

    def note(self, deployment: str, step: str, phase: Phase, message: str) -> None:
        """Write a line into a deployment's journal."""
        self.state.journal(deployment, Event(step, phase, message), now_s=self.clock())
        self.tell()

    def close(self) -> None:
        """Watch no process any more."""
        if self._exits is not None:
            self._exits.close()
