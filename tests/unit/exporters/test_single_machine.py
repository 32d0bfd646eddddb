"""Compose files, quadlets and services of systemd."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quadlets import podman_run

from corten.core.canary import Canary
from corten.core.deployment import Settings
from corten.core.digest import Digest
from corten.core.reference import Reference
from corten.core.resources import Resources
from corten.errors import UsageError
from corten.exporters.base import SecretVariable, Workload
from corten.exporters.compose import Compose
from corten.exporters.units import Quadlet, Systemd

IMAGE = Reference.parse(f"ghcr.io/team/fraud@{Digest.of(b'image')}")
ALL = (Compose(), Quadlet(), Systemd())
LIMITED = Settings(resources=Resources(memory_bytes=1 << 30, cpus=1.5))


def text(exporter, settings=None, **options):
    ((_, rendered),) = exporter.render(Workload("fraud", IMAGE, settings or Settings(), **options)).items()
    return rendered


@pytest.mark.parametrize("exporter", ALL, ids=lambda one: one.name)
def test_the_same_workload_gives_the_same_bytes_and_names_the_image_by_its_digest(exporter):
    assert text(exporter) == text(exporter)
    assert str(IMAGE) in text(exporter)


@pytest.mark.parametrize("exporter", ALL, ids=lambda one: one.name)
@pytest.mark.parametrize(
    "settings",
    [
        Settings(replicas=2),
        Settings(replicas=1, most_replicas=4),
        Settings(replicas=0, most_replicas=1),
        Settings(auth="token"),
        Settings(rate_per_s=5),
        Settings(canary=Canary(mirror=10)),
    ],
)
def test_what_takes_a_gateway_or_several_containers_is_refused(exporter, settings):
    with pytest.raises(UsageError) as caught:
        text(exporter, settings)
    assert caught.value.code == "render.unsupported"
    assert exporter.name in caught.value.what


def test_the_profile_is_there_in_each_ones_words():
    compose = text(Compose(), LIMITED)
    for line in (
        'user: "65532:65532"',
        "read_only: true",
        "cap_drop:\n    - ALL",
        "- no-new-privileges",
        "mem_limit: 1073741824",
        "cpus: 1.5",
        '- "127.0.0.1:8080:8080"',
    ):
        assert line in compose
    quadlet = text(Quadlet(), LIMITED)
    published = "PublishPort=127.0.0.1:8080:8080"
    for line in ("ReadOnly=true", "DropCapability=all", "NoNewPrivileges=true", "User=65532", published):
        assert f"\n{line}\n" in quadlet
    service = text(Systemd(), LIMITED)
    for word in (
        "--read-only",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--memory=1073741824",
        "--cpus=1.5",
    ):
        assert f" {word} " in service


def test_variables_arrive_as_they_are_whatever_is_in_them():
    settings = Settings(env={"A": "x \"y\" $z %h \\ 'q'"})
    assert 'A: "x \\"y\\" $$z %h' in text(Compose(), settings)
    start = next(line for line in text(Systemd(), settings).splitlines() if line.startswith("ExecStart="))
    words = shlex.split(start.removeprefix("ExecStart=").replace("$$", "$").replace("%%", "%"))
    assert "A=x \"y\" $z %h \\ 'q'" in words


def test_a_variable_that_no_unit_can_hold_is_refused():
    for exporter in (Quadlet(), Systemd()):
        with pytest.raises(UsageError):
            text(exporter, Settings(env={"A": "two\nlines"}))
    assert "two\\nlines" in text(Compose(), Settings(env={"A": "two\nlines"}))


def test_secrets_are_podmans_and_compose_has_files_only():
    secrets = (SecretVariable("TOKEN", "api", "key"),)
    assert "Secret=api-key,type=env,target=TOKEN" in text(Quadlet(), secrets=secrets)
    assert "--secret api-key,type=env,target=TOKEN" in text(Systemd(), secrets=secrets)
    with pytest.raises(UsageError):
        text(Compose(), secrets=secrets)


def test_gpus_and_devices_are_asked_for_in_each_ones_words():
    settings = Settings(resources=Resources(gpus=2, devices=("amd.com/gpu=0",)))
    assert "AddDevice=nvidia.com/gpu=1\nAddDevice=amd.com/gpu=0\n" in text(Quadlet(), settings)
    assert "--device nvidia.com/gpu=0 " in text(Systemd(), settings)
    assert "--device amd.com/gpu=0 " in text(Systemd(), settings)
    assert "driver: nvidia\n            count: 2" in text(Compose(), settings)
    assert 'devices:\n    - "amd.com/gpu=0"' in text(Compose(), settings)


@given(
    st.dictionaries(st.from_regex("[A-Z]{1,8}", fullmatch=True), st.text(st.characters(min_codepoint=32), max_size=40)),
    st.integers(0, 3),
    st.sampled_from([(), (SecretVariable("TOKEN", "api", "key"),)]),
)
def test_a_quadlet_has_only_what_its_manual_knows_and_every_variable_arrives(env, gpus, secrets):
    settings = Settings(env=env, resources=Resources(1 << 30, 1.5, gpus))
    words = podman_run(text(Quadlet(), settings, secrets=secrets))
    told = dict(words[at + 1].partition("=")[::2] for at, word in enumerate(words) if word == "--env")
    assert env.items() <= told.items()
    assert json.loads(words[words.index("--health-cmd") + 1])[0] == "python3"
    assert {"--read-only", "--security-opt=no-new-privileges", "--memory=1073741824"} <= set(words)
