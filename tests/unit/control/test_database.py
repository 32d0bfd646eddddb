"""Opening the state's file: what is refused, what survives."""

import os
import sqlite3

import pytest

from corten.control.database import MIGRATIONS, backup_of, open_database
from corten.control.state import State
from corten.core.events import Event, Phase
from corten.errors import CortenError


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
