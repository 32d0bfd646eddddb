import os

import pytest

from corten.engine.folders import make_passable, make_private, passable
from corten.errors import EngineError

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root lets others through")


@pytest.mark.parametrize(("mode", "expected"), [(0o755, True), (0o711, True), (0o700, False), (0o750, False)])
def test_others_pass_when_the_mode_says_so(tmp_path, monkeypatch, mode, expected):
    from corten.engine import folders

    folder = tmp_path / "folder"
    folder.mkdir()
    folder.chmod(mode)
    assert folders._passable(folder.stat()) is expected


def test_one_closed_folder_on_the_way_is_enough_to_stop(tmp_path):
    inner = tmp_path / "closed" / "inner"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    assert not passable(inner)


@root_only
def test_the_group_of_replicas_is_let_through_and_nobody_else(tmp_path):
    make_passable(tmp_path / "run")
    found = (tmp_path / "run").stat()
    assert (found.st_mode & 0o777, found.st_gid) == (0o710, 65532)


def test_an_open_folder_stays_as_it_is(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    make_passable(folder)
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_link_or_somebody_elses_folder_is_not_used(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(EngineError) as raised:
        make_passable(tmp_path / "link")
    assert raised.value.code == "engine.foreign_folder"


@root_only
def test_a_folder_of_another_user_is_not_used(tmp_path):
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 1234, 1234)
    with pytest.raises(EngineError):
        make_passable(tmp_path / "theirs")


def test_a_private_folder_is_its_owners(tmp_path):
    make_private(tmp_path / "replicas")
    assert (tmp_path / "replicas").stat().st_mode & 0o777 == 0o700
