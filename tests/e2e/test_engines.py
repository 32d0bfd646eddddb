"""One story on every engine: the same commands, the same words, no failed request, nothing left behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from stories import CORTEN, Load, ask, predict_at, processes_of, until

from corten.engine.devices import gpus_here

pytestmark = [pytest.mark.load, pytest.mark.envoy, pytest.mark.network]

MODEL = """
class Echo:
    def predict(self, x: float) -> float:
        return {answer}
"""
STORY = [
    ("up", "r1", 100),
    ("redeploy", "r2", 100),
    ("canary", "r3", 100),
    ("kill", "r3", 2),
    ("rollback", "r2", 100),
    ("stop", "", 0),
]


@pytest.fixture
def corten(own):
    return own


def test_a_deployment_lives_the_same_life_on_every_engine(corten, engine, port, tmp_path, capsys):
    path = tmp_path / "echo.py"

    def echo(answer):
        path.write_text(MODEL.format(answer=answer))
        return f"{path}:Echo"

    told = []
    first = corten.up(echo("x * 2"), "--name", "echo", "--port", port, "--engine", engine.name, "--replicas", "2")
    told.append(("up", first["revision"], first["share"]))
    url = first["url"]
    assert corten.run("status", "--json").json["engine"]["sandbox"].startswith(engine.sandbox)
    assert ask(url, {"x": 2.0}) == (200, {"outputs": 4.0})
    assert [(one["memory_bytes"] > 4 << 20, one["cpu_s"] > 0) for one in corten.deployment("echo")["replicas"]] == [
        (True, True),
        (True, True),
    ]
    goes_in(corten)
    with Load(url, {"x": 1.0}) as load:
        done = corten.up(echo("x * 3"), "--name", "echo", "--replicas", "2")
        told.append(("redeploy", done["revision"], done["share"]))
        done = corten.up(echo("x * 4"), "--name", "echo", "--replicas", "2", "--canary", "50", "--wait")
        told.append(("canary", done["revision"], done["share"]))
        # One of the revision before may be there, frozen.
        victim = next(one for one in corten.deployment("echo")["replicas"] if one["state"] == "ready")
        os.kill(victim["pid"], signal.SIGKILL)
        until(lambda: len(ready(corten) - {victim["id"]}) == 2, "another replica takes its place")
        told.append(("kill", corten.deployment("echo")["revision"], len(ready(corten))))
        assert ask(url, {"x": 2.0}) == (200, {"outputs": 8.0})
        back = corten.run("rollback", "echo", "--json").json
        told.append(("rollback", back["revision"], back["share"]))
    assert load.report["failed"] == 0, load.report
    assert ask(url, {"x": 2.0}) == (200, {"outputs": 6.0})
    corten.run("stop", "--all")
    told.append(("stop", "", len(engine.containers())))
    assert told == STORY
    runs_in_the_foreground(corten, engine)
    left = leftovers(corten.home, engine)
    with capsys.disabled():
        print(
            f"\n  {engine.name:9} {load.report['ok']} answered, {load.report['failed']} failed; left behind: {left or 'nothing'}"
        )
    assert left == []


@pytest.mark.skipif(bool(gpus_here()), reason="takes a machine without NVIDIA's GPUs")
@pytest.mark.parametrize("asked", [("--gpus", "1"), ("--device", "corten.test/gpu=none")], ids=["gpu", "device"])
def test_a_device_that_is_not_there_is_told_before_anything_is_built_or_loaded(corten, engine, port, tmp_path, asked):
    path = tmp_path / "echo.py"
    path.write_text(MODEL.format(answer="x"))
    loaded = engine.images()
    told = corten.run("up", f"{path}:Echo", "--port", port, "--engine", engine.name, *asked, "--json", code=5).json
    assert (told["error"]["code"], bool(told["error"]["hint"])) == ("engine.no_device", True)
    assert corten.run("images", "--json").json["images"] == []
    assert corten.run("status", "--json").json["deployments"] == []
    corten.run("build", f"{path}:Echo")
    for verb in ("deploy", "run"):
        told = corten.run(verb, "echo", "--engine", engine.name, *asked, "--json", code=5).json
        assert told["error"]["code"] == "engine.no_device"
    assert corten.run("status", "--json").json["deployments"] == []
    assert engine.images() == loaded
    assert not (corten.home / "trees" / "layers").exists()


def goes_in(corten):
    """Into a replica with the image's own Python, and beside it with this machine's shell."""
    code = "import os; print(os.getuid(), os.getppid(), os.environ['CORTEN_DEPLOYMENT']); open('/app/x', 'w')"
    done = corten.run("exec", "echo", "--", "python3", "-c", code, code=1)
    assert done.out.startswith("65532 0 echo")
    assert "Read-only file system" in done.err
    debug = ["sh", "-c", f'echo "ls /proc/1/root/app; exit 7" | {CORTEN} shell echo --debug']
    env = {**os.environ, **corten.env, "CORTEN_HOME": str(corten.home), "SHELL": "/bin/sh"}
    done = subprocess.run(debug, env=env, capture_output=True, text=True)
    assert (done.returncode, "corten.json" in done.stdout) == (7, True), done.stderr


def runs_in_the_foreground(corten, engine):
    """One replica without daemon, until Ctrl-C."""
    env = {**os.environ, **corten.env, "CORTEN_HOME": str(corten.home), "NO_COLOR": "1"}
    command = [CORTEN, "run", "echo", "--engine", engine.name]
    running = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: '"message":"ready"' in running.stdout.readline(), "it is ready", deadline_s=60)
        (address,) = (corten.home / "run").glob("one-*/run/*/s")
        assert b"outputs" in predict_at(address, {"x": 2.0})
    finally:
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert (running.returncode, str(address) in err) == (130, True), err


def ready(corten):
    return {one["id"] for one in corten.deployment("echo")["replicas"] if one["state"] == "ready"}


def holds_users(process):
    """Whether it is the one by which podman keeps a user's namespace: one a user, for all his containers of later."""
    return os.geteuid() != 0 and process[1].split() == ["/usr/bin/podman"]


def leftovers(home, engine):
    """What still runs, is mounted or listens; podman's service ends by itself, when nobody has asked for ten seconds."""
    deadline_s = time.monotonic() + 40
    while (running := [one for one in processes_of(home) if not holds_users(one)]) and time.monotonic() < deadline_s:
        time.sleep(0.2)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines() if str(home) in line]
    # Envoy leaves the name of its sockets behind; nobody listens there.
    sockets = [path for path in (home / "run").iterdir() if path.is_socket() and not path.name.startswith("envoy")]
    return [
        *running,
        *engine.containers(),
        *mounts,
        *sockets,
        *(home / "replicas").iterdir(),
        *(home / "run").glob("*e-*"),
    ]
