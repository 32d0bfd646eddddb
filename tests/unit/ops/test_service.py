from pathlib import Path

import pytest

from corten.core.home import Home
from corten.errors import CortenError, EngineError
from corten.ops import service
from corten.ops.service import Service

HOME = Home(Path("/srv/corten"))


@pytest.mark.parametrize(
    ("env", "uid", "user", "file"),
    [
        ({}, 0, False, "/etc/systemd/system/corten.service"),
        ({"HOME": "/root"}, 0, True, "/root/.config/systemd/user/corten.service"),
        ({"HOME": "/home/ada"}, 1000, False, "/home/ada/.config/systemd/user/corten.service"),
        ({"HOME": "/home/ada", "XDG_CONFIG_HOME": "/c"}, 1000, False, "/c/systemd/user/corten.service"),
        ({"CORTEN_HOME": "/srv/my models"}, 0, False, "/etc/systemd/system/corten-srv-my_models.service"),
    ],
)
def test_each_home_has_a_unit_where_systemd_looks(env, uid, user, file):
    found = Service.of(Home.from_env(env, uid=uid), env, uid=uid, user=user)
    assert str(found.file) == file
    assert found.system is file.startswith("/etc")


def test_what_means_something_to_systemd_is_escaped():
    env = {"CORTEN_ENVOY": '/a b/50% "$x"\\y', "HOME": "/home/ada", "SECRET": "not carried"}
    unit = Service.of(HOME, env, uid=1000).unit(HOME, env, python="/opt/my python")
    assert r'Environment="CORTEN_ENVOY=/a b/50%% \"$$x\"\\y"' in unit
    assert '"/opt/my python" "-m" "corten.control.daemon" "--home" "/srv/corten" --service yes' in unit
    assert "SECRET" not in unit
    assert "WantedBy=default.target" in unit


def test_a_line_break_cannot_smuggle_a_setting_in():
    with pytest.raises(CortenError):
        Service.of(HOME, {}, uid=0).unit(HOME, {"CORTEN_ENVOY": "x\nUser=root"})
    home = Home(Path("/srv/a\nUser=root"))
    with pytest.raises(CortenError):
        Service.of(home, {}, uid=0).unit(home, {})


def test_without_systemd_it_says_what_to_run_instead(monkeypatch, tmp_path):
    monkeypatch.setattr("corten.ops.service.shutil.which", lambda name: None)
    with pytest.raises(EngineError) as caught:
        service.install(home=Home(tmp_path), env={"HOME": str(tmp_path)}, user=True)
    assert caught.value.code == "service.no_systemd"
    assert "--service yes" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
