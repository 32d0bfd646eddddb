"""A small world for the planner: an engine, a gateway and a daemon that can be killed, all driven by one clock."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from corten.control import database
from corten.control.actions import Freeze, Kill, Remove, Seen, StartReplica, Terminate, Thaw
from corten.control.reconcile import canary_replicas, plan, surge_of
from corten.control.record import record
from corten.control.records import Deployment, ReplicaRecord
from corten.control.routes import route_table, steps
from corten.control.state import State
from corten.core.canary import Canary
from corten.core.deployment import ReplicaState, RolloutState, Settings
from corten.core.digest import Digest
from corten.core.route import RouteTable


@cache
def empty_database() -> sqlite3.Connection:
    """Migrated once; every state begins as a copy of it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    database._migrate(connection, Path("memory"))
    return connection


def memory_state() -> State:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    empty_database().backup(connection)
    database._configure(connection)
    return State(connection, Path("memory"))


@dataclass
class Behaviour:
    """How replicas of an image behave: seconds until ready (None: never), and seconds until they end by themselves."""

    ready_after_s: float | None = 1.0
    dies_after_s: float | None = None
    ends_after_term_s: float = 0.1


@dataclass
class Process:
    revision: int
    behaviour: Behaviour
    started_s: float
    ends_s: float | None = None
    code: int | None = None
    terminated: bool = False
    frozen: bool = False


