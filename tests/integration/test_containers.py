"""What podman and Docker do beyond the contract: limits, layers that are there already, and what others do to them."""

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from corten.core.home import Home
from corten.core.process import with_environment
from corten.core.resources import Resources
from corten.engine.base import ReplicaSpec
from corten.engine.containers import Docker, Podman
from corten.engine.docker_api import DockerApi
from corten.errors import EngineError, UsageError
from corten.store.layout import Layout

WAIT = "import os,pathlib,time;pathlib.Path(os.environ['CORTEN_LISTEN'].removeprefix('unix:')).touch();time.sleep(600)"
HUNGRY = "x=[]\nwhile True: x.append(bytearray(1<<20))"
INTERFACES = "import socket,json;print(json.dumps([name for _, name in socket.if_nameindex()]))"


@pytest.fixture(
    params=[
        pytest.param((Podman, "podman"), marks=pytest.mark.podman),
        pytest.param((Docker, "docker"), marks=pytest.mark.docker),
    ],
    ids=["podman", "docker"],
)
def make_engine(request, home):
    kind, name = request.param
    env = {**os.environ, **request.getfixturevalue(name)}
    yield lambda of=home: kind.from_env(of, env)
    engine = kind.from_env(home, env)
    for one in engine.list():
        engine.remove(one.id)


@pytest.fixture
def engine(make_engine):
    return make_engine()


def image(tiny, code):
    return tiny.build(["/usr/bin/python3", "-c", code], code={"corten.json": "{}"})


def spec(digest, **options):
    return ReplicaSpec("a-r1-x", "a", 1, digest, **options)


def only(engine):
    (seen,) = engine.list()
    return seen


def until_ended(engine):
    deadline_s = time.monotonic() + 60
    while (seen := only(engine)).running:
        assert time.monotonic() < deadline_s, engine.logs(seen.id)
        time.sleep(0.05)
    return seen


def test_a_replica_that_wants_more_memory_than_it_may_is_ended_and_the_reason_told(engine, tiny):
    engine.start(spec(image(tiny, HUNGRY), resources=Resources(memory_bytes=64 << 20)))
    seen = until_ended(engine)
    assert seen.exit_code == 137
    assert seen.reason == "out of memory: limit 64 MiB, peak 64 MiB"
    assert seen.out_of_memory


def test_a_later_daemon_still_hears_of_it(engine, make_engine, tiny):
    digest = image(
        tiny, "import pathlib,time\nwhile not pathlib.Path('/run/corten/go').exists(): time.sleep(.02)\n" + HUNGRY
    )
    started = engine.start(spec(digest, resources=Resources(memory_bytes=64 << 20)))
    later = make_engine()
    assert later.list() == [started]
    Path(started.address).with_name("go").touch()
    assert until_ended(later).reason == "out of memory: limit 64 MiB, peak 64 MiB"


@pytest.mark.parametrize("frozen", [False, True])
def test_one_that_somebody_kills_is_not_said_to_have_run_out_of_memory(engine, tiny, frozen):
    started = engine.start(spec(image(tiny, WAIT), resources=Resources(memory_bytes=256 << 20)))
    if frozen:
        engine.freeze("a-r1-x")
        engine.kill("a-r1-x")
    else:
        os.kill(started.pid, 9)
    seen = until_ended(engine)
    assert (seen.exit_code, seen.reason, seen.out_of_memory) == (137, "", False)


def test_an_image_that_differs_in_its_code_goes_over_without_the_layers_below(engine, tiny, monkeypatch):
    sent = []
    load = DockerApi.load
    monkeypatch.setattr(DockerApi, "load", lambda api, archive: load(api, counted(archive, sent)))
    engine.prepare(image(tiny, WAIT + "#1"))
    sent.clear()
    engine.prepare(image(tiny, WAIT + "#2"))  # the same files, another command: a config of its own
    engine.prepare(image(tiny, WAIT + "#2"))
    assert 0 < sum(sent) < 20_000
    started = engine.start(spec(image(tiny, WAIT + "#2")))
    assert started.running


def counted(archive, sent):
    for piece in archive:
        sent.append(len(piece))
        yield piece


def test_an_image_the_store_has_no_more_is_taken_away_with_the_next_load(engine, home, tiny):
    digest = image(tiny, WAIT + "#old")
    engine.prepare(digest)
    Layout(home.store).path(digest).unlink()
    engine.prepare(image(tiny, WAIT + "#new"))
    tags = [tag for one in engine._api.images() for tag in one.repo_tags or ()]
    assert not any(tag.endswith(digest.hex) for tag in tags)


def test_lines_of_any_length_are_whole(engine, tiny):
    engine.start(spec(image(tiny, "print('short'); print('x' * 20_000); print('last')")))
    until_ended(engine)
    assert [len(line) for line in engine.logs("a-r1-x")] == [5, 20_000, 4]
    assert engine.logs("a-r1-x", tail=1) == ["last"]


def test_two_homes_on_one_engine_know_nothing_of_each_other(make_engine, engine, tiny, home):
    other = make_engine(Home(home.root.parent / f"{home.root.name}-2"))
    engine.start(spec(image(tiny, WAIT)))
    assert other.list() == []
    assert other.logs("a-r1-x") == []
    other.remove("a-r1-x")
    assert only(engine).running


