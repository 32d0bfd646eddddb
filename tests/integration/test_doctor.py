"""Of doctor: each check tells what it found and how to mend it, whatever the machine is like."""

import socket
from pathlib import Path

import pytest

from corten.core.home import Home
from corten.ops.doctor import Outcome, doctor


def checks(tmp_path, **options):
    env = options.pop("env", {})
    return {check.name: check for check in doctor(home=Home(tmp_path), env=env, offline=True, **options)}


def test_every_check_that_is_not_well_says_how_to_mend_it(tmp_path):
    for check in checks(tmp_path, env={"CORTEN_SANDBOX": "none", "CORTEN_ENVOY": "/nowhere"}).values():
        assert check.found
        if check.outcome in (Outcome.WARNING, Outcome.FAILED):
            assert check.hint, check


def test_a_sandbox_that_was_switched_off_is_a_warning_and_not_a_failure(tmp_path):
    sandbox = checks(tmp_path, env={"CORTEN_SANDBOX": "none"})["sandbox"]
    assert sandbox.outcome is Outcome.WARNING
    assert sandbox.found.startswith("none")
    assert sandbox.hint == "unset CORTEN_SANDBOX"


def test_an_envoy_that_is_not_there_is_a_failure(tmp_path):
    gateway = checks(tmp_path, env={"CORTEN_ENVOY": str(tmp_path / "no-envoy")})["gateway"]
    assert gateway.outcome is Outcome.FAILED
    assert "no-envoy" in gateway.found


def test_a_taken_port_is_named_with_the_option_that_avoids_it(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = checks(tmp_path, port=taken.getsockname()[1])["port"]
    assert port.outcome is Outcome.WARNING
    assert "--port" in port.hint


def test_a_home_that_cannot_be_written_is_a_failure(tmp_path):
    (tmp_path / "file").write_text("")
    home = checks(tmp_path / "file" / "home")["home"]
    assert home.outcome is Outcome.FAILED
    assert "CORTEN_HOME" in home.hint


@pytest.mark.parametrize("name", ["python", "platform", "uv", "disk"])
def test_what_this_machine_has_is_found(tmp_path, name):
    assert checks(tmp_path)[name].outcome in (Outcome.OK, Outcome.WARNING)
    assert Path(tmp_path).exists()
