"""The state: what is accepted, what is refused, what survives."""

import threading

import pytest
from state_changes import IMAGE, OTHER, deploy, serving

from corten.control.state import State
from corten.core.access import Access, Auth
from corten.core.canary import Canary
from corten.core.deployment import RolloutState, Settings
from corten.core.digest import Digest
from corten.errors import CortenError, NotFoundError


def test_a_deploy_makes_a_revision_and_a_rollout(make_state):
    state = make_state()
    accepted = deploy(state, replicas=3, env={"A": "b"})
    found = state.deployment("m")
    assert (accepted.revision, accepted.generation, accepted.changed) == (1, 1, True)
    assert found.wanted.image == IMAGE
    assert found.wanted.settings == Settings(replicas=3, env={"A": "b"})
    assert found.serving is None
    assert found.rollout.state is RolloutState.PROGRESSING
    assert found.replicas == 3


def test_the_same_again_changes_nothing(make_state):
    state = make_state()
    first = serving(state, IMAGE)
    again = deploy(state)
    assert not again.changed
    assert (again.revision, again.generation) == (first.revision, first.generation)


def test_another_number_of_replicas_scales_without_a_revision(make_state):
    state = make_state()
    serving(state, IMAGE)
    scaled = deploy(state, replicas=5)
    assert (scaled.revision, scaled.changed) == (1, True)
    assert state.deployment("m").replicas == 5
    assert state.deployment("m").rollout.state is RolloutState.DONE


@pytest.mark.parametrize("settings", [{"env": {"A": "1"}}, {"egress": True}, {"drain_s": 1.0}])
def test_other_settings_make_a_revision(make_state, settings):
    state = make_state()
    serving(state, IMAGE)
    assert deploy(state, **settings).revision == 2


def test_a_change_made_for_an_older_generation_is_refused(make_state):
    state = make_state()
    deploy(state, generation=0)
    with pytest.raises(CortenError) as caught:
        deploy(state, OTHER, generation=0)
    assert caught.value.code == "control.conflict"
    assert state.deployment("m").wanted.image == IMAGE
    deploy(state, OTHER, generation=1)
    assert state.deployment("m").wanted.image == OTHER


def test_of_two_operators_at_once_exactly_one_wins(make_state, tmp_path):
    State.open(tmp_path / "s.db").close()
    outcomes = []

    opening, together = threading.Lock(), threading.Barrier(2)

    def operator(image):
        with opening:
            state = State.open(tmp_path / "s.db")
        together.wait(timeout=10)
        try:
            outcomes.append(deploy(state, image, generation=0).revision)
        except CortenError as error:
            outcomes.append(error.code)
        finally:
            state.close()

    threads = [threading.Thread(target=operator, args=(image,)) for image in (IMAGE, OTHER)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, outcomes)) == ["1", "control.conflict"]


def test_a_restart_is_a_new_revision_of_the_same(make_state):
    state = make_state()
    serving(state, IMAGE, env={"A": "1"}, canary=Canary((5,), judged=True))
    accepted = state.restart("m", generation=None, now_s=5.0)
    assert accepted.changed
    one = state.deployment("m")
    assert (one.wanted.number, one.serving.number) == (2, 1)
    assert (one.wanted.image, one.wanted.settings.env) == (IMAGE, {"A": "1"})
    assert one.canary is None


def test_what_is_being_stopped_is_not_restarted(make_state):
    state = make_state()
    serving(state, IMAGE)
    state.delete("m", now_s=5.0)
    with pytest.raises(NotFoundError):
        state.restart("m", generation=None, now_s=6.0)
    with pytest.raises(NotFoundError):
        state.restart("unknown", generation=None, now_s=6.0)


def test_a_stopped_deployment_can_be_wanted_again_before_it_is_gone(make_state):
    state = make_state()
    serving(state, IMAGE)
    state.delete("m", now_s=3.0)
    assert state.deployment("m").wanted is None
    deploy(state, IMAGE)
    assert not state.deployment("m").deleting
    assert state.deployment("m").wanted.number == 2


def test_an_acknowledged_change_survives_without_closing(tmp_path):
    state = State.open(tmp_path / "s.db")
    deploy(state)
    # As a kill -9 leaves it: the write-ahead log is not merged, no connection was closed.
    copied = tmp_path / "copy.db"
    for suffix in ("", "-wal"):
        copied.with_name(copied.name + suffix).write_bytes((tmp_path / f"s.db{suffix}").read_bytes())
    again = State.open(copied)
    assert again.deployment("m").wanted.image == IMAGE
    again.close()
    state.close()


