"""How many replicas the requests take."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.control.autoscale import HOLD_S, TICK_S, Bounds, Direction, Fleet, Memory, Sample, decide

BOUNDS = Bounds(least=1, most=16, concurrency=4)
SERVICE_S = 0.2


class Load:
    """A deployment whose requests are all answered at once: each second of it is looked at as the daemon would."""

    def __init__(self, bounds=BOUNDS, start_s=5.0):
        self.bounds, self.start_s = bounds, start_s
        self.memory = Memory()
        self.samples = []
        self.now_s, self.answered, self.have = 1000.0, 0.0, bounds.least
        self.decisions = []

    def run(self, seconds, rate, *, waiting=0):
        for _ in range(int(seconds / TICK_S)):
            self.now_s += TICK_S
            self.answered += rate * TICK_S
            busy = int(rate * SERVICE_S) + waiting
            count = int(self.answered)
            self.samples = [*self.samples[-62:], Sample(self.now_s, count, busy, count * SERVICE_S, count)]
            found = decide(self.samples, Fleet(self.have, self.have, self.start_s), self.bounds, self.memory)
            self.memory, self.have = found.memory, found.replicas
            self.decisions.append(found)
        return self.have


def test_a_steady_load_gets_the_replicas_it_takes_at_seven_tenths():
    assert Load().run(60, 40) == 3  # 8 at a time, 2.8 a replica
    assert Load().run(60, 1) == 1


def test_a_step_is_answered_within_a_second():
    load = Load()
    load.run(60, 5)
    assert load.have == 1
    load.run(1, 100)
    assert load.have > 1


def test_a_jump_is_a_doubling_or_four_at_most():
    load = Load()
    load.run(40, 2)
    before = load.have
    for _ in range(8):
        load.run(TICK_S, 300)
        assert load.have <= max(2 * before, before + 4)
        before = load.have


def test_what_was_needed_lately_is_kept_and_then_given_back_a_quarter_at_a_time():
    load = Load()
    load.run(60, 150)
    peak = load.have
    assert peak >= 11
    load.run(HOLD_S - 40, 1)
    assert load.have == peak
    sizes = [load.run(TICK_S, 1) for _ in range(int(200 / TICK_S))]
    assert sizes[-1] == 1
    drops = [before - after for before, after in pairwise(sizes) if after < before]
    assert max(drops) <= max(1, peak // 4)


def test_what_is_needed_no_longer_is_given_back_a_quarter_at_a_time_though_all_of_it_at_once():
    idle = [Sample(at, 100, 0) for at in (1000.0, 1000.5)]
    found = decide(idle, Fleet(16, 16), BOUNDS, Memory(service_s=0.1))
    assert (found.replicas, found.direction) == (12, Direction.DOWN)


def test_who_has_what_is_needed_lacks_nothing():
    load = Load(replace(BOUNDS, room=0, least=3))
    load.run(10, 40)
    assert {each.reason for each in load.decisions} == {""}


def test_a_backlog_alone_is_no_load():
    """Many requests wait, few come: enough replicas to work it off, not one for each request that waits."""
    load = Load()
    load.run(40, 5)
    load.run(2, 5, waiting=30)
    assert 1 < load.have <= 4


def test_chance_is_not_taken_for_a_rise():
    load = Load()
    load.run(60, 13)
    load.run(1, 16)  # of one replica that would be too much, if it were the load
    assert load.have == 1


def test_without_memory_there_is_no_other_replica_and_it_says_so():
    load = Load(replace(BOUNDS, room=0))
    load.run(60, 100)
    assert load.have == 1
    assert "no memory" in load.decisions[-1].reason


def test_busy_processors_get_no_other_replica_and_it_says_so():
    load = Load(replace(BOUNDS, host_busy=0.95))
    load.run(60, 100)
    assert load.have == 1
    assert "would not help" in load.decisions[-1].reason


def test_new_bounds_hold_at_once():
    found = decide([Sample(1.0, 0, 0)], Fleet(8, 8), replace(BOUNDS, most=4), Memory())
    assert (found.replicas, found.direction) == (4, Direction.DOWN)
    found = decide([Sample(1.0, 0, 0)], Fleet(1, 1), replace(BOUNDS, least=3), Memory())
    assert (found.replicas, found.direction) == (3, Direction.UP)


def test_nothing_shrinks_while_replicas_are_on_their_way_or_requests_wait():
    samples = [Sample(at, 0, 0) for at in (1.0, 2.0)]
    assert decide(samples, Fleet(8, 5), BOUNDS, Memory()).direction is Direction.STAY
    waiting = [Sample(1.0, 0, 0), Sample(2.0, 0, 99)]
    assert decide(waiting, Fleet(8, 8), BOUNDS, Memory(service_s=0.1)).direction is not Direction.DOWN


def test_a_service_time_measured_while_requests_wait_is_not_believed():
    memory = Memory(service_s=0.1)
    samples = [Sample(1.0, 100, 50, 10.0, 100), Sample(1.5, 110, 50, 60.0, 110)]
    assert decide(samples, Fleet(1, 1), BOUNDS, memory).memory.service_s == 0.1
    calm = [replace(each, in_flight=1) for each in samples]
    assert decide(calm, Fleet(1, 1), BOUNDS, memory).memory.service_s > 0.1


samples_of = st.lists(
    st.tuples(st.floats(0.1, 2.0), st.integers(0, 500), st.integers(0, 500), st.floats(0, 100)), min_size=1, max_size=30
)


@given(
    steps=samples_of,
    fleet=st.builds(Fleet, st.integers(1, 20), st.integers(0, 20), st.floats(0, 60)),
    bounds=st.builds(
        lambda least, more, room, busy: Bounds(least, least + more, 4, room, busy),
        *(st.integers(1, 5), st.integers(0, 10), st.integers(0, 5), st.floats(0, 1)),
    ),
)
def test_whatever_was_counted_the_bounds_hold(steps, fleet, bounds):
    have, least, most = fleet.have, bounds.least, bounds.most
    now_s, answered, busy_s, samples = 0.0, 0, 0.0, []
    for passed_s, count, in_flight, seconds in steps:
        now_s, answered, busy_s = now_s + passed_s, answered + count, busy_s + seconds
        samples.append(Sample(now_s, answered, in_flight, busy_s, answered))
    found = decide(samples, replace(fleet, ready=min(fleet.ready, have)), bounds, Memory())
    assert least <= found.replicas <= most
    if least <= have <= most:
        assert found.replicas <= have + bounds.room
        assert found.replicas <= max(2 * have, have + 4)
        assert have - found.replicas <= max(1, have // 4)
    assert found.direction is not Direction.UP or found.replicas > have


@pytest.mark.parametrize("rate", [0, 3, 20, 60])
def test_a_steady_load_leads_to_no_change_once_settled(rate):
    load = Load()
    load.run(400, rate)
    settled = load.have
    sizes = {load.run(TICK_S, rate) for _ in range(400)}
    assert sizes == {settled}
