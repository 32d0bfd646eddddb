"""The state: what is accepted, what is refused, what survives."""

import os
import sqlite3
import threading

import pytest

from corten.control.database import MIGRATIONS, backup_of, open_database
from corten.control.state import State
from corten.core.access import Access, Auth
from corten.core.canary import Canary
from corten.core.deployment import Replica, ReplicaState, RolloutState, Settings
from corten.core.digest import Digest
from corten.core.events import Event, Phase
from corten.core.traffic import Traffic
from corten.errors import CortenError, NotFoundError

IMAGE, OTHER = Digest.of(b"one"), Digest.of(b"other")


def deploy(state, image=IMAGE, generation=None, now_s=1.0, **settings):
    return state.deploy("m", image, Settings(**settings), generation=generation, now_s=now_s)


def serving(state, image, now_s=1.0, **settings):
    accepted = deploy(state, image, now_s=now_s, **settings)
    state.finish_rollout("m", now_s=now_s + 1)
    return accepted


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


def test_a_stopped_deployment_can_be_wanted_again_before_it_is_gone(make_state):
    state = make_state()
    serving(state, IMAGE)
    state.delete("m", now_s=3.0)
    assert state.deployment("m").wanted is None
    deploy(state, IMAGE)
    assert not state.deployment("m").deleting
    assert state.deployment("m").wanted.number == 2


def test_forgetting_leaves_the_journal(make_state):
    state = make_state()
    serving(state, IMAGE)
    state.delete("m", now_s=3.0)
    state.forget("m", now_s=4.0)
    assert state.find("m") is None
    assert state.events("m")[-1].message == "stopped"


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


def test_a_transaction_that_fails_in_the_middle_leaves_nothing(make_state):
    state = make_state()
    deploy(state)
    before = state.events("m")
    with pytest.raises(CortenError):
        state.add_replica(Replica("x", "nobody", 1, ReplicaState.STARTING, "", 0, 1.0, 1.0), replaces=None, now_s=1.0)
    assert state.replicas() == ()
    assert state.events("m") == before


@pytest.mark.parametrize("damage", ["header", "middle", "truncated", "not a database"])
def test_a_damaged_file_is_refused_with_the_command_that_mends_it(tmp_path, damage):
    path = tmp_path / "s.db"
    state = State.open(path)
    for number in range(200):
        state.journal("m", Event("step", Phase.NOTE, "x" * 300 + str(number)), now_s=1.0)
    state.close()
    State.open(path).close()  # the second opening keeps a copy
    data = bytearray(path.read_bytes())
    match damage:
        case "header":
            data[0:64] = os.urandom(64)
        case "middle":
            for page in range(1, len(data) // 4096):
                data[page * 4096 : page * 4096 + 64] = b"\xff" * 64
        case "truncated":
            del data[5000:]
        case _:
            data[:] = b"not a database at all, but some text\n" * 400
    path.write_bytes(data)
    with pytest.raises(CortenError) as caught:
        State.open(path)
    assert caught.value.code == "state.corrupt"
    assert str(backup_of(path)) in caught.value.hint
    path.write_bytes(backup_of(path).read_bytes())
    again = State.open(path)
    assert len(again.events("m")) == 200
    again.close()


def test_a_file_of_a_newer_version_is_refused_and_untouched(tmp_path):
    path = tmp_path / "s.db"
    State.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    with pytest.raises(CortenError) as caught:
        State.open(path)
    assert caught.value.code == "state.too_new"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CortenError) as caught:
        State.open(tmp_path / "file" / "s.db")
    assert caught.value.code == "state.unusable"
    assert "s.db" in caught.value.where


def test_only_the_owner_may_read_the_file(tmp_path):
    State.open(tmp_path / "s.db").close()
    assert (tmp_path / "s.db").stat().st_mode & 0o077 == 0


def test_a_migration_killed_in_the_middle_leaves_the_version_before(tmp_path, monkeypatch):
    path = tmp_path / "s.db"
    State.open(path).close()
    broken = (*MIGRATIONS, "CREATE TABLE extra (x TEXT) STRICT; SELECT nonsense;")
    monkeypatch.setattr("corten.control.database.MIGRATIONS", broken)
    with pytest.raises(CortenError):
        State.open(path)
    monkeypatch.undo()
    connection = open_database(path)
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    assert "extra" not in tables
    connection.close()


def test_a_file_of_the_first_version_keeps_its_rollouts(tmp_path, monkeypatch):
    path = tmp_path / "s.db"
    monkeypatch.setattr("corten.control.database.MIGRATIONS", MIGRATIONS[:1])
    connection = open_database(path)
    connection.executescript(
        "INSERT INTO deployments (name, generation, replicas, created_s) VALUES ('m', 1, 2, 0);"
        "INSERT INTO rollouts (deployment, target, origin_replicas, state, started_s) VALUES ('m', 1, 2, 'done', 5);"
    )
    connection.close()
    monkeypatch.undo()
    state = State.open(path)
    rollout = state.deployment("m").rollout
    assert (rollout.target, rollout.share, rollout.steps, rollout.judged, rollout.counted) == (1, 100, (), False, None)
    state.close()


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


def test_the_journal_is_read_from_where_one_left_off(make_state):
    state = make_state()
    for number in range(5):
        state.journal("m", Event("step", Phase.NOTE, str(number), {"n": number}), now_s=1.0)
    first = state.events("m", limit=2)
    rest = state.events("m", after=first[-1].seq)
    assert [entry.message for entry in rest] == ["2", "3", "4"]
    assert rest[0].data == {"n": 2}


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
