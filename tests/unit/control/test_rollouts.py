"""Rollouts in the state: how they grow, fail, are overtaken and undone."""

import pytest
from state_changes import IMAGE, OTHER, deploy, serving

from corten.core.canary import Canary
from corten.core.deployment import RolloutState
from corten.core.digest import Digest
from corten.core.traffic import Traffic
from corten.errors import NotFoundError


def test_a_failed_rollout_wants_what_served_before(make_state):
    state = make_state()
    serving(state, IMAGE, replicas=2)
    deploy(state, OTHER, replicas=4)
    state.fail_rollout("m", "it died", now_s=9.0)
    found = state.deployment("m")
    assert found.wanted.number == found.serving.number == 1
    assert found.replicas == 2
    assert found.rollout.state is RolloutState.FAILED
    assert found.rollout.reason == "it died"


def test_a_failure_after_an_overtaken_rollout_restores_the_number_that_served(make_state):
    state = make_state()
    serving(state, IMAGE, replicas=2)
    deploy(state, OTHER, replicas=4)
    deploy(state, Digest.of(b"third"), replicas=5)
    state.fail_rollout("m", "it died", now_s=9.0)
    assert state.deployment("m").replicas == 2


def test_an_overtaken_rollout_says_by_what(make_state):
    state = make_state()
    deploy(state)
    deploy(state, OTHER)
    rows = state._all("SELECT state, reason FROM rollouts ORDER BY id")
    assert [tuple(row) for row in rows] == [("failed", "superseded by r2"), ("progressing", "")]


def test_rollback_goes_to_the_one_that_served_before_and_back_again(make_state):
    state = make_state()
    serving(state, IMAGE)
    serving(state, OTHER)
    assert state.roll_back("m", None, generation=None, now_s=5.0).revision == 1
    state.finish_rollout("m", now_s=6.0)
    assert state.roll_back("m", None, generation=None, now_s=7.0).revision == 2


def test_rollback_during_a_rollout_goes_to_what_serves(make_state):
    state = make_state()
    serving(state, IMAGE)
    deploy(state, OTHER)
    assert state.roll_back("m", None, generation=None, now_s=5.0).revision == 1


def test_rollback_to_a_revision_that_never_was_names_those_that_were(make_state):
    state = make_state()
    serving(state, IMAGE)
    with pytest.raises(NotFoundError) as caught:
        state.roll_back("m", 7, generation=None, now_s=5.0)
    assert caught.value.code == "control.unknown_revision"
    assert "r1" in caught.value.why


def test_the_first_revision_has_nothing_to_go_back_to(make_state):
    state = make_state()
    serving(state, IMAGE)
    with pytest.raises(NotFoundError) as caught:
        state.roll_back("m", None, generation=None, now_s=5.0)
    assert caught.value.code == "control.no_earlier_revision"


def test_a_canary_grows_by_its_steps_and_counts_anew_at_each(make_state):
    state = make_state()
    deploy(state)
    state.finish_rollout("m", now_s=2.0)
    deploy(state, OTHER, canary=Canary((5, 50), judged=True))
    assert (state.deployment("m").rollout.share, state.deployment("m").rollout.steps) == (5, (50,))
    counted = {1: Traffic(7, 1, 0, 6, ((0.1, 5),)), 2: Traffic()}
    state.count_from("m", counted)
    assert state.deployment("m").rollout.counted == counted
    state.grow("m", "it did well", now_s=3.0, data={})
    grown = state.deployment("m").rollout
    assert (grown.share, grown.steps, grown.judged, grown.counted) == (50, (), True, None)
    state.grow("m", "it did well", now_s=4.0, data={})
    assert state.deployment("m").rollout.share == 100
    assert state.deployment("m").canary is None
    state.grow("m", "nothing to grow", now_s=5.0, data={})
    assert state.deployment("m").rollout.share == 100


def test_a_share_the_user_chose_is_judged_no_more(make_state):
    state = make_state()
    deploy(state)
    state.finish_rollout("m", now_s=2.0)
    deploy(state, OTHER, canary=Canary((5, 50), judged=True))
    state.promote("m", 20, generation=None, now_s=3.0)
    rollout = state.deployment("m").rollout
    assert (rollout.share, rollout.steps, rollout.judged) == (20, (), False)


def test_there_is_nothing_to_promote_without_a_canary(make_state):
    state = make_state()
    with pytest.raises(NotFoundError, match="no deployment"):
        state.promote("m", 100, generation=None, now_s=1.0)
    deploy(state)
    with pytest.raises(NotFoundError) as caught:
        state.promote("m", 100, generation=None, now_s=1.0)
    assert caught.value.code == "control.no_canary"
