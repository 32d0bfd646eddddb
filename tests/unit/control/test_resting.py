"""What the looks at idle deployments make of what the gateway tells."""

import asyncio

import pytest

from corten.control.autoscale import FIRST_START_S
from corten.control.memory import Memory
from corten.control.records import ReplicaRecord
from corten.control.resting import Resting, start_s
from corten.core.deployment import Replica, ReplicaState, Settings
from corten.core.digest import Digest
from corten.core.rest import Rest
from corten.core.traffic import Traffic

REST = Rest(freeze_after_s=10.0, stop_after_s=30.0, keep_previous_s=100.0)


class Bench:
    def __init__(self, state):
        self.state, self.now_s, self.held, self.scarce = state, 100.0, 0, False
        self.at_jobs = False
        self.free, self.told = 1000, 0
        self.memory = Memory(held=lambda _: 600, available=lambda: self.free, total=lambda: 1000)
        self.resting = Resting(state, self.memory, lambda: self.now_s, self.changed, lambda _: self.held, self.working)
        self.settings = Settings(replicas=0, most_replicas=2, rest=REST)
        state.deploy("m", Digest.of(b"1"), self.settings, generation=None, now_s=1.0)
        state.add_replica(Replica("a", "m", 1, ReplicaState.STARTING, "/a", 0, 1.0, 1.0), replaces=None, now_s=1.0)
        state.locate("a", "/a", 7)
        state.move("a", ReplicaState.READY, now_s=2.0)
        state.routed("a", now_s=2.0)
        state.finish_rollout("m", now_s=2.0)

    def changed(self):
        self.told += 1

    async def working(self, name):
        return name == "m" and self.at_jobs

    def look(self, answered, after_s, *, in_flight=0):
        self.now_s += after_s
        asyncio.run(self.resting.look({"m": Traffic(answered, in_flight=in_flight)}))
        one = self.state.deployment("m")
        return one.replicas, one.resting


@pytest.fixture
def bench(make_state):
    return Bench(make_state())


def test_it_is_frozen_then_stopped_and_woken_by_who_waits(bench):
    assert bench.look(5, 0) == (1, 0)
    assert bench.look(5, 9) == (1, 0)
    assert bench.look(5, 2) == (0, 1)
    assert bench.look(5, 10) == (0, 1)
    assert bench.look(5, 10) == (0, 0)
    bench.held = 1
    bench.resting.wake("m")
    assert bench.state.deployment("m").replicas == 1
    assert bench.state.events("m")[-1].message == "0 to 1 replicas: a request waits"
    bench.held = 0
    assert bench.look(5, 5) == (1, 0)


def test_answers_and_requests_in_hand_keep_it_awake(bench):
    for answered in range(5):
        assert bench.look(answered, 9) == (1, 0)
    for _ in range(5):
        assert bench.look(5, 20, in_flight=1) == (1, 0)


def test_without_a_gateway_to_ask_nobody_goes_to_rest_but_everybody_wakes(bench):
    bench.now_s += 1000
    asyncio.run(bench.resting.look(None))
    assert bench.state.deployment("m").replicas == 1
    bench.state.scale("m", 0, "by hand", now_s=bench.now_s, data={}, resting=1)
    bench.held = 1
    asyncio.run(bench.resting.look(None))
    assert bench.state.deployment("m").replicas == 1


def test_a_job_nobody_waits_for_keeps_it_awake(bench):
    bench.look(5, 0)
    bench.at_jobs = True
    assert bench.look(5, 50) == (1, 0)
    bench.at_jobs = False
    assert bench.look(5, 9) == (1, 0)
    assert bench.look(5, 2) == (0, 1)


def test_a_rollout_is_no_idle_time(bench):
    bench.look(5, 0)
    bench.state.deploy("m", Digest.of(b"2"), bench.settings, generation=None, now_s=bench.now_s)
    assert bench.look(5, 50) == (1, 0)
    bench.state.finish_rollout("m", now_s=bench.now_s)
    assert bench.look(5, 5) == (1, 0)


