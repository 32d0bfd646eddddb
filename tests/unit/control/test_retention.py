"""Images the control plane needs: the newest revisions, what serves or is wanted, what runs."""

from __future__ import annotations

import sqlite3

import pytest

from corten.control.retention import images_in_use, secrets_in_use, users_of_images
from corten.control.state import State
from corten.core.deployment import Replica, ReplicaState, Settings
from corten.core.digest import Digest
from corten.core.home import Home
from corten.errors import CortenError


@pytest.fixture
def home(tmp_path):
    (tmp_path / "state").mkdir()
    return Home(tmp_path)


@pytest.fixture
def state(home):
    opened = State.open(home.state / "corten.db")
    yield opened
    opened.close()


def image(number: int) -> Digest:
    return Digest(f"{number:064x}")


def deploy(state, *numbers: int, name: str = "m") -> None:
    for number in numbers:
        state.deploy(name, image(number), Settings(), generation=None, now_s=float(number))
        state.finish_rollout(name, now_s=float(number))


def test_where_nothing_was_ever_deployed_nothing_is_needed(home) -> None:
    assert images_in_use(home, 3) == frozenset()


def test_the_newest_revisions_of_each_deployment_are_needed(home, state) -> None:
    deploy(state, 1, 2, 3)
    deploy(state, 7, name="other")
    assert images_in_use(home, 2) == {image(2), image(3), image(7)}


def test_what_serves_is_needed_however_old_it_is(home, state) -> None:
    deploy(state, 1, 2, 3)
    state.roll_back("m", 1, generation=None, now_s=4.0)
    state.finish_rollout("m", now_s=5.0)
    assert images_in_use(home, 1) == {image(1), image(3)}


def test_a_deployment_uses_what_it_serves_and_not_what_it_could_go_back_to(home, state) -> None:
    assert users_of_images(home) == frozenset()
    deploy(state, 1, 2)
    deploy(state, 2, name="other")
    assert users_of_images(home) == {(image(2), "m"), (image(2), "other")}
    state.deploy("m", image(3), Settings(), generation=None, now_s=3.0)
    assert users_of_images(home) == {(image(2), "m"), (image(3), "m"), (image(2), "other")}


def test_a_rollout_under_way_needs_where_it_comes_from(home, state) -> None:
    deploy(state, 1, 2)
    state.deploy("m", image(3), Settings(), generation=None, now_s=3.0)
    assert images_in_use(home, 1) == {image(2), image(3)}


def test_a_replica_that_still_ends_needs_its_image(home, state) -> None:
    deploy(state, 1, 2, 3)
    state.add_replica(Replica("m-r1-a", "m", 1, ReplicaState.STOPPING, "", 0, 1.0, 1.0), replaces=None, now_s=1.0)
    assert images_in_use(home, 1) == {image(1), image(3)}
    state.move("m-r1-a", ReplicaState.EXITED, now_s=2.0)
    assert images_in_use(home, 1) == {image(3)}, "of an ended one only the log is left"


def test_a_state_that_cannot_be_read_is_no_empty_state(home) -> None:
    (home.state / "corten.db").write_bytes(b"no database" * 1000)
    with pytest.raises(CortenError) as caught:
        images_in_use(home, 3)
    assert caught.value.code.startswith("state.")


def test_a_state_without_tables_yet_needs_nothing(home) -> None:
    sqlite3.connect(home.state / "corten.db").close()
    assert images_in_use(home, 3) == frozenset()


def test_secrets_are_needed_as_long_as_the_images_they_go_with(home, state) -> None:
    for number in (1, 2, 3):
        settings = Settings(secret_ids={"KEY": f"id{number}"} if number < 3 else {})
        state.deploy("m", image(number), settings, generation=None, now_s=float(number))
        state.finish_rollout("m", now_s=float(number))
    assert secrets_in_use(home, 1) == frozenset()
    assert secrets_in_use(home, 2) == {"id2"}
    assert secrets_in_use(home, 3) == state.secret_ids() == {"id1", "id2"}
