"""Replicas in the state: whose end is made good."""

import pytest
from state_changes import deploy

from corten.core.deployment import Replica, ReplicaState
from corten.errors import CortenError


def test_a_replica_that_dies_while_draining_needs_no_replacement(make_state):
    state = make_state()
    deploy(state)
    for key, through in (("m-r1-a", ReplicaState.DRAINING), ("m-r1-b", ReplicaState.READY)):
        state.add_replica(Replica(key, "m", 1, ReplicaState.STARTING, "", 0, 1.0, 1.0), replaces=None, now_s=1.0)
        state.move(key, through, now_s=2.0)
        state.move(key, ReplicaState.EXITED, now_s=3.0, reason="exit code 1")
    assert [one.settled for one in state.replicas("m")] == [True, False]


def test_a_replacement_settles_the_death_it_makes_good(make_state):
    state = make_state()
    deploy(state)
    state.add_replica(Replica("m-r1-a", "m", 1, ReplicaState.STARTING, "", 0, 1.0, 1.0), replaces=None, now_s=1.0)
    state.move("m-r1-a", ReplicaState.EXITED, now_s=2.0)
    state.add_replica(
        Replica("m-r1-b", "m", 1, ReplicaState.STARTING, "", 0, 1.0, 1.0, restarts=1), replaces="m-r1-a", now_s=3.0
    )
    assert state.replicas("m")[0].settled


def test_who_is_awake_again_has_left_the_reason_of_its_rest_behind(make_state):
    state = make_state()
    deploy(state)
    state.add_replica(Replica("m-r1-a", "m", 1, ReplicaState.STARTING, "", 0, 1.0, 1.0), replaces=None, now_s=1.0)
    for to, reason in ((ReplicaState.DRAINING, "fewer replicas are wanted"), (ReplicaState.FROZEN, "")):
        state.move("m-r1-a", to, now_s=2.0, reason=reason)
    assert state.replicas("m")[0].replica.reason == "fewer replicas are wanted"
    state.move("m-r1-a", ReplicaState.READY, now_s=3.0)
    assert state.replicas("m")[0].replica.reason == ""


def test_a_transaction_that_fails_in_the_middle_leaves_nothing(make_state):
    state = make_state()
    deploy(state)
    before = state.events("m")
    with pytest.raises(CortenError):
        state.add_replica(Replica("x", "nobody", 1, ReplicaState.STARTING, "", 0, 1.0, 1.0), replaces=None, now_s=1.0)
    assert state.replicas() == ()
    assert state.events("m") == before