def test_the_revision_before_is_kept_for_its_time_only(bench, monkeypatch):
    bench.state.deploy("m", Digest.of(b"2"), bench.settings, generation=None, now_s=bench.now_s)
    bench.look(5, 500)
    assert bench.state.deployment("m").fallback == 1
    bench.state.finish_rollout("m", now_s=bench.now_s)
    bench.look(6, 99)
    assert bench.state.deployment("m").fallback == 1
    bench.look(7, 2)
    assert bench.state.deployment("m").fallback is None
    bench.state.roll_back("m", 1, generation=None, now_s=bench.now_s)
    bench.state.finish_rollout("m", now_s=bench.now_s)
    assert bench.state.deployment("m").fallback == 2
    monkeypatch.setattr(Memory, "left_bytes", lambda *_: -1)
    bench.look(8, 1)
    assert bench.state.deployment("m").fallback is None
    assert "memory is short" in bench.state.events("m")[-1].message


def test_who_needs_memory_gets_it_from_the_longest_unasked_and_never_from_those_in_use(bench):
    bench.look(5, 0)
    assert asyncio.run(bench.resting.evict("", "x")) == ""
    bench.at_jobs = True
    bench.look(5, 5)
    assert asyncio.run(bench.resting.evict("", "x")) == ""
    bench.at_jobs = False
    assert asyncio.run(bench.resting.evict("m", "x")) == ""
    assert asyncio.run(bench.resting.evict("", "`n` needs its memory")) == "m"
    assert bench.state.deployment("m").replicas == 0
    assert bench.state.events("m")[-1].message == "1 to 0 replicas: `n` needs its memory"
    assert asyncio.run(bench.resting.evict("", "x")) == ""


def test_the_frozen_give_way_to_who_needs_their_memory(bench):
    bench.look(5, 0)
    bench.look(5, 11)
    assert asyncio.run(bench.resting.evict("", "`n` needs its memory")) == "m"
    assert bench.look(5, 1) == (0, 0)


def test_whoever_acts_is_told_of_every_change_and_of_nothing_else(bench):
    told = []
    for after_s in (0, 9, 2, 10, 10):  # awake, awake, frozen, frozen, stopped
        bench.look(5, after_s)
        told.append(bench.told)
    assert told == [0, 0, 1, 1, 2]
    bench.held = 1
    bench.resting.wake("m")
    bench.resting.wake("m")
    assert bench.told == 3
    bench.held = 0
    bench.look(5, 9)
    assert asyncio.run(bench.resting.evict("", "x")) == "m"
    assert bench.told == 4
    bench.state.deploy("m", Digest.of(b"2"), bench.settings, generation=None, now_s=bench.now_s)
    bench.state.finish_rollout("m", now_s=bench.now_s)
    before = bench.told
    bench.look(6, 101)
    assert bench.state.deployment("m").fallback is None
    assert bench.told > before


def test_nobody_wakes_what_is_awake_or_goes_or_was_never_there(bench):
    bench.held = 1
    bench.resting.wake("nobody")
    bench.resting.wake("m")
    bench.state.scale("m", 0, "by hand", now_s=bench.now_s, data={})
    bench.state.delete("m", now_s=bench.now_s)
    bench.resting.wake("m")
    assert (bench.told, bench.state.deployment("m").replicas) == (0, 0)


def test_what_a_replica_takes_is_remembered_when_it_is_gone(bench):
    bench.look(5, 0)
    bench.free = 699
    assert bench.memory.lacks("m", ())
    bench.free = 700
    assert not bench.memory.lacks("m", ())


def test_nobody_gives_way_while_nothing_is_lacking(bench):
    bench.state.deploy("m", Digest.of(b"2"), bench.settings, generation=None, now_s=bench.now_s)
    bench.state.finish_rollout("m", now_s=bench.now_s)
    bench.free = 100  # the tenth that is for everything else
    bench.look(6, 1)
    assert bench.state.deployment("m").fallback == 1
    bench.free = 99
    bench.look(7, 1)
    assert bench.state.deployment("m").fallback is None


@pytest.mark.parametrize(
    ("took_s", "told_s"),
    [((), FIRST_START_S), ((2.0,), 2.0), ((3.0, 1.0), 3.0), (range(1, 11), 10.0), (range(1, 21), 19.0)],
)
def test_a_start_takes_as_long_as_nine_of_ten_did(took_s, told_s):
    started = Replica("a", "m", 1, ReplicaState.READY, "/a", 0, 5.0, 5.0)
    never = ReplicaRecord(started)
    assert start_s([never, *(ReplicaRecord(started, ready_s=5.0 + each) for each in took_s)]) == told_s
