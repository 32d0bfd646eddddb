"""What the autoscaler makes of what a gateway tells, or does not."""

import asyncio

import pytest

from corten.control.memory import Memory
from corten.control.resting import Resting
from corten.control.router import Router
from corten.control.scaler import Scaler
from corten.core.deployment import Replica, ReplicaState, Settings
from corten.core.digest import Digest
from corten.core.rest import Rest
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
        self.host_busy = 0.0
        self.scaler = Scaler(state, self.router, lambda: self.now_s, self.changed, resting, self)
        self.settings = Settings(replicas=1, most_replicas=4, concurrency=2)
        state.deploy("m", Digest.of(b"1"), self.settings, generation=None, now_s=1.0)
        self.add("a")
        state.finish_rollout("m", now_s=2.0)

    def add(self, name, pid=0, *, deployment="m", routed=True):
        """A replica that is ready."""
        one = Replica(name, deployment, 1, ReplicaState.STARTING, f"/{name}", 0, 1.0, 1.0)
        self.state.add_replica(one, replaces=None, now_s=1.0)
        self.state.locate(name, f"/{name}", pid)
        self.state.move(name, ReplicaState.READY, now_s=2.0)
        if routed:
            self.state.routed(name, now_s=2.0)

    def busy(self):
        """The share of the machine's processors that work."""
        return self.host_busy

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
            self.wire.traffic = traffic if isinstance(traffic, dict) else {("m", "r1"): traffic}
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


def test_a_gateway_that_begins_to_count_anew_is_no_load_and_what_it_counts_then_is(bench):
    asyncio.run(bench.looks(busy(100_000), busy(100_001), busy(0), busy(1), busy(1)))
    assert bench.replicas == 1
    asyncio.run(bench.looks(busy(41, 2), busy(81, 2), busy(121, 2)))
    assert bench.replicas > 1


def test_requests_of_all_revisions_count_and_of_no_other_deployment(bench):
    def seen(count):
        return {("m", "r1"): busy(count), ("m", "r2"): busy(count), ("n", "r1"): busy(count * 100)}

    # 6 and 6 a second of 0.1 s each: 1.2 at a time, of which a replica takes 1.4.
    asyncio.run(bench.looks(*(seen(3 * look) for look in range(60))))
    assert bench.replicas == 1
    asyncio.run(bench.looks(*(seen(180 + 5 * look) for look in range(60))))  # 2 at a time
    assert bench.replicas == 2


def test_without_a_gateway_to_ask_nothing_changes(bench):
    bench.state.scale("m", 3, "by hand", now_s=bench.now_s, data={})
    asyncio.run(bench.scaler.look())
    assert bench.replicas == 3


def test_one_less_at_a_time_once_all_are_there_and_nobody_is_on_the_way(bench):
    bench.add("b")
    bench.add("c", routed=False)
    bench.state.scale("m", 3, "by hand", now_s=bench.now_s, data={})
    asyncio.run(bench.looks(busy(0), busy(1)))
    assert bench.replicas == 3
    bench.state.routed("c", now_s=bench.now_s)
    asyncio.run(bench.looks(busy(1)))
    assert bench.replicas == 2


def test_a_rollout_keeps_from_shrinking_and_not_from_growing(bench):
    for name in "bc":
        bench.add(name)
    bench.state.scale("m", 3, "by hand", now_s=bench.now_s, data={})
    bench.state.deploy("m", Digest.of(b"2"), bench.settings, generation=None, now_s=bench.now_s)
    asyncio.run(bench.looks(busy(0), busy(1), busy(1)))
    assert bench.replicas == 3
    asyncio.run(bench.looks(busy(60, 10), busy(160, 30)))
    assert bench.replicas == 4


@pytest.mark.parametrize(("used_s", "replicas"), [((0.1, 0.31), 1), ((0.1, 0.29), 4)])
def test_busy_processors_keep_from_growing_only_who_keeps_them_busy(bench, monkeypatch, used_s, replicas):
    """Each of the two used so much in half a second; from 0.4 of a processor on a replica is what works."""
    bench.add("b", pid=1)
    bench.add("c", pid=2)
    bench.state.move("a", ReplicaState.DRAINING, now_s=3.0)
    bench.host_busy = 0.95
    monkeypatch.setattr("corten.control.scaler.processor_s", lambda pid: used_s[pid - 1] * bench.now_s / 0.5)
    asyncio.run(bench.looks(busy(0), busy(20), *(busy(20 + 60 * look, 10) for look in range(6))))
    assert bench.replicas == replicas
    told = [line.message for line in bench.state.events("m") if "the processors are busy" in line.message]
    assert len(told) == (replicas == 1)  # once, not twice a second


def test_what_is_at_rest_is_not_the_scalers_and_who_is_idle_is_put_to_rest(bench):
    bench.state.scale("m", 0, "by hand", now_s=bench.now_s, data={})
    rest = Settings(replicas=0, most_replicas=2, rest=Rest(freeze_after_s=10.0, stop_after_s=1000.0))
    bench.state.deploy("n", Digest.of(b"1"), rest, generation=None, now_s=1.0)
    bench.add("n1", deployment="n")
    bench.state.finish_rollout("n", now_s=2.0)
    asyncio.run(bench.looks(busy(0), busy(20, 3), busy(60, 12)))
    assert bench.replicas == 0
    assert bench.state.deployment("n").replicas == 1
    bench.now_s += 20
    asyncio.run(bench.looks(busy(60)))
    assert (bench.state.deployment("n").replicas, bench.state.deployment("n").resting) == (0, 1)
