"""Secrets: the model reads them, and nothing else on the machine has them but the daemon's own store."""

import hashlib
import json
import os
import secrets
import subprocess
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

import pytest
from engines import end_podmans_service
from stories import Corten, Load, ask, end, make_home

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network]

MODEL = """
import hashlib, os, pathlib

class Keeper:
    def __init__(self):
        self.digest = hashlib.sha256(pathlib.Path(os.environ["TOKEN_FILE"]).read_bytes()).hexdigest()

    def predict(self, x: float) -> str:
        return self.digest
"""
RULE = "secrets are files in memory, readable by it alone"


@pytest.fixture(
    params=[
        pytest.param("embedded", marks=pytest.mark.bwrap),
        pytest.param("podman", marks=pytest.mark.podman),
    ]
)
def engine(request):
    env = {} if request.param == "embedded" else request.getfixturevalue(request.param)
    return request.param, dict(env)


@pytest.fixture
def corten(warm_home, engine):
    """A home of its own, for a home has one engine; what others have fetched already is there."""
    corten = Corten(make_home(), env=engine[1])
    (warm_home.home / "cache").mkdir(exist_ok=True)
    (corten.home / "cache").symlink_to(warm_home.home / "cache")
    yield corten
    corten.run("stop", "--all", code=None)
    if engine[0] == "podman":
        end_podmans_service(corten.env)
    end(corten)


def test_a_secret_is_the_models_alone(corten, engine, port, tmp_path):
    values = [f"canary-{secrets.token_hex(12)}" for _ in range(2)]
    answers = [hashlib.sha256(value.encode()).hexdigest() for value in values]
    path, file = tmp_path / "keeper.py", tmp_path / "token"
    path.write_text(MODEL)
    file.write_text(values[0])
    words = (f"{path}:Keeper", "--name", "keeper", "--replicas", "2", "--secret", f"TOKEN={file}")
    first = corten.up(*words, "--port", port, "--engine", engine[0])
    url = first["url"]
    assert ask(url, {"x": 1.0}) == (200, {"outputs": answers[0]})
    # The same value is no change; another one is a revision, like any other.
    assert corten.up(*words)["revision"] == "r1"
    file.write_text(values[1])
    with Load(url, {"x": 1.0}) as load:
        assert corten.up(*words)["revision"] == "r2"
    assert load.report["failed"] == 0, load.report
    assert ask(url, {"x": 1.0}) == (200, {"outputs": answers[1]})
    file.unlink()

    told = [corten.run(*verb).out for verb in (["status", "--json"], ["why", "keeper"], ["logs", "keeper"])]
    assert json.loads(told[0])["deployments"][0]["replicas"][0]["secrets"] == ["TOKEN"]
    rules = [
        one for one in corten.run("doctor", "--security", "--json", code=None).json["findings"] if one["rule"] == RULE
    ]
    assert {one["verdict"] for one in rules} == {"pass"}, rules
    assert len(rules) >= 2
    needles = [needle for value in values for needle in (value.encode(), b64encode(value.encode()))]
    assert not holding(needles, "".join(told).encode(), described_by(engine))
    assert found_on_disk(needles, corten.home) == {"state/secrets"}
    assert not holding(needles, *of_processes())

    assert corten.run("rollback", "keeper", "--json").json["revision"] == "r1"
    assert ask(url, {"x": 1.0}) == (200, {"outputs": answers[0]})
    corten.run("stop", "keeper")
    assert found_on_disk(needles, corten.home) == set()
    assert found_on_disk(needles, Path("/dev/shm")) == set()


def test_a_secret_nobody_can_use_is_refused_before_anything_is_built(corten, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "keeper.py").write_text(MODEL)
    for given, code in (
        (f"TOKEN={tmp_path / 'nowhere'}", "secret.unreadable"),
        (f"TOKEN={tmp_path / 'empty'}", "secret.bad_value"),
        ("TOKEN=/dev/zero", "secret.bad_value"),
        (f"CORTEN_X={tmp_path / 'keeper.py'}", "secret.bad_name"),
    ):
        done = corten.run("up", f"{tmp_path / 'keeper.py'}:Keeper", "--secret", given, code=2)
        assert code in done.err
    assert not (corten.home / "store").exists()


def holding(needles, *texts):
    return [text[:200] for text in texts for needle in needles if needle in text]


def described_by(engine):
    """Everything podman says about its containers and images."""
    if engine[0] != "podman":
        return b""
    env = {**os.environ, **engine[1]}

    def podman(*words):
        return subprocess.run(["podman", *words], env=env, capture_output=True, check=True).stdout

    ids = podman("ps", "--quiet").decode().split()
    assert len(ids) == 2
    inspected = podman("inspect", *ids)
    assert b"TOKEN_FILE=/run/secrets/TOKEN" in inspected
    return inspected + podman("image", "inspect", *podman("images", "--quiet").decode().split())


def of_processes():
    """Command lines and environments of everything that runs here."""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                yield (process / name).read_bytes()


def found_on_disk(needles, folder):
    """The folders below this one with files that hold any of it, following no links."""
    found = set()
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file() and not path.is_symlink() and holding(needles, path.read_bytes()):
                found.add(str(path.parent.relative_to(folder)))
    return found
