"""What a replica can do to the machine it runs on: tried from the inside (research/security.md 6, row 29)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from corten.core.home import Home
from corten.engine.base import ReplicaSpec
from corten.engine.embedded import Embedded, Sandbox
from corten.engine.sandbox import Bounds
from corten.store.layout import Layout
from corten.testing.tiny_image import TinyImage

pytestmark = pytest.mark.bwrap

# Runs inside: each attempt says what came of it. Numbers are x86_64's and aarch64's.
PROBE = r"""
import ctypes, errno, json, os, platform, resource, signal, socket, sys, time

libc = ctypes.CDLL(None, use_errno=True)
ARM = platform.machine() == "aarch64"

def call(x86, arm, *args):
    ctypes.set_errno(0)
    result = libc.syscall(arm if ARM else x86, *args)
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

def attempt(action):
    try:
        action()
        return "done"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))

def write(path):
    return attempt(lambda: open(path, "w").write("x"))

def connect(family, address):
    def action():
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(2)
            s.connect(address)
    return attempt(action)

def fill(path, size):
    def action():
        with open(path, "wb", buffering=0) as f:
            for _ in range(size >> 20):
                f.write(bytes(1 << 20))
    outcome = attempt(action)
    os.unlink(path)
    return outcome

status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
CLONE_NEWUSER, CLONE_NEWNS, SIGCHLD = 0x10000000, 0x00020000, 17
report = {
    "uid": os.getuid(), "gid": os.getgid(), "groups": [g for g in os.getgroups() if g not in (65532, 65534)],
    "caps": {name: status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")},
    "no_new_privs": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
    "pid": os.getpid(), "processes": sorted(int(p) for p in os.listdir("/proc") if p.isdigit()),
    "env": dict(os.environ),
    "hostname": socket.gethostname(),
    "write": {p: write(p + "/x") for p in ("", "/usr", "/etc", "/app", "/models", "/var", "/dev", "/sys", "/run", "/proc")},
    "overwrite": {p: write(p) for p in ("/app/probe.py", "/models/weights.bin", "/etc/resolv.conf", "/usr/bin/python3")},
    "proc_write": {p: write("/proc/" + p) for p in ("sys/kernel/core_pattern", "sys/kernel/hostname", "sysrq-trigger", "sys/vm/drop_caches", "sys/user/max_user_namespaces")},
    "tmp": write("/tmp/x"), "shm": write("/dev/shm/x"), "own_run": write("/run/corten/x"),
    "run": sorted(os.listdir("/run")), "sys": sorted(os.listdir("/sys")),
    "host_paths": [p for p in json.loads(os.environ["PROBE_PATHS"]) if os.path.lexists(p)],
    "abstract": connect(socket.AF_UNIX, b"\0" + os.environ["PROBE_ABSTRACT"].encode()),
    "loopback": connect(socket.AF_INET, ("127.0.0.1", int(os.environ["PROBE_PORT"]))),
    "metadata": connect(socket.AF_INET, ("169.254.169.254", 80)),
    "outside": connect(socket.AF_INET, ("192.0.2.1", 80)),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "vsock": connect(40, (2, 22)) if hasattr(socket, "AF_VSOCK") else "EAFNOSUPPORT",
    "alg": attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
    "packet": attempt(lambda: socket.socket(17, socket.SOCK_RAW)),
    "mount": call(165, 40, b"none", b"/tmp", b"tmpfs", 0, None),
    "umount": call(166, 39, b"/proc", 0),
    "unshare_user": call(272, 97, CLONE_NEWUSER),
    "unshare_mount": call(272, 97, CLONE_NEWNS),
    "clone_user": call(56, 220, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0),
    "clone3": call(435, 435, 0, 0),
    "setns": call(308, 268, 0, 0),
    "ptrace": call(101, 117, 16, 1, 0, 0),
    "bpf": call(321, 280, 0, 0, 0),
    "io_uring": call(425, 425, 8, 0),
    "keyctl": call(250, 219, 0, -3, 0),
    "open_by_handle": call(304, 265, -100, 0, 0),
    "kexec": call(246, 104, 0, 0, 0, 0),
    "chroot": call(161, 51, b"/tmp"),
    "personality": call(135, 92, 0xFFFFFFFF),
    "process_vm_readv": call(310, 270, 1, 0, 0, 0, 0, 0),
    "x32": "ENOSYS" if ARM else call(0x40000000 + 39, 0),
    "tiocsti": call(16, 29, 0, 0x5412, b"x"),
    "mknod": attempt(lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0))),
    "devices": sorted(os.listdir("/dev")),
    "setuid": attempt(lambda: os.setuid(0)),
    "tmp_full": fill("/tmp/full", 64 << 20), "shm_full": fill("/dev/shm/full", 64 << 20),
    "limits": {n: resource.getrlimit(getattr(resource, "RLIMIT_" + n))[1] for n in ("NOFILE", "CORE", "NPROC")},
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "tty": attempt(lambda: open("/dev/tty")),
    "threads": [],
}
import threading
t = threading.Thread(target=lambda: report["threads"].append("ran"))
t.start(); t.join()
import subprocess
report["child"] = subprocess.run([sys.executable, "-c", "print('child')"], capture_output=True, text=True).stdout
print(json.dumps(report), flush=True)
open("/run/corten/done", "w").close()
time.sleep(60)
"""


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
    assert set(told["env"]) - ours - contract - image <= {"HOME", "PWD", "PYTHONPYCACHEPREFIX"}
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
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"PROBE_ABSTRACT" not in path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
