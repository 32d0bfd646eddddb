"""What people are told of a deployment."""

import pytest

from corten.control.actions import Seen
from corten.control.views import deployment_view
from corten.core.deployment import ReplicaState, Settings
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