@dataclass
class World:
    """Everything outside the daemon, and the daemon's notes, which a crash wipes."""

    state: State = field(default_factory=memory_state)
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    now_s: float = 1000.0
    name: str = "m"
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    table: RouteTable = field(default_factory=RouteTable)
    busy_until_s: dict[str, float] = field(default_factory=dict)
    crash_daemon_share: float = 0.0
    serial: int = 0
    crashed: bool = False
    lowest_capacity: int | None = None
    killed_by_fate: int = 0
    routed_at_writes: int = -1
    read_at_writes: int = -1
    read: tuple[Deployment | None, tuple[ReplicaRecord, ...]] = (None, ())
    log: list[str] = field(default_factory=list)

    # Outside

    def deploy(self, behaviour: Behaviour, *, replicas: int = 1, swap: bool = False, **settings) -> int:
        image = Digest.of(f"image {len(self.behaviours)}".encode())
        self.behaviours[str(image)] = behaviour
        settings = Settings(replicas=replicas, **settings)
        return self.state.deploy(self.name, image, settings, generation=None, now_s=self.now_s, swap=swap).revision

    def serving_capacity(self) -> int:
        """Replicas of the serving revision that get requests."""
        serving = self.state.deployment(self.name).serving
        return sum(
            self.sent_requests(one.replica.id)
            for one in self.state.replicas(self.name)
            if serving is not None and one.replica.revision == serving.number
        )

    def kill_one(self) -> None:
        alive = sorted(key for key, process in self.processes.items() if process.code is None)
        if alive:
            victim = self.chance.choice(alive)
            self.processes[victim].code = 137
            self.killed_by_fate += 1

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        for process in self.processes.values():
            died = process.behaviour.dies_after_s
            if process.frozen:
                continue
            if process.code is None and died is not None and self.now_s >= process.started_s + died:
                process.code = 1
            if process.code is None and process.ends_s is not None and self.now_s >= process.ends_s:
                process.code = 0

    # The daemon

    def remembered(self) -> tuple[Deployment | None, tuple[ReplicaRecord, ...]]:
        """What the state says, read anew only when something was written: most turns find nothing to do."""
        writes = self.state._connection.total_changes
        if writes != self.read_at_writes:
            self.read = (self.state.find(self.name), self.state.replicas(self.name))
            self.read_at_writes = writes
        return self.read

    def is_ready(self, key: str) -> bool:
        process = self.processes[key]
        after = process.behaviour.ready_after_s
        awake = process.code is None and not process.frozen
        return awake and after is not None and self.now_s >= process.started_s + after

    def endpoint(self, key: str):
        for route in self.table.deployments:
            for share in route.revisions:
                for each in share.endpoints:
                    if each.address == key:
                        return share, each
        return None

    def sent_requests(self, key: str) -> bool:
        found = self.endpoint(key)
        return found is not None and found[0].weight > 0 and not found[1].draining and self.is_ready(key)

    def see(self) -> list[Seen]:
        seen = []
        deployment, replicas = self.remembered()
        canary = deployment.canary if deployment else None
        shadow = canary.target if canary and canary.mirror else 0
        for one in replicas:
            replica = one.replica
            process = self.processes.get(replica.id)
            found = self.endpoint(replica.id)
            unrouted = found is None or found[1].draining
            weighs = found is not None and (found[0].weight > 0 or replica.revision == shadow)
            seen.append(
                Seen(
                    id=replica.id,
                    revision=replica.revision,
                    state=replica.state,
                    running=process is not None and process.code is None,
                    since_s=replica.changed_s,
                    ready_s=one.ready_s,
                    probed=process is not None and self.is_ready(replica.id),
                    routable=one.routed and weighs and not unrouted,
                    unrouted=unrouted,
                    idle=unrouted and self.now_s >= self.busy_until_s.get(replica.id, 0.0),
                    frozen=process is not None and process.frozen,
                    restarts=replica.restarts,
                    settled=one.settled,
                    exit_code=process.code if process else None,
                    reason=replica.reason,
                )
            )
        return seen

    def fate(self) -> None:
        if self.chance.random() < self.crash_daemon_share:
            raise DaemonKilledError

    def carry_out(self, action) -> None:
        self.log.append(f"{self.now_s:.2f} {action}")
        key = ""
        if isinstance(action, StartReplica):
            self.serial += 1
            key = f"{self.name}-r{action.revision}-{self.serial:06d}"
        self.fate()
        record(self.state, self.name, action, now_s=self.now_s, new_id=key)
        self.fate()
        match action:
            case StartReplica(revision):
                self.check_alone(revision)
                image = str(self.state.revision(self.name, revision).image)
                self.processes[key] = Process(revision, self.behaviours[image], self.now_s)
                self.fate()
                self.state.locate(key, key, 1)
            case Terminate(id=replica):
                self.terminate(replica)
            case Kill(id=replica):
                self.processes[replica].code = 137
            case Remove(id=replica):
                self.processes.pop(replica, None)
            case Freeze(id=replica):
                self.check_not_sent(replica)
                self.processes[replica].frozen = True
            case Thaw(id=replica):
                self.processes[replica].frozen = False
            case _:
                pass

    def terminate(self, key: str) -> None:
        process = self.processes.get(key)
        if process is not None and not process.terminated:
            process.terminated, process.frozen = True, False
            process.ends_s = self.now_s + process.behaviour.ends_after_term_s

    def check_alone(self, revision: int) -> None:
        """Where two revisions do not fit, none may be started while another runs."""
        if self.state.deployment(self.name).rollout.swap:
            others = [one for one in self.processes.values() if one.revision != revision and one.code is None]
            assert not others, self.story()

    def check_not_sent(self, key: str) -> None:
        """What gets no processor may have no requests, neither new nor old."""
        found = self.endpoint(key)
        assert found is None or found[1].draining, self.story()
        assert self.now_s >= self.busy_until_s.get(key, 0.0), self.story()

    def route(self) -> None:
        writes = self.state._connection.total_changes
        if writes == self.routed_at_writes:
            return  # the same state gives the same table, which is in force
        wanted = route_table(self.state.deployments(), self.state.replicas())
        for table in steps(self.table, wanted):
            self.fate()
            before = self.table
            self.table = table
            self.check_shares()
            self.remember_busy(before)
        self.routed_at_writes = writes

    def check_shares(self) -> None:
        """No share of the traffic may point at a revision without an open endpoint."""
        for route in self.table.deployments:
            for share in route.revisions:
                assert share.weight == 0 or any(not each.draining for each in share.endpoints), self.story()

    def remember_busy(self, before: RouteTable) -> None:
        was = {e.address for r in before.deployments for s in r.revisions for e in s.endpoints if not e.draining}
        now = {e.address for r in self.table.deployments for s in r.revisions for e in s.endpoints if not e.draining}
        for key in was - now:
            self.busy_until_s[key] = self.now_s + self.chance.choice((0.0, 0.0, 0.1, 5.0))

    def adopt(self) -> None:
        """What a restarted daemon does first."""
        self.state.restart_clocks(now_s=self.now_s)
        known = {one.replica.id for one in self.state.replicas()}
        for key in set(self.processes) - known:
            del self.processes[key]
        for one in self.state.replicas():
            if one.replica.state is ReplicaState.STOPPING:
                self.terminate(one.replica.id)
            elif one.replica.state is ReplicaState.STARTING and not one.replica.address:
                self.adopt_unfinished(one.replica.id)

    def adopt_unfinished(self, key: str) -> None:
        process = self.processes.get(key)
        if process is not None and process.code is None:
            self.state.locate(key, key, 1)
        else:
            self.state.move(key, ReplicaState.EXITED, now_s=self.now_s)
            self.state.settle(key)

    def step(self) -> int:
        """One turn of the daemon's loop; gives the number of actions. The daemon may be killed in it and restarted."""
        try:
            return self.turn()
        except DaemonKilledError:
            self.log.append(f"{self.now_s:.2f} daemon killed")
            self.pass_time(self.chance.choice((0.0, 0.5, 3.0)))
            self.adopt()
            return 1

    def turn(self) -> int:
        done = 0
        for _ in range(50):
            deployment, _ = self.remembered()
            if deployment is None:
                break
            actions = plan(deployment, self.see(), self.now_s)
            before = self.capacity() if actions else 0
            for action in actions:
                self.carry_out(action)
            self.route()
            self.mark_routed()
            if not actions:
                return done
            self.check(before, actions)
            done += len(actions)
        else:
            pytest.fail("the plan never ends:\n" + self.story())
        self.route()
        return done

    def mark_routed(self) -> None:
        for one in self.remembered()[1]:
            if one.replica.state is ReplicaState.READY and not one.routed:
                found = self.endpoint(one.replica.id)
                if found is not None and self.is_ready(one.replica.id):
                    self.state.routed(one.replica.id, now_s=self.now_s)
        self.route()

    # Judging

    def capacity(self) -> int:
        """Replicas that get requests and that nothing was decided against before."""
        ready = [one.replica.id for one in self.remembered()[1] if one.replica.state is ReplicaState.READY]
        return sum(map(self.sent_requests, ready))

    def check(self, before: int, actions) -> None:
        """What the daemon did must not take capacity away below what is wanted."""
        deployment = self.state.find(self.name)
        if deployment is None or deployment.deleting or deployment.wanted is None:
            return
        if deployment.rollout is not None and deployment.rollout.swap:
            return
        after = self.capacity()
        assert after >= min(before, deployment.replicas), self.story()
        live = [
            one for one in self.state.replicas() if one.replica.state in (ReplicaState.STARTING, ReplicaState.READY)
        ]
        if deployment.rollout is not None and deployment.rollout.state is RolloutState.PROGRESSING:
            old = sum(one.replica.revision != deployment.wanted.number for one in live)
            beside = surge_of(deployment.replicas)
            if deployment.canary is not None:
                beside = max(beside, canary_replicas(deployment.canary.share, deployment.replicas))
            most = max(deployment.replicas, old) + beside
            started = any(isinstance(action, StartReplica) for action in actions)
            assert not started or len(live) <= most, self.story()

    def run(self, seconds: float, tick_s: float = 0.25) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.step()
            self.pass_time(tick_s)

    def run_until_settled(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s and not self.settled():
            self.step()
            self.pass_time(0.5)
        assert self.settled() or self.crash_daemon_share, self.story()

    def settled(self) -> bool:
        deployment, _ = self.remembered()
        if deployment is None:
            return not self.processes
        if deployment.deleting:
            return False
        if deployment.rollout is not None and deployment.rollout.state is RolloutState.PROGRESSING:
            return False
        alive = [process for process in self.processes.values() if process.code is None]
        running = [process for process in alive if not process.frozen]
        wanted = deployment.wanted
        if wanted is None:
            return not alive
        return (
            len(running) == deployment.replicas
            and self.rests_well(deployment)
            and all(process.revision == wanted.number for process in running)
            and self.capacity() == deployment.replicas
        )

    def rests_well(self, deployment: Deployment) -> bool:
        """Whether nothing is frozen but what may be."""
        kept = [deployment.fallback] if deployment.fallback is not None else []
        kept += [deployment.wanted.number] * deployment.resting
        frozen = [process.revision for process in self.processes.values() if process.code is None and process.frozen]
        return all(frozen.count(revision) <= kept.count(revision) for revision in frozen)

    def story(self) -> str:
        return "\n".join(self.log[-60:])


class DaemonKilledError(Exception):
    pass


KINDS = ("good", "slow", "dies", "never", "late death")


def live_through(world: World, sizes, *, kinds, killed_share) -> None:
    """Deploy one revision after the other, whatever becomes of them; then a good one; then stop."""
    behaviours = {
        "good": Behaviour(ready_after_s=0.5),
        "slow": Behaviour(ready_after_s=6.0, ends_after_term_s=30.0),
        "dies": Behaviour(ready_after_s=None, dies_after_s=0.7),
        "never": Behaviour(ready_after_s=None),
        "late death": Behaviour(ready_after_s=0.2, dies_after_s=3.0),
    }
    crash_share = world.crash_daemon_share
    for size, kind in zip(sizes, kinds, strict=False):
        canary = world.chance.choice([Canary(), Canary((5, 50), judged=True), Canary((30,))])
        swap = not canary.steps and world.chance.random() < 0.3
        sizing = {"replicas": size} if world.chance.random() < 0.5 else {"replicas": 0, "most_replicas": size}
        world.deploy(behaviours[kind], **sizing, ready_timeout_s=10.0, drain_s=4.0, canary=canary, swap=swap)
        for _ in range(world.chance.randrange(1, 60)):
            if world.chance.random() < 0.05:  # the judge passes it
                world.state.grow("m", "by fate", now_s=world.now_s, data={})
            if world.chance.random() < 0.1:
                rest_or_wake(world, size)
            world.step()
            world.pass_time(0.25)
            if world.chance.random() < killed_share:
                world.kill_one()
    world.crash_daemon_share = 0.0
    last = world.deploy(behaviours["good"], replicas=sizes[-1], ready_timeout_s=10.0, drain_s=4.0)
    world.run_until_settled(240)
    assert world.state.deployment("m").serving.number == last, world.story()
    world.crash_daemon_share = crash_share
    world.state.delete("m", now_s=world.now_s)
    world.run_until_settled(240)
    world.crash_daemon_share = 0.0
    world.run_until_settled(240)
    assert world.state.find("m") is None, world.story()


def rest_or_wake(world: World, size: int) -> None:
    """What the autoscaler and the looks at idle deployments may decide at any time."""
    if world.state.deployment("m").rollout.state is RolloutState.PROGRESSING:
        return
    if world.chance.random() < 0.3:
        world.state.drop_fallback("m", "by fate", now_s=world.now_s)
    awake = world.chance.choice([0, 0, 1, size])
    resting = int(not awake and world.chance.random() < 0.6)
    world.state.scale("m", awake, "by fate", now_s=world.now_s, data={}, resting=resting)