def test_a_container_somebody_else_removed_is_gone_and_can_be_forgotten(engine, tiny):
    engine.start(spec(image(tiny, WAIT)))
    engine._api.remove(engine._named("a-r1-x"))
    assert engine.list() == []
    engine.remove("a-r1-x")
    assert engine.start(spec(image(tiny, WAIT))).running


def test_a_program_that_is_not_in_the_image_is_an_error_that_leaves_nothing(engine, tiny, home):
    digest = tiny.build(["/no/such/program"], code={"corten.json": "{}"})
    with pytest.raises(EngineError) as caught:
        engine.start(spec(digest))
    assert caught.value.code == "engine.start_failed"
    assert "/no/such/program" in caught.value.why
    assert engine.list() == []
    assert not (home.run / "a-r1-x").exists()
    assert not (home.run / "a.jobs").exists()


def test_one_left_half_started_is_seen_as_ended(engine, tiny, home):
    digest = image(tiny, WAIT)
    engine.start(spec(digest))
    engine.kill("a-r1-x")
    # As a daemon leaves it that dies between the two calls.
    found = engine._api.inspect(engine._named("a-r1-x"))
    engine._api.remove(found.id)
    body = {"Image": found.config.labels["dev.corten.image"], "Labels": dict(found.config.labels)}
    body["Image"] = engine._images.load(Layout(home.store).image(digest))
    engine._api.create(engine._named("a-r1-x"), body)
    assert (only(engine).running, only(engine).exit_code) == (False, -1)


def test_labels_are_what_is_known_by_another_daemon(engine, make_engine, tiny):
    started = engine.start(replace(spec(image(tiny, WAIT)), deployment="other", revision=7))
    assert make_engine().list() == [started]


@pytest.mark.podman
def test_podmans_service_is_started_again_when_it_is_gone_and_replicas_do_not_notice(home, podman, tiny):
    engine = Podman.from_env(home, {**os.environ, **podman})
    started = engine.start(spec(image(tiny, WAIT)))
    try:
        for process in with_environment(f"CONTAINERS_STORAGE_CONF={podman['CONTAINERS_STORAGE_CONF']}"):
            if b"service" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                process.kill()
        assert engine.list() == [started]
        assert Path(f"/proc/{started.pid}").exists()
    finally:
        engine.remove("a-r1-x")


@pytest.mark.podman
def test_with_egress_there_is_a_network_and_without_there_is_none(home, podman, tiny):
    engine = Podman.from_env(home, {**os.environ, **podman})
    for egress, names in ((False, ["lo"]), (True, ["lo", "eth0"])):
        engine.start(spec(image(tiny, INTERFACES), egress=egress))
        until_ended(engine)
        seen = engine.logs("a-r1-x")
        engine.remove("a-r1-x")
        assert json.loads(seen[-1]) == names


def test_nobody_at_the_socket_is_an_error_that_says_where(home, tmp_path):
    with pytest.raises(EngineError) as caught:
        Docker.from_env(home, {"DOCKER_HOST": f"unix://{tmp_path}/nobody"})
    assert caught.value.code == "engine.no_container_engine"
    assert caught.value.where == f"{tmp_path}/nobody"
    with pytest.raises(UsageError):
        Docker.from_env(home, {"DOCKER_HOST": "tcp://127.0.0.1:2375"})


@pytest.mark.podman
def test_the_archive_is_what_podman_load_takes(home, podman, tiny, tmp_path):
    from corten.store.docker_archive import DockerArchive

    layout = Layout(home.store)
    archive = DockerArchive.of(layout, layout.image(image(tiny, WAIT)), names=["localhost/by-hand:1"])
    path = tmp_path / "image.tar"
    with path.open("wb") as file:
        file.writelines(archive.stream(layout))
    env = {**os.environ, **podman}
    done = subprocess.run(["podman", "load", "-i", path], env=env, capture_output=True, text=True, check=True)
    assert "localhost/by-hand:1" in done.stdout


def test_the_words_for_selinux_are_taken(engine, tiny):
    """Of a machine that has it; here there is none, and both engines read the words and do nothing."""
    engine._host.__dict__["info"] = structs.replace(
        engine._host.info, security_options=["name=seccomp", "name=selinux"]
    )
    code = "import os,pathlib;print(pathlib.Path(os.environ['KEY_FILE']).read_text());" + WAIT
    started = engine.start(spec(image(tiny, code), secrets={"KEY": b"value"}))
    deadline_s = time.monotonic() + 30
    while not Path(started.address).exists():
        assert time.monotonic() < deadline_s, engine.logs("a-r1-x")
        time.sleep(0.02)
    assert engine.logs("a-r1-x") == ["value"]
    mounts = engine._api.inspect(engine._named("a-r1-x")).mounts
    bound = {one.destination: one.rw for one in mounts if one.type == "bind"}
    assert bound == {"/run/corten": True, "/run/corten/jobs": True, "/run/secrets": False}
