"""A daemon takes over from one that died: what it adopts, replaces and removes."""

import asyncio
import contextlib

import pytest
from controller_bench import ONE, TWO, a_while

from corten.core.deployment import Replica, ReplicaState, RolloutState
from corten.engine.base import Observed
from corten.engine.memory import Memory
from corten.testing.gateway import MemoryGateway


def test_a_successor_adopts_replicas_and_gateway_and_disturbs_neither(bench):
    async def first(controller):
        bench.deploy(ONE, replicas=2)
        await bench.until(controller, lambda: MemoryGateway(bench.wire).weights("m") == {"r1": 2})

    async def second(controller):
        await a_while(controller)
        assert MemoryGateway(bench.wire).weights("m") == {"r1": 2}

    bench.during(first)
    before, tables = bench.running(), len(bench.wire.applied)
    bench.during(second)
    assert bench.running() == before
    assert bench.wire.starts == 1
    assert all(table == bench.wire.table for table in bench.wire.applied[tables:])
    assert not any(verb in ("terminate", "kill", "remove") for verb, _ in bench.machine.calls)


def test_a_successor_does_not_route_to_what_died_meanwhile(bench):
    async def first(controller):
        bench.deploy(ONE, replicas=2)
        await bench.until_rolled_out(controller)

    async def second(controller):
        await bench.until(
            controller, lambda: MemoryGateway(bench.wire).weights("m") == {"r1": 2} and len(bench.running()) == 2
        )

    bench.during(first)
    victim = bench.running()[0]
    Memory(machine=bench.machine).exit(victim)
    tables = len(bench.wire.applied)
    bench.during(second)
    for table in bench.wire.applied[tables:]:
        for route in table.deployments:
            assert f"/memory/{victim}/s" not in [each.address for share in route.revisions for each in share.endpoints]


@pytest.mark.parametrize("running", [True, False])
def test_a_daemon_killed_while_it_started_a_replica_does_not_fail_the_rollout(bench, running):
    bench.deploy(ONE)
    half = "m-r1-aaaaaa"
    starting = Replica(half, "m", 1, ReplicaState.STARTING, "", 0, bench.now_s, bench.now_s)
    bench.state.add_replica(starting, replaces=None, now_s=bench.now_s)
    bench.machine.observed[half] = Observed(half, "m", 1, running=running, address=f"/memory/{half}/s", pid=0)

    async def story(controller):
        await bench.until_rolled_out(controller)

    bench.during(story)
    assert (bench.running() == [half]) is running
    assert len(bench.running()) == 1


def test_a_successor_removes_replicas_nobody_knows(bench):
    bench.machine.observed["x-r1-aaaaaa"] = Observed("x-r1-aaaaaa", "x", 1, running=True, address="/x", pid=0)

    async def story(controller):
        await asyncio.sleep(0.01)

    bench.during(story)
    assert bench.machine.observed == {}


def test_a_daemon_that_died_between_word_and_deed_leaves_the_deed_to_the_next(bench):
    async def before(controller):
        bench.deploy(ONE, replicas=0, most_replicas=2)
        await bench.until_rolled_out(controller)

    bench.during(before)
    first = bench.running()[0]
    bench.state.scale("m", 0, "nobody asks", now_s=bench.now_s, data={}, resting=1)
    bench.state.move(first, ReplicaState.FROZEN, now_s=bench.now_s)

    async def freezes(controller):
        await bench.until(controller, lambda: bench.machine.observed[first].frozen)

    bench.during(freezes)
    bench.state.scale("m", 1, "a request waits", now_s=bench.now_s, data={})
    bench.state.move(first, ReplicaState.READY, now_s=bench.now_s)

    async def thaws(controller):
        await bench.until(controller, lambda: MemoryGateway(bench.wire).weights("m") == {"r1": 1})

    bench.during(thaws)
    assert not bench.machine.observed[first].frozen


class Death(BaseException):
    """The end of a daemon."""


class Mortal:
    """Ends whoever writes to a state once a line of its journal is written, and all it would still write."""

    def __init__(self, state):
        self.connection, self.run = state._connection, state._run
        self.told = self.dead = False
        state._run = self.run_or_die

    def run_or_die(self, sql, *values):
        if self.dead:
            raise Death
        found = self.run(sql, *values)
        self.told = self.told or sql.startswith("INSERT INTO events")
        if self.told and not self.connection.in_transaction:
            self.dead = True
            raise Death
        return found


def test_a_daemon_that_dies_at_each_line_of_its_journal_loses_nothing(bench):
    async def first(controller):
        bench.deploy(ONE, replicas=2)
        await bench.until_rolled_out(controller)

    bench.during(first)
    bench.deploy(TWO, replicas=2)
    plain, deaths = bench.state._run, 0

    async def mortal(controller):
        while not life.dead and bench.state.deployment("m").rollout.state is not RolloutState.DONE:
            controller.wake.set()
            await asyncio.sleep(0.005)

    while bench.state.deployment("m").rollout.state is not RolloutState.DONE:
        life = Mortal(bench.state)
        with contextlib.suppress(Death, AssertionError):
            bench.during(mortal)
        bench.state._run = plain
        deaths += life.dead
        assert bench.state.deployment("m").rollout.state is not RolloutState.FAILED
        assert deaths < 40
    assert deaths > 6
    assert MemoryGateway(bench.wire).weights("m") == {"r2": 2}
