"""What the autoscaler makes of what a gateway tells, or does not."""

import asyncio

import pytest

from corten.control.memory import Memory
from corten.control.resting import Resting
from corten.control.router import Router
from corten.control.scaler import Scaler
from corten.core.deployment import Replica, ReplicaState, Settings
from corten.core.digest import Digest
from corten.core.route import RouteTable
from corten.core.traffic import Traffic
from corten.testing.gateway import MemoryGateway, Wire


class Bench:
    """A deployment of 1 to 4 replicas, one of them ready, on a gateway that tells what it is told to."""

    def __init__(self, state):
        self.state, self.wire, self.now_s, self.changes = state, Wire(), 100.0, 0
        self.router = Router(lambda _: MemoryGateway(self.wire), 0, lambda: None)
        # A machine with room.
        memory = Memory(held=lambda _: 1, available=lambda: 5, total=lambda: 10)
        resting = Resting(state, memory, lambda: self.now_s, self.changed, lambda _: 0, self.working)
        self.scaler = Scaler(state, self.router, lambda: self.now_s, self.changed, resting)
        settings = Settings(replicas=1, most_replicas=4, concurrency=2)
        state.deploy("m", Digest.of(b"1"), settings, generation=None, now_s=1.0)
        state.add_replica(Replica("a", "m", 1, ReplicaState.STARTING, "/a", 0, 1.0, 1.0), replaces=None, now_s=1.0)
        state.move("a", ReplicaState.READY, now_s=2.0)
        state.routed("a", now_s=2.0)
        state.finish_rollout("m", now_s=2.0)

    async def working(self, name):
        del name
        return False

    def changed(self):
        self.changes += 1

    async def looks(self, *seen):
        """One look for each of what the gateway tells, half a second apart."""
        await self.router.start(RouteTable())
        for traffic in seen:
            self.now_s += 0.5
            self.wire.traffic = {("m", "r1"): traffic}
            await self.scaler.look()

    @property
    def replicas(self):
        return self.state.deployment("m").replicas


def busy(count, in_flight=0):
    return Traffic(count, timed=count, busy_s=count * 0.1, in_flight=in_flight)


@pytest.fixture
def bench(make_state):
    return Bench(make_state())


def test_requests_that_pile_up_get_replicas_and_the_journal_says_why(bench):
    asyncio.run(bench.looks(busy(0), busy(20, 3), busy(60, 12)))
    assert bench.replicas > 1
    assert bench.changes >= 1
    line = bench.state.events("m")[-1]
    assert line.step == "scale"
    assert {"load", "queue", "need", "service_s"} <= line.data.keys()


def test_a_gateway_that_begins_to_count_anew_is_no_load(bench):
    asyncio.run(bench.looks(busy(100_000), busy(0), busy(1), busy(1)))
    assert bench.replicas == 1


def test_without_a_gateway_to_ask_nothing_changes(bench):
    bench.state.scale("m", 3, "by hand", now_s=bench.now_s, data={})
    asyncio.run(bench.scaler.look())
    assert bench.replicas == 3


def test_nothing_shrinks_while_a_rollout_goes_on(bench):
    asyncio.run(bench.looks(busy(0), busy(1)))
    bench.state.scale("m", 3, "by hand", now_s=bench.now_s, data={})
    settings = Settings(replicas=1, most_replicas=4, concurrency=2)
    bench.state.deploy("m", Digest.of(b"2"), settings, generation=None, now_s=bench.now_s)
    bench.now_s += 1000
    asyncio.run(bench.looks(busy(1), busy(1)))
    assert bench.replicas == 3
