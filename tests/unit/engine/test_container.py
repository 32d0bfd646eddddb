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
from corten.engine.libpod import specification
from corten.engine.sandbox import Bounds

IMAGE = Image(
    Digest("1" * 64), Platform("amd64", "linux"), (), {"LANG": "C"}, ("/usr/bin/python3", "-m", "x"), "/app", {}
)


def container(*, userns="", healthy=False, limits=True, folder=None, gpus=(), relabel=False, **spec):
    replica = ReplicaSpec("a-r1-x", "a", 1, IMAGE.digest, **spec)
    return Container(
        replica, IMAGE, "localhost/corten:1", {"k": "v"}, {"B": "2", "A": "1"}, Path("/r"), Path("/j"),
        Bounds(tmp_bytes=7, shm_bytes=8), userns, healthy, limits, "/seccomp.json", folder, gpus, relabel,
    )  # fmt: skip


def asked(**options):
    return body(container(**options))


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
    assert given["SecurityOpt"] == ["no-new-privileges", "seccomp=/seccomp.json"]
    assert given["NetworkMode"] == "none"
    assert given["ShmSize"] == 8
    assert "size=7," in given["Tmpfs"]["/tmp"]


def test_nothing_widens_it():
    assert (
        not {
            "Privileged",
            "CapAdd",
            "PidMode",
            "IpcMode",
            "Devices",
            "Binds",
            "VolumesFrom",
            "PortBindings",
            "DeviceRequests",
        }
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


def test_docker_is_asked_for_devices_by_their_drivers():
    given = host(resources=Resources(gpus=2, devices=("amd.com/gpu=0",)), gpus=(1, 3))
    assert given["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["1", "3"], "Capabilities": [["gpu"]]},
        {"Driver": "cdi", "DeviceIDs": ["amd.com/gpu=0"]},
    ]


def test_podman_is_asked_for_the_same_profile_in_its_own_words():
    options = {
        "resources": Resources(1 << 30, 1.5, 1, ("amd.com/gpu=0",)), "gpus": (3,), "folder": Path("/dev/shm/x"),
        "userns": "keep-id:uid=65532,gid=65532", "healthy": True, "secrets": {"KEY": b"hidden"},
    }  # fmt: skip
    made, docker = specification("corten-a", container(**options)), asked(**options)
    given = docker["HostConfig"]
    assert [one["path"] for one in made["devices"]] == ["nvidia.com/gpu=3", "amd.com/gpu=0"]
    assert (made["user"], made["entrypoint"], made["work_dir"]) == ("65532:65532", docker["Entrypoint"], "/app")
    assert (made["read_only_filesystem"], made["cap_drop"], made["no_new_privileges"]) == (True, ["ALL"], True)
    assert made["seccomp_profile_path"] == "/seccomp.json"
    assert made["netns"] == {"nsmode": "none"}
    assert made["userns"] == {"nsmode": "keep-id", "value": "uid=65532,gid=65532"}
    assert made["resource_limits"] == {
        "pids": {"limit": 4096},
        "memory": {"limit": 1 << 30, "swap": 1 << 30},
        "cpu": {"quota": 150_000, "period": 100_000},
    }
    assert made["healthconfig"] == docker["Healthcheck"]
    assert [f"{name}={text}" for name, text in sorted(made["env"].items())] == docker["Env"]
    ulimits = {one["type"]: one["hard"] for one in made["r_limits"]}
    assert ulimits == {one["Name"]: one["Hard"] for one in given["Ulimits"]}
    mounts = {one["destination"]: one for one in made["mounts"]}
    for path, text in given["Tmpfs"].items():
        assert mounts.pop(path)["options"] == text.split(",")
    for one in given["Mounts"]:
        mount = mounts.pop(one["Target"])
        assert (mount["source"], "ro" in mount["options"]) == (one["Source"], one.get("ReadOnly", False))
    assert mounts == {}
    assert not {"privileged", "cap_add", "pidns", "ipcns", "volumes", "portmappings"} & made.keys()
    assert "hidden" not in str(made)


def test_podman_is_asked_for_no_more_than_there_is():
    made = specification("corten-a", container(limits=False, egress=True, resources=Resources(1 << 30)))
    assert not {"resource_limits", "netns", "userns", "healthconfig"} & made.keys()


def test_selinux_has_a_label_of_its_own_for_each_folder_but_the_one_a_deployment_shares():
    options = {"relabel": True, "folder": Path("/dev/shm/x"), "secrets": {"KEY": b"value"}}
    given = host(**options)
    assert given["Binds"] == ["/r:/run/corten:rw,Z", "/j:/run/corten/jobs:rw,z", "/dev/shm/x:/run/secrets:ro,Z"]
    assert "Mounts" not in given
    binds = [one for one in specification("corten-a", container(**options))["mounts"] if one["type"] == "bind"]
    assert [one["options"] for one in binds] == [["rbind", "rw", "Z"], ["rbind", "rw", "z"], ["rbind", "ro", "Z"]]
