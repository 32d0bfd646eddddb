"""What a replica can do to the machine it runs on: tried from the inside."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from isolation_probe import PROBE

from corten.core.home import Home
from corten.engine.base import ReplicaSpec
from corten.engine.embedded import Embedded, Sandbox
from corten.engine.sandbox import Bounds
from corten.store.layout import Layout
from corten.testing.tiny_image import TinyImage

pytestmark = pytest.mark.bwrap


@pytest.fixture(scope="module")
def told(home: Home) -> Iterator[Mapping[str, Any]]:
    """The report of one replica, tried while another one and things on the host were there to be found."""
    import socket

    if not TinyImage.possible():
        pytest.skip("needs /usr/bin/python3 and ldd to make an image from")
    image = TinyImage(Layout(home.store)).build(["/usr/bin/python3", "/app/probe.py"], code={"probe.py": PROBE})
    engine = Embedded(home, sandbox=Sandbox.BWRAP, bounds=Bounds(tmp_bytes=32 << 20, shm_bytes=32 << 20))
    os.environ["CORTEN_CANARY"] = "seeded-secret-5d1f"
    name = f"corten-isolation-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(b"\0" + name.encode())
        abstract.listen()
        home.daemon_socket.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket(socket.AF_UNIX) as daemon:
            daemon.bind(str(home.daemon_socket))
            paths = [str(home.daemon_socket), str(home.root), str(home.replicas), "/root", "/home", str(Path(__file__))]
            env = {"PROBE_PORT": str(listener.getsockname()[1]), "PROBE_ABSTRACT": name, "MINE": "yes"}
            env["PROBE_PATHS"] = json.dumps(paths)
            ids = [f"probe-r1-{letter}" for letter in "ab"]
            started = [engine.start(ReplicaSpec(replica_id, "probe", 1, image, env=env)) for replica_id in ids]
            try:
                _wait(Path(started[1].address).with_name("done"), engine, ids[1])
                yield {**json.loads(engine.logs(ids[1])[-1]), "host_pid": started[1].pid}
            finally:
                for replica_id in ids:
                    engine.remove(replica_id)
                del os.environ["CORTEN_CANARY"]


def _wait(path: Path, engine: Embedded, replica_id: str) -> None:
    deadline_s = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline_s, engine.logs(replica_id)
        time.sleep(0.02)


def test_it_is_nobody(told: Mapping[str, Any]) -> None:
    assert (told["uid"], told["gid"], told["groups"]) == (65532, 65532, [])
    assert told["setuid"] in ("EPERM", "EINVAL")  # 0 is nobody in its user namespace


def test_it_has_no_capabilities_and_cannot_gain_any(told: Mapping[str, Any]) -> None:
    assert {int(mask, 16) for mask in told["caps"].values()} == {0}
    assert told["no_new_privs"] == "1"
    assert told["seccomp"] == "2"


def test_it_sees_only_its_own_processes(told: Mapping[str, Any]) -> None:
    assert told["pid"] == 1
    assert told["processes"] == [1]
    assert told["hostname"] == "probe-r1-b"


def test_nothing_of_the_image_or_the_system_can_be_written(told: Mapping[str, Any]) -> None:
    assert set(told["write"].values()) <= {"EROFS", "EACCES", "ENOENT"}
    assert set(told["overwrite"].values()) <= {"EROFS", "EACCES"}


def test_the_kernels_settings_cannot_be_written(told: Mapping[str, Any]) -> None:
    assert set(told["proc_write"].values()) <= {"EROFS", "EACCES", "ENOENT"}


def test_it_may_write_where_it_needs_to_and_no_more_than_allowed(told: Mapping[str, Any]) -> None:
    assert (told["tmp"], told["shm"], told["own_run"]) == ("done", "done", "done")
    assert (told["tmp_full"], told["shm_full"]) == ("ENOSPC", "ENOSPC")
    assert told["run"] == ["corten"]
    assert told["sys"] == ["devices"]


def test_it_finds_no_file_of_the_host_or_of_another_replica(told: Mapping[str, Any]) -> None:
    assert told["host_paths"] == []


def test_it_reaches_no_network_and_no_socket_of_the_host(told: Mapping[str, Any]) -> None:
    assert told["interfaces"] == ["lo"]
    assert told["loopback"] == "ECONNREFUSED"  # its own loopback, on which nobody listens
    assert told["metadata"] == "ENETUNREACH"
    assert told["outside"] == "ENETUNREACH"
    assert told["abstract"] == "ECONNREFUSED"


def test_sockets_that_lead_past_the_network_namespace_are_refused(told: Mapping[str, Any]) -> None:
    assert (told["vsock"], told["alg"], told["packet"]) == ("EAFNOSUPPORT",) * 3


@pytest.mark.parametrize(
    "name",
    [
        "mount",
        "umount",
        "unshare_user",
        "unshare_mount",
        "clone_user",
        "setns",
        "ptrace",
        "bpf",
        "io_uring",
        "keyctl",
        "open_by_handle",
        "kexec",
        "chroot",
        "personality",
        "process_vm_readv",
        "tiocsti",
        "mknod",
    ],
)
def test_a_dangerous_call_is_refused(told: Mapping[str, Any], name: str) -> None:
    assert told[name] == "EPERM"


def test_calls_a_filter_cannot_judge_do_not_exist(told: Mapping[str, Any]) -> None:
    assert (told["clone3"], told["x32"]) == ("ENOSYS", "ENOSYS")


def test_threads_and_children_work_all_the_same(told: Mapping[str, Any]) -> None:
    assert told["threads"] == ["ran"]
    assert told["child"] == "child\n"


def test_its_environment_holds_nothing_of_the_hosts(told: Mapping[str, Any]) -> None:
    ours = {"MINE", "PROBE_PORT", "PROBE_ABSTRACT", "PROBE_PATHS"}
    contract = {"CORTEN_LISTEN", "CORTEN_DEPLOYMENT", "CORTEN_REVISION", "CORTEN_REPLICA", "CORTEN_START"}
    contract |= {"CORTEN_JOBS_DIR"}
    image = {"PATH", "LANG", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    assert set(told["env"]) - ours - contract - image <= {"HOME", "PWD", "PYTHONPYCACHEPREFIX", "CORTEN_TRACE_IMPORTS"}
    assert "seeded-secret-5d1f" not in json.dumps(told)


def test_it_holds_no_descriptor_but_its_three(told: Mapping[str, Any]) -> None:
    assert told["fds"] in ([0, 1, 2], [0, 1, 2, 3])  # the fourth reads /proc/self/fd
    assert told["tty"] in ("ENXIO", "ENOENT")


def test_it_sees_no_device_of_the_machine(told: Mapping[str, Any]) -> None:
    harmless = {"null", "zero", "full", "random", "urandom", "tty", "shm", "pts", "ptmx", "fd", "core", "console"}
    assert set(told["devices"]) <= harmless | {"stdin", "stdout", "stderr"}


def test_its_resources_are_limited(told: Mapping[str, Any]) -> None:
    assert told["limits"]["CORE"] == 0
    assert 0 < told["limits"]["NOFILE"] <= 65536


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_outside_its_sandbox_it_is_not_root_either(told: Mapping[str, Any]) -> None:
    status = Path(f"/proc/{told['host_pid']}/status").read_text()
    assert "Uid:\t65532\t65532\t65532\t65532" in status


def test_the_environment_of_a_replica_cannot_be_read_in_the_list_of_processes(told: Mapping[str, Any]) -> None:
    # Command lines are open to everybody on the machine, environments to the owner.
    assert Path(f"/proc/{told['host_pid']}/cmdline").read_bytes()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"PROBE_ABSTRACT" not in path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
