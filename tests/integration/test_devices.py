"""Devices for replicas: what CDI describes reaches those that asked for it, on podman and on Docker, and nobody else.

No GPU is needed: a description may lay any device in, here /dev/null under another name.
"""

import json
import os
import time
from pathlib import Path

import pytest
from engines import dockerd

from corten.core.resources import Resources
from corten.core.security import Verdict, of_replica
from corten.engine.base import ReplicaSpec
from corten.engine.cdi import CDI_FOLDERS
from corten.engine.connecting import connecting
from corten.engine.containers import Docker, Podman
from corten.engine.devices import gpus_here
from corten.engine.docker_api import DockerApi
from corten.engine.embedded import Embedded
from corten.errors import EngineError
from corten.ops.security import replica_seen

TELL = """
import json, os, pathlib, stat, time
found = [name for name in os.listdir("/dev") if "fakegpu" in name]
written = [os.write(os.open(f"/dev/{name}", os.O_WRONLY), b"x") for name in found]
env = {name: text for name, text in os.environ.items() if name in ("FAKE_GPU", "NVIDIA_VISIBLE_DEVICES")}
print(json.dumps({"found": found, "written": written, "env": env}), flush=True)
pathlib.Path(os.environ["CORTEN_LISTEN"].removeprefix("unix:")).touch()
time.sleep(600)
"""
# What NVIDIA's toolkit puts on a machine for Docker: told of a container, it lays the driver in. This one writes down that it was.
HOOK = """#!/bin/sh
cat >> {log}
"""


@pytest.fixture(scope="module")
def described():
    """GPUs 0 and 1 of two vendors, as the Container Device Interface describes them."""
    if os.geteuid() or gpus_here():
        pytest.skip("takes root, to describe devices, and a machine without NVIDIA's")
    paths = []
    CDI_FOLDERS[1].mkdir(exist_ok=True)
    for vendor in ("nvidia.com", "corten.test"):
        devices = [
            {
                "name": str(number),
                "containerEdits": {
                    "deviceNodes": [{"path": f"/dev/fakegpu{number}", "type": "c", "major": 1, "minor": 3}],
                    "env": [f"FAKE_GPU={number}"],
                },
            }
            for number in range(2)
        ]
        paths.append(CDI_FOLDERS[1] / f"{vendor}-corten-test-{os.getpid()}.json")
        # Before 0.5.0 no name may begin with a digit, as podman 5 and Docker 26 see to.
        paths[-1].write_text(json.dumps({"cdiVersion": "0.5.0", "kind": f"{vendor}/gpu", "devices": devices}))
    yield
    for path in paths:
        path.unlink()


@pytest.fixture
def on_podman(home, podman):
    """podman on a machine with two GPUs."""
    connect = connecting(Podman.kind, home, {**os.environ, **podman})
    yield from cleared(Podman(home, DockerApi(connect), gpus=lambda: (0, 1)))


def cleared(engine):
    yield engine
    for one in engine.list():
        engine.remove(one.id)


@pytest.fixture(scope="module")
def digest(tiny):
    return tiny.build(["/usr/bin/python3", "-c", TELL], code={"corten.json": "{}"})


def told(engine, spec):
    started = engine.start(spec)
    deadline_s = time.monotonic() + 30
    # The engine may have its line a moment after its socket is there.
    while not (Path(started.address).exists() and (lines := engine.logs(spec.id))):
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    return started, json.loads(lines[-1])


def with_devices(number, digest, **resources):
    return ReplicaSpec(f"a-r1-{number}", "a", 1, digest, resources=Resources(**resources), secrets={"KEY": b"value"})


@pytest.mark.podman
def test_a_device_reaches_the_replica_that_asked_for_it_and_nothing_else_is_looser(described, on_podman, digest):
    spec = with_devices(1, digest, devices=("corten.test/gpu=1",), memory_bytes=256 << 20, cpus=1.5)
    started, seen = told(on_podman, spec)
    assert seen == {"found": ["fakegpu1"], "written": [1], "env": {"FAKE_GPU": "1"}}
    found = list(of_replica(replica_seen(spec.id, started.pid, egress=False, given=("KEY",))))
    assert [one for one in found if one.verdict is not Verdict.PASS] == []
    host = on_podman._api.inspect(on_podman._named(spec.id)).host_config
    assert (host.memory, host.nano_cpus, host.pids_limit) == (256 << 20, 1_500_000_000, 4096)
    _, without = told(on_podman, ReplicaSpec("a-r1-without", "a", 1, digest))
    assert without["found"] == []


@pytest.mark.podman
def test_replicas_share_the_gpus_out(described, on_podman, digest):
    seen = [told(on_podman, with_devices(number, digest, gpus=1))[1]["found"] for number in range(2)]
    assert seen == [["fakegpu0"], ["fakegpu1"]]
    on_podman.remove("a-r1-0")
    assert told(on_podman, with_devices(2, digest, gpus=1))[1]["found"] == ["fakegpu0"]
    assert sorted(told(on_podman, with_devices(3, digest, gpus=2))[1]["found"]) == ["fakegpu0", "fakegpu1"]


@pytest.mark.podman
def test_what_is_not_there_is_an_error_that_says_so_and_leaves_nothing(on_podman, digest, home):
    for resources, code, why in (
        ({"devices": ("corten.test/gpu=none",)}, "engine.start_failed", "corten.test/gpu=none"),
        ({"gpus": 3}, "engine.no_device", "this machine has 2"),
    ):
        with pytest.raises(EngineError) as caught:
            on_podman.start(with_devices(1, digest, **resources))
        assert caught.value.code == code
        assert why in caught.value.why
        assert caught.value.hint
    assert on_podman.list() == []
    assert not (home.run / "a-r1-1").exists()


@pytest.mark.docker
def test_docker_is_told_which_gpus_and_nvidias_hook_hears_of_it(home, digest, tmp_path):
    hook, log = tmp_path / "nvidia-container-runtime-hook", tmp_path / "log"
    hook.write_text(HOOK.format(log=log))
    hook.chmod(0o755)
    with dockerd(path=tmp_path) as env:
        engine = Docker(home, DockerApi(connecting(Docker.kind, home, env)), gpus=lambda: (0, 1))
        try:
            seen = [told(engine, with_devices(number, digest, gpus=1))[1]["env"] for number in range(2)]
            assert [one["NVIDIA_VISIBLE_DEVICES"] for one in seen] == ["0", "1"]
            assert log.read_text().count('"status":"creating"') == 2
            told(engine, ReplicaSpec("a-r1-without", "a", 1, digest))
            assert log.read_text().count('"status":"creating"') == 2
        finally:
            for one in engine.list():
                engine.remove(one.id)


@pytest.mark.docker
def test_docker_without_a_driver_is_an_error_that_says_so(home, docker, digest):
    engine = Docker(home, DockerApi(connecting(Docker.kind, home, {**os.environ, **docker})), gpus=lambda: (0,))
    with pytest.raises(EngineError) as caught:
        engine.start(with_devices(1, digest, gpus=1))
    assert caught.value.code == "engine.start_failed"
    assert "nvidia" in caught.value.why
    assert engine.list() == []


def test_the_built_in_engine_has_none_and_names_those_that_have(home, digest):
    with pytest.raises(EngineError) as caught:
        Embedded(home).start(with_devices(1, digest, gpus=1))
    assert (caught.value.code, caught.value.hint) == ("engine.no_device", "--engine podman, or --engine docker")