def test_where_the_requests_decide_a_deploy_keeps_what_they_had_decided(make_state):
    state = make_state()
    serving(state, IMAGE, replicas=1, most_replicas=4)
    state.scale("m", 3, "12 requests at a time", now_s=5.0, data={"load": 12})
    before = state.deployment("m")
    assert (before.replicas, before.scale.least, before.scale.most) == (3, 1, 4)
    again = deploy(state, replicas=1, most_replicas=4)
    assert not again.changed
    assert state.deployment("m").replicas == 3
    deploy(state, OTHER, replicas=1, most_replicas=2)
    assert state.deployment("m").replicas == 2
    state.fail_rollout("m", "broken", now_s=6.0)
    assert state.deployment("m").replicas == 3


def test_other_bounds_make_no_revision(make_state):
    state = make_state()
    serving(state, IMAGE, replicas=1, most_replicas=4)
    wider = deploy(state, replicas=2, most_replicas=8, concurrency=3)
    assert (wider.changed, wider.revision) == (True, 1)
    found = state.deployment("m")
    assert (found.replicas, found.scale.least, found.scale.most, found.scale.concurrency) == (2, 2, 8, 3)
    fixed = deploy(state, replicas=3)
    assert fixed.changed
    assert state.deployment("m").scale is None


def test_a_decision_of_the_scaler_is_told_with_its_figures_and_is_no_change_of_the_users(make_state):
    state = make_state()
    serving(state, IMAGE, replicas=1, most_replicas=4)
    generation = state.deployment("m").generation
    state.scale("m", 2, "5 requests at a time", now_s=5.0, data={"load": 5.0})
    assert state.deployment("m").generation == generation
    line = state.events("m")[-1]
    assert (line.step, line.data) == ("scale", {"was": 1, "load": 5.0})
    assert "5 requests at a time" in line.message


def test_a_fixed_number_is_not_scaled(make_state):
    state = make_state()
    serving(state, IMAGE, replicas=2)
    state.scale("m", 4, "many requests", now_s=5.0, data={})
    assert state.deployment("m").replicas == 2


def test_how_a_revision_gets_its_requests_makes_no_revision(make_state):
    state = make_state()
    deploy(state)
    state.finish_rollout("m", now_s=2.0)
    assert not deploy(state, canary=Canary((5,))).changed


def test_settings_are_kept_and_replaced(make_state):
    state = make_state()
    assert state.setting("port") == ""
    state.set_setting("port", "1")
    state.set_setting("port", "2")
    assert state.setting("port") == "2"


def test_a_full_disk_is_said_and_what_was_there_stays_usable(make_state):
    state = make_state()
    serving(state, IMAGE)
    pages = state._one("PRAGMA page_count")[0]
    state._connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill():
        for number in range(1000):
            deploy(state, Digest.of(str(number).encode()), env={"A": "x" * 2000})

    with pytest.raises(CortenError) as caught:
        fill()
    assert caught.value.code == "state.disk_full"
    assert "df " in caught.value.hint
    found = state.deployment("m")
    state._connection.execute("PRAGMA max_page_count = 100000")
    assert deploy(state, OTHER, generation=found.generation).revision > found.wanted.number


def test_who_may_ask_is_the_deployments_whatever_revision_serves(make_state):
    state = make_state()
    state.deploy("m", IMAGE, Settings(auth="token", rate_per_s=5), generation=None, now_s=1.0)
    guarded = Access(Auth.TOKEN, 5)
    assert state.deployment("m").access == guarded
    # Another image without a word of tokens does not open the door.
    state.deploy("m", OTHER, Settings(rate_per_s=5), generation=None, now_s=2.0)
    assert state.deployment("m").access == guarded
    # A change of it alone makes no revision.
    accepted = state.deploy("m", OTHER, Settings(auth="none", burst=9, rate_per_s=3), generation=None, now_s=3.0)
    assert (accepted.changed, accepted.revision) == (True, 2)
    assert state.deployment("m").access == Access(Auth.NONE, 3, 9)
    assert [each.message for each in state.events("m") if each.step == "access"] == [
        "whoever has a token may ask, 5 requests a second",
        "everybody may ask, 3 requests a second",
    ]
    # Nor does an earlier revision.
    state.deploy("m", OTHER, Settings(auth="token"), generation=None, now_s=4.0)
    state.roll_back("m", 1, generation=None, now_s=5.0)
    assert state.deployment("m").access == Access(Auth.TOKEN)
