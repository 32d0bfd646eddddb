"""What a container engine is asked for."""

from dataclasses import replace
from pathlib import Path

import pytest

from corten.core.digest import Digest
from corten.core.image import Compression, Image, Layer, LayerKind
from corten.core.platform import Platform
from corten.core.resources import Resources
from corten.engine.base import ReplicaSpec
from corten.engine.container import Container, body
from corten.engine.container_images import shared
from corten.engine.sandbox import Bounds

IMAGE = Image(
    Digest("1" * 64), Platform("amd64", "linux"), (), {"LANG": "C"}, ("/usr/bin/python3", "-m", "x"), "/app", {}
)


def asked(*, userns="", healthy=False, limits=True, folder=None, **spec):
    replica = ReplicaSpec("a-r1-x", "a", 1, IMAGE.digest, **spec)
    container = Container(
        replica, IMAGE, "localhost/corten:1", {"k": "v"}, {"B": "2", "A": "1"}, Path("/r"), Path("/j"),
        Bounds(tmp_bytes=7, shm_bytes=8), userns, healthy, limits, secrets=folder,
    )  # fmt: skip
    return body(container)


def host(**options):
    return asked(**options)["HostConfig"]


def test_the_profile_is_the_sandboxs():
    document = asked()
    assert document["User"] == "65532:65532"
    assert document["Entrypoint"] == ["/usr/bin/python3", "-m", "x"]
    assert document["WorkingDir"] == "/app"
    given = document["HostConfig"]
    assert given["ReadonlyRootfs"] is True
    assert given["CapDrop"] == ["ALL"]
    assert given["SecurityOpt"] == ["no-new-privileges"]
    assert given["NetworkMode"] == "none"
    assert given["ShmSize"] == 8
    assert "size=7," in given["Tmpfs"]["/tmp"]


def test_nothing_widens_it():
    assert (
        not {"Privileged", "CapAdd", "PidMode", "IpcMode", "Devices", "Binds", "VolumesFrom", "PortBindings"}
        & host().keys()
    )
    assert "unconfined" not in str(asked(egress=True))


def test_nothing_of_the_host_is_mounted_but_its_own_two_folders():
    assert [(one["Source"], one["Target"]) for one in host()["Mounts"]] == [
        ("/r", "/run/corten"),
        ("/j", "/run/corten/jobs"),
    ]


def test_what_podman_would_lay_over_the_root_has_a_size():
    for path in ("/run", "/var/tmp"):
        assert "size=65536" in host()["Tmpfs"][path]
        assert "mode=0755" in host()["Tmpfs"][path]


def test_there_is_a_network_with_egress_only():
    assert host(egress=True)["NetworkMode"] == "default"


def test_limits_are_what_one_replica_may_use_without_swap():
    given = host(resources=Resources(memory_bytes=1 << 30, cpus=1.5))
    assert (given["Memory"], given["MemorySwap"], given["NanoCpus"]) == (1 << 30, 1 << 30, 1_500_000_000)
    assert given["PidsLimit"] == 4096
    assert not {"Memory", "MemorySwap", "NanoCpus"} & host().keys()


def test_an_engine_without_limits_is_not_asked_for_any():
    given = host(limits=False, resources=Resources(memory_bytes=1 << 30, cpus=1.5))
    assert not {"Memory", "MemorySwap", "NanoCpus", "PidsLimit"} & given.keys()


def test_resource_limits_are_never_above_our_own(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (10, 100))
    assert {one["Name"]: one["Hard"] for one in host()["Ulimits"]} == {
        "nofile": 100,
        "nproc": 100,
        "fsize": 100,
        "core": 0,
    }


def test_the_environment_is_in_order_and_the_engine_is_not_to_start_it_again():
    document = asked()
    assert document["Env"] == ["A=1", "B=2"]
    assert document["HostConfig"]["RestartPolicy"] == {"Name": "no"}


def test_the_engine_asks_too_whether_it_lives_by_the_images_own_python():
    assert "Healthcheck" not in asked()
    told = asked(healthy=True)["Healthcheck"]["Test"]
    assert told[:4] == ["CMD", "/usr/bin/python3", "-I", "-S"]
    assert told[-1] == "/run/corten/s"
    compile(told[5], "check", "exec")


def test_users_are_mapped_where_the_engine_is_a_users_own():
    assert host(userns="keep-id:uid=65532,gid=65532")["UsernsMode"] == "keep-id:uid=65532,gid=65532"
    assert "UsernsMode" not in host()


@pytest.mark.parametrize(
    ("others", "count"),
    [
        ([], 0),
        ([["b"]], 0),
        ([["a"]], 1),
        ([["a", "x", "c"]], 1),
        ([["a"], ["a", "b", "c", "d"]], 3),
        ([["a", "b"]], 2),
    ],
)
def test_layers_are_there_as_far_as_another_image_begins_with_them(others, count):
    layers = tuple(
        Layer(LayerKind.CODE, name, Digest.of(b""), Digest.of(name.encode()), 1, 1, Compression.NONE) for name in "abc"
    )
    told = [[str(Digest.of(name.encode())) for name in names] for names in others]
    assert shared(replace(IMAGE, layers=layers), told) == frozenset(layer.diff_id for layer in layers[:count])


def test_secrets_are_a_read_only_folder_and_their_values_nowhere():
    document = asked(folder=Path("/dev/shm/x"), secrets={"KEY": b"value"})
    mounts = document["HostConfig"]["Mounts"]
    assert mounts[2] == {"Type": "bind", "Source": "/dev/shm/x", "Target": "/run/secrets", "ReadOnly": True}
    assert "value" not in str(document)
