"""Whether a replica fits, from what replicas were seen to take."""

import pytest

from corten.control.memory import Memory
from corten.control.records import ReplicaRecord
from corten.core.deployment import Replica, ReplicaState
from corten.errors import UsageError

SIZES = {1: 40, 2: 30, 3: 5}  # bytes by process


@pytest.fixture
def memory():
    return Memory(100, held=SIZES.__getitem__, available=lambda: 1000, total=lambda: 1000)


def record(pid, deployment="a", state=ReplicaState.READY):
    return ReplicaRecord(Replica(f"{deployment}-{pid}", deployment, 1, state, "", pid, 0.0, 0.0), 0.0)


def test_while_nobody_knows_what_one_takes_it_fits(memory):
    assert not memory.lacks("a", [])
    assert memory.takes_another("a", [record(1)])


def test_one_more_fits_while_the_budget_lasts(memory):
    both = [record(1), record(2, "b")]
    memory.learn(both)
    assert memory.left_bytes(both) == 30
    assert memory.lacks("a", both)
    assert not memory.lacks("b", both)


def test_one_that_loads_will_take_what_the_one_before_took(memory):
    memory.learn([record(1)])
    loading = [record(3, "a", ReplicaState.STARTING)]
    assert memory.left_bytes(loading) == 60


def test_there_is_room_for_as_many_as_the_rest_holds_and_for_one_while_nobody_knows(memory):
    assert memory.room("a", []) == 1
    memory.learn([record(2)])
    assert memory.room("a", [record(2)]) == 2
    assert memory.room("a", [record(2), record(1, "b")]) == 1
    assert memory.room("a", [record(2), record(1, "b"), record(2, "c")]) == 0


def test_what_is_frozen_would_give_way(memory):
    both = [record(1), record(2, "b", ReplicaState.FROZEN)]
    memory.learn(both)
    assert memory.lacks("a", both)
    assert memory.takes_another("a", both)


def test_what_is_remembered_outlives_the_replica(memory):
    memory.learn([record(1)])
    memory.learn([])
    assert memory.lacks("a", [record(1, "b"), record(2, "c")])


def test_the_budget_is_a_number_of_mb():
    assert Memory.from_env({"CORTEN_MEMORY_MB": "64"}).budget_bytes == 64_000_000
    assert Memory.from_env({}).budget_bytes == 0
    for text in ("0", "-1", "8g", "²"):
        with pytest.raises(UsageError) as caught:
            Memory.from_env({"CORTEN_MEMORY_MB": text})
        assert caught.value.code == "control.bad_memory"
