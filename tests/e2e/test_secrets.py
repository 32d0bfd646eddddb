"""Secrets: the model reads them, and nothing else on the machine has them but the daemon's own store."""

import hashlib
import json
import os
import secrets
import signal
import subprocess
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

import pytest
from stories import CORTEN, Load, ask, predict_at, until

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network]

MODEL = """
import hashlib, os, pathlib

class Keeper:
    def __init__(self):
        self.digest = hashlib.sha256(pathlib.Path(os.environ["TOKEN_FILE"]).read_bytes()).hexdigest()

    def predict(self, x: float) -> str:
        return self.digest
"""
# Besides the secret's digest: what its file is to whoever runs there.
TELLS = """
import hashlib, os, pathlib, stat

class Teller:
    def predict(self, x: float) -> dict:
        path = pathlib.Path(os.environ["TOKEN_FILE"])
        seen = path.stat()
        mounts = [line.split() for line in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
        writable = True
        try:
            path.open("ab").close()
        except OSError:
            writable = False
        return {
            "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
            "path": str(path),
            "on": max((mount for mount in mounts if str(path).startswith(mount[1])), key=lambda mount: len(mount[1]))[2],
            "others": stat.S_IMODE(seen.st_mode) & 0o077,
            "ours": seen.st_uid == os.getuid(),
            "writable": writable,
        }
"""
RULE = "secrets are files in memory, readable by it alone"


@pytest.fixture
def corten(own):
    return own


def test_a_secret_is_the_models_alone(corten, engine, port, tmp_path):
    values = [f"canary-{secrets.token_hex(12)}" for _ in range(2)]
    answers = [hashlib.sha256(value.encode()).hexdigest() for value in values]
    path, file = tmp_path / "keeper.py", tmp_path / "token"
    path.write_text(MODEL)
    file.write_text(values[0])
    words = (f"{path}:Keeper", "--name", "keeper", "--replicas", "2", "--secret", f"TOKEN={file}")
    first = corten.up(*words, "--port", port, "--engine", engine.name)
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


def test_one_run_in_the_foreground_has_its_secret_in_memory_and_nowhere_else(corten, engine, tmp_path):
    value = f"canary-{secrets.token_hex(12)}"
    path, file = tmp_path / "teller.py", tmp_path / "token"
    path.write_text(TELLS)
    corten.run("build", f"{path}:Teller", "--name", "teller")
    file.write_text(value)
    env = {**os.environ, **corten.env, "CORTEN_HOME": str(corten.home), "NO_COLOR": "1"}
    command = [CORTEN, "run", "teller", "--engine", engine.name, "--secret", f"TOKEN={file}"]
    needles = [value.encode(), b64encode(value.encode())]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        said = []
        try:
            until(lambda: said.append(running.stdout.readline()) or '"ready"' in said[-1], "it is ready")
            file.unlink()
            (address,) = (corten.home / "run").glob("one-*/run/*/s")
            told = json.loads(predict_at(address, {"x": 1.0}).partition(b"\r\n\r\n")[2])["outputs"]
            assert told == {
                "digest": hashlib.sha256(value.encode()).hexdigest(),
                "path": "/run/secrets/TOKEN",
                "on": "tmpfs",
                "others": 0,
                "ours": True,
                "writable": False,
            }
            assert not holding(needles, described_by(engine), *of_processes())
            for folder in (corten.home, *engine.folders()):
                assert found_on_disk(needles, folder) == set()
        finally:
            running.send_signal(signal.SIGINT)  # as Ctrl-C
            out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert not holding(needles, "".join(said).encode(), out.encode(), err.encode())
    for folder in (corten.home, Path("/dev/shm")):
        assert found_on_disk(needles, folder) == set()


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
    """Everything a container engine says about its containers and images."""
    ids = engine.containers()
    assert bool(ids) == (engine.name != "embedded")
    if not ids:
        return b""
    inspected = engine.ask("inspect", *ids)
    assert b"TOKEN_FILE=/run/secrets/TOKEN" in inspected
    return inspected + engine.ask("image", "inspect", *engine.images())


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
