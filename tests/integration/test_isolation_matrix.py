"""What a replica can do to the machine, tried from inside on every engine, and what `doctor --security` sees of it."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest
from isolation_probe import PROBE

from corten.core.home import Home
from corten.core.security import Verdict, of_replica
from corten.engine.base import ReplicaSpec
from corten.engine.containers import Docker, Podman
from corten.engine.embedded import Embedded, Sandbox
from corten.engine.sandbox import Bounds
from corten.ops.security import replica_seen
from corten.store.layout import Layout
from corten.testing.tiny_image import TinyImage

SMALL = Bounds(tmp_bytes=32 << 20, shm_bytes=32 << 20)
KERNEL_CALLS = (
    "mount", "umount", "unshare_user", "unshare_mount", "clone_user", "setns", "bpf", "io_uring", "keyctl", "open_by_handle",
    "kexec", "chroot", "mknod", "setuid", "packet", "process_vm_readv", "ptrace",
)  # fmt: skip
# What an engine's own filter lets through, on some machine: as it is, not as it should be.
OPEN = {"docker": {"sockets past the network namespace"}}  # Docker's filter knows AF_VSOCK since 23


def closed(told, *keys):
    return all(told[key] != "done" for key in keys)


CHECKS = {
    "is uid 65532, no other group": lambda t: (t["uid"], t["gid"], t["groups"]) == (65532, 65532, []),
    "cannot become root": lambda t: t["setuid"] != "done",
    "has no capability, can gain none": lambda t: (
        {int(m, 16) for m in t["caps"].values()} == {0} and t["no_new_privs"] == "1"
    ),
    "is under a seccomp filter": lambda t: t["seccomp"] == "2",
    "sees no process but its own": lambda t: t["pid"] == 1 and t["processes"] == [1],
    "cannot write image or system": lambda t: "done" not in {*t["write"].values(), *t["overwrite"].values()},
    "cannot write the kernel's settings": lambda t: "done" not in t["proc_write"].values(),
    "fills /tmp and /dev/shm to their size": lambda t: (t["tmp_full"], t["shm_full"]) == ("ENOSPC", "ENOSPC"),
    "may write its /tmp, /dev/shm, own folder": lambda t: (t["tmp"], t["shm"], t["own_run"]) == ("done",) * 3,
    "finds no control socket, no other's files": lambda t: t["host_paths"] == [],
    "has no network": lambda t: t["interfaces"] == ["lo"],
    "reaches no metadata address": lambda t: t["metadata"] == "ENETUNREACH",
    "reaches nothing outside": lambda t: t["outside"] == "ENETUNREACH",
    "reaches no port of the machine": lambda t: t["loopback"] == "ECONNREFUSED",
    "reaches no abstract socket of the machine": lambda t: t["abstract"] == "ECONNREFUSED",
    "sockets past the network namespace": lambda t: closed(t, "vsock", "alg"),
    "dangerous calls of the kernel are refused": lambda t: closed(t, *KERNEL_CALLS),
    "sees no disk of the machine": lambda t: (
        not [d for d in t["devices"] if d.startswith(("sd", "vd", "nvme", "loop", "kmsg", "mem"))]
    ),
    "inherits no descriptor": lambda t: set(t["fds"]) <= {0, 1, 2, 3},
    "has nothing of the daemon's environment": lambda t: "seeded-secret-5d1f" not in json.dumps(t["env"]),
    "has limits of files and core dumps": lambda t: t["limits"]["CORE"] == 0 and 0 < t["limits"]["NOFILE"] <= 65536,
}


def bubblewrap(home, _):
    return Embedded(home, sandbox=Sandbox.BWRAP, bounds=SMALL)


def in_containers(kind):
    def make(home, request):
        engine = kind.from_env(home, {**os.environ, **request.getfixturevalue(kind.name)})
        engine._bounds = SMALL
        return engine

    return make


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(bubblewrap, marks=pytest.mark.bwrap, id="embedded"),
        pytest.param(in_containers(Podman), marks=pytest.mark.podman, id="podman"),
        pytest.param(in_containers(Docker), marks=pytest.mark.docker, id="docker"),
    ],
)
def tried(request, home: Home):
    """A replica's report, with another one beside it and things on the machine there to be found; and how it is seen."""
    if not TinyImage.possible():
        pytest.skip("needs /usr/bin/python3 and ldd to make an image from")
    engine = request.param(home, request)
    digest = TinyImage(Layout(home.store)).build(["/usr/bin/python3", "/app/probe.py"], code={"probe.py": PROBE})
    name = f"corten-isolation-{os.getpid()}"
    os.environ["CORTEN_CANARY"] = "seeded-secret-5d1f"
    ids = [f"probe-r1-{letter}" for letter in "ab"]
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind(b"\0" + name.encode())
            abstract.listen()
            paths = [
                home.daemon_socket,
                home.root,
                home.replicas,
                home.run / ids[0],
                "/root",
                "/var/run/docker.sock",
                __file__,
            ]
            env = {"PROBE_PORT": str(listener.getsockname()[1]), "PROBE_ABSTRACT": name}
            env["PROBE_PATHS"] = json.dumps([str(path) for path in paths])
            started = [engine.start(ReplicaSpec(replica_id, "probe", 1, digest, env=env)) for replica_id in ids]
            done = Path(started[1].address).with_name("done")
            deadline_s = time.monotonic() + 30
            while not done.exists():
                assert time.monotonic() < deadline_s, engine.logs(ids[1])
                time.sleep(0.02)
            seen = replica_seen(ids[1], started[1].pid, egress=False)
            yield engine, json.loads(engine.logs(ids[1])[-1]), seen
    finally:
        for replica_id in ids:
            engine.remove(replica_id)
        del os.environ["CORTEN_CANARY"]


def test_nothing_is_open_but_what_is_known_to_be(tried, capsys):
    engine, told, _ = tried
    results = {check: holds(told) for check, holds in CHECKS.items()}
    with capsys.disabled():
        print(f"\n  isolation on {engine.name}:")
        for check, held in results.items():
            print(f"    {'holds' if held else 'OPEN ':5}  {check}")
    assert {check for check, held in results.items() if not held} <= OPEN.get(engine.name, set())


def test_doctor_sees_the_same_from_outside(tried):
    engine, _, seen = tried
    findings = {finding.rule: finding for finding in of_replica(seen)}
    assert len(findings) >= 9
    if engine.describe()["limits"].startswith("none"):
        # No cgroup can be made here, and it says so; the one it was started in may have a limit all the same.
        assert findings.pop("processes are limited").verdict is not Verdict.FAIL
    assert [one for one in findings.values() if one.verdict is not Verdict.PASS] == []
