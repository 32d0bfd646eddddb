import os

import pytest

from corten.core.digest import Digest
from corten.core.home import Home
from corten.engine.embedded import Embedded, Sandbox
from corten.errors import NotFoundError, UsageError


def test_asking_what_isolation_there_is_makes_no_folder(tmp_path):
    home = Home(tmp_path / "home")
    Embedded(home, sandbox=Sandbox.NONE).describe()
    assert not home.root.exists()


def test_listing_and_ending_in_an_empty_home_makes_no_folder(tmp_path):
    home = Home(tmp_path / "home")
    engine = Embedded(home, sandbox=Sandbox.NONE)
    assert engine.list() == []
    engine.remove("a-r1-x")
    assert engine.logs("a-r1-x") == []
    assert not home.root.exists()


@pytest.mark.parametrize(("text", "expected"), [("", "auto"), ("none", "none"), ("bwrap", "bwrap")])
def test_the_environment_chooses_the_sandbox(tmp_path, text, expected):
    engine = Embedded.from_env(Home(tmp_path), {"CORTEN_SANDBOX": text})
    assert engine._sandbox is Sandbox(expected)


def test_an_unknown_sandbox_is_refused(tmp_path):
    with pytest.raises(UsageError) as raised:
        Embedded.from_env(Home(tmp_path), {"CORTEN_SANDBOX": "docker"})
    assert "auto, bwrap, none" in raised.value.why


def test_an_unknown_image_is_not_found_and_makes_no_folder(tmp_path):
    home = Home(tmp_path / "home")
    with pytest.raises(NotFoundError):
        Embedded(home, sandbox=Sandbox.NONE).prepare(Digest("0" * 64))
    assert not home.root.exists()
    assert not home.run.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a choice of users")
def test_replicas_become_nobody_only_where_nobody_can_reach_them(tmp_path):
    tmp_path.chmod(0o700)
    closed = Embedded(Home(tmp_path / "home"), sandbox=Sandbox.NONE)
    assert closed.describe()["user"] == "your own"
