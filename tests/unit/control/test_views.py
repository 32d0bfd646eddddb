"""What people are told of a deployment."""

import pytest

from corten.control.actions import Seen
from corten.control.records import ReplicaRecord
from corten.control.views import deployment_view
from corten.core.deployment import Replica, ReplicaState, Settings
from corten.core.digest import Digest
from corten.core.rest import Rest


@pytest.fixture
def asleep(make_state):
    """The second revision of a deployment nobody asks, with no replica awake."""
    state = make_state()
    settings = Settings(replicas=0, most_replicas=2, rest=Rest(freeze_after_s=10.0))
    for image in (b"1", b"2"):
        state.deploy("m", Digest.of(image), settings, generation=None, now_s=1.0)
        state.finish_rollout("m", now_s=2.0)
    state.scale("m", 0, "no request", now_s=3.0, data={})
    return state.deployment("m")


@pytest.mark.parametrize(("revision", "told"), [(1, "stopped"), (2, "frozen")])
def test_a_frozen_one_of_the_revision_before_does_not_make_it_frozen(asleep, revision, told):
    seen = [Seen("a", revision, ReplicaState.FROZEN, running=True, since_s=3.0, frozen=True)]
    assert deployment_view(asleep, (), seen, image="").state == told


@pytest.fixture
def serving(make_state):
    """A deployment of one replica."""
    state = make_state()
    state.deploy("m", Digest.of(b"1"), Settings(replicas=1), generation=None, now_s=1.0)
    state.finish_rollout("m", now_s=2.0)
    return state.deployment("m")


def ended(name, reason, *, at_s, restarts):
    replica = Replica(name, "m", 1, ReplicaState.EXITED, "", 0, 1.0, at_s, reason, restarts)
    return ReplicaRecord(replica, settled=True)


def test_why_a_crash_loop_goes_round_is_told_while_the_next_one_starts(serving):
    records = [
        ended("before", "exit code 3", at_s=5.0, restarts=2),
        ended("dead", "exit code 4", at_s=9.0, restarts=3),
        ended("another", "one replica less is wanted", at_s=9.5, restarts=0),
    ]
    seen = [Seen("next", 1, ReplicaState.STARTING, running=True, since_s=10.0, restarts=4)]
    view = deployment_view(serving, records, seen, image="")
    assert (view.state, view.reason) == (
        "crash-looping",
        "exit code 4; waits up to 4 s between restarts, `corten logs m` has its last words",
    )
