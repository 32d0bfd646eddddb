"""The folder jobs are kept in."""

from __future__ import annotations

import pytest

from corten.serve.later_store import LaterStore, Record, Status


@pytest.fixture
def folder(tmp_path):
    stores = []

    def open_store(**bounds):
        stores.append(LaterStore(tmp_path, **{"most": 10, "most_bytes": 1000, "keep_s": 60.0, **bounds}))
        return stores[-1]

    yield open_store
    for store in stores:
        store.close()


def record(store, id_="a", ended_s=None, body=None):
    found = Record(id_, "digest", store.owner, "replica", 100.0)
    assert store.create(found)
    if ended_s is not None:
        found.status, found.ended_s = Status.SUCCEEDED, ended_s
        store.update(found, body)
    return found


@pytest.mark.parametrize("id_", ["a", "..", ".", "-", "a" * 128, "~x.job", ".hidden"])
def test_a_job_comes_back_as_it_was_written(id_, folder, tmp_path):
    store = folder()
    made = record(store, id_, 101.0, b"answer")
    assert (store.read(id_), store.body(id_)) == (made, b"answer")
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*"))
    store.remove(id_)
    assert (store.read(id_), store.body(id_)) == (None, None)


def test_an_id_is_claimed_once(folder):
    one, other = folder(), folder()
    record(one)
    assert not other.create(Record("a", "other", other.owner, "", 1.0))
    assert other.read("a").owner == one.owner


def test_what_is_not_over_is_lost_with_its_owner(folder, tmp_path):
    one, other = LaterStore(tmp_path, most=1, most_bytes=1, keep_s=1.0), folder()
    made = record(one)
    assert not other.is_lost(made)
    one.close()
    assert other.is_lost(made)


def test_cancelling_is_asked_by_anybody(folder):
    one, other = folder(), folder()
    record(one)
    assert not one.is_to_cancel("a")
    other.ask_to_cancel("a")
    assert one.is_to_cancel("a")


def test_the_oldest_go_first_beyond_each_bound(folder):
    store = folder(most=3, most_bytes=250)
    for number in range(5):
        record(store, f"j{number}", 100.0 + number, b"x" * 100)
    record(store, "running")
    store.sweep(now_s=110.0)
    assert [id_ for id_ in ("j0", "j1", "j2", "j3", "j4", "running") if store.read(id_)] == ["j3", "j4", "running"]
    store.sweep(now_s=163.5)
    assert [id_ for id_ in ("j3", "j4", "running") if store.read(id_)] == ["j4", "running"]


def test_what_the_dead_leave_is_swept(folder, tmp_path):
    dead = LaterStore(tmp_path, most=1, most_bytes=1, keep_s=1.0)
    record(dead)
    owner = dead.owner
    dead.close()
    (tmp_path / f"{owner}.owner").touch()  # as after a kill -9
    living = folder()
    living.sweep(now_s=1e9)
    assert living.read("a") is None
    assert [path.name for path in tmp_path.iterdir()] == [f"{living.owner}.owner"]
