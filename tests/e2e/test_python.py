"""Another Python than the model's own: Debian's release that has it, from its signed index to an answer."""

import json
import shutil

import pytest
from stories import ask

pytestmark = [pytest.mark.network, pytest.mark.examples]
WHO = """\
import platform
import ssl
import sys
from pathlib import Path


class Who:
    def predict(self, what: str) -> list[str]:
        system = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
        return [platform.python_version(), platform.libc_ver()[1], system["VERSION_ID"].strip('"'), sys.executable]
"""


@pytest.fixture
def project(folder, digits_model):
    def write(python, source="model.joblib"):
        shutil.copyfile(digits_model["paths"][0], folder / "model.joblib")
        (folder / "who.py").write_text(WHO)
        (folder / "corten.toml").write_text(f'name = "asked"\nsource = "{source}"\npython = "{python}"\n')
        return folder

    return write


@pytest.mark.envoy
@pytest.mark.bwrap
def test_the_release_with_the_python_asked_for_is_what_answers(corten, project, port):
    folder = project("3.13", "who.py:Who")
    corten.run("build", folder, "--test")
    lock = json.loads((folder / "corten.lock").read_text())["locks"][0]
    assert (lock["release"], lock["python"]) == ("trixie", "3.13")
    assert "python3.13-minimal" in [deb["name"] for deb in lock["debs"]]
    tags = {wheel["filename"].split("-")[-2] for wheel in lock["wheels"]}
    assert tags <= {"cp313", "abi3", "none"}
    url = corten.up(folder, "--locked", "--port", port)["url"]
    status, answer = ask(url, {"what": ""})
    assert status == 200
    version, *seen, program = answer["outputs"]
    assert version.startswith("3.13.")
    assert (seen, program) == (["2.41", "13"], "/usr/bin/python3")


@pytest.mark.bwrap
def test_a_model_of_another_python_answers_on_trixie_as_it_was_trained(corten, project):
    folder = project("3.13")
    built = corten.run("build", folder, "--test", "--json").json
    assert built["gate"]["replay"] in ("recorded", "answered")
    assert corten.run("rebuild", "asked", "--verify", "--offline").out.startswith("the same: ")


def test_a_python_no_release_has_is_refused_with_those_there_are(corten, project):
    error = corten.run("build", project("3.12"), "--json", code=2).json["error"]
    assert error["code"] == "build.no_python"
    assert "3.11 (bookworm), 3.13 (trixie)" in error["why"]
    assert "base = " in error["hint"]


def test_a_frozen_lock_is_taken_as_it_is_and_a_locked_one_has_to_fit(corten, project):
    folder = project("3.11")
    before = corten.run("build", folder, "--json").json["digest"]
    settings = (folder / "corten.toml").read_text()
    lock = (folder / "corten.lock").read_bytes()
    (folder / "corten.toml").write_text(settings.replace("3.11", "3.13") + 'requirements = ["idna"]\n')
    assert corten.run("build", folder, "--locked", "--json", code=2).json["error"]["code"] == "build.lock_outdated"
    assert corten.run("build", folder, "--frozen", "--json").json["digest"] == before
    assert (folder / "corten.lock").read_bytes() == lock
    assert corten.run("build", folder, "--frozen", "--upgrade", "--json", code=2).json["error"]["code"] == "cli.usage"
    (folder / "corten.lock").unlink()
    error = corten.run("build", folder, "--frozen", "--json", code=2).json["error"]
    assert (error["code"], error["what"]) == ("build.lock_outdated", "there is no lock")
