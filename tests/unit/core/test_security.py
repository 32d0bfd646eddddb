"""The rules of `doctor --security`, over what was seen."""

from dataclasses import replace

import pytest

from corten.core.security import (
    EngineSeen,
    ImageSeen,
    MountSeen,
    ReplicaSeen,
    Verdict,
    of_engine,
    of_image,
    of_replica,
)

GOOD = ReplicaSeen(
    id="a-r1-x",
    egress=False,
    inside=65532,
    outside=65532,
    capabilities=0,
    no_new_privileges=True,
    seccomp=2,
    mounts=(
        MountSeen("/", "overlay", writable=False),
        MountSeen("/tmp", "tmpfs", writable=True, size="1024k"),
        MountSeen("/dev/shm", "tmpfs", writable=True, size="1024k"),
        MountSeen("/run/corten", "ext4", writable=True),
        MountSeen("/run/corten/jobs", "ext4", writable=True),
        MountSeen("/proc", "proc", writable=True),
    ),
    interfaces=("lo",),
    shares=frozenset(),
    processes=4096,
)
IMAGE = ImageSeen(
    "4f0c", "65532:65532", ("/usr/bin/python3",), {"LANG": "C"}, frozenset({"SBOM", "provenance", "signature"})
)


def verdicts(findings):
    return {finding.rule: finding.verdict for finding in findings}


def with_mount(target, kind="ext4", *, writable=True, size=""):
    return replace(GOOD, mounts=(*GOOD.mounts, MountSeen(target, kind, writable, size)))


def test_a_replica_as_it_should_be_keeps_every_rule():
    assert set(verdicts(of_replica(GOOD)).values()) == {Verdict.PASS}


@pytest.mark.parametrize(
    ("seen", "rule"),
    [
        (replace(GOOD, inside=0, outside=0), "user 65532, and nobody outside"),
        (replace(GOOD, inside=1000, outside=1000), "user 65532, and nobody outside"),
        (replace(GOOD, capabilities=0x400), "no capabilities"),
        (replace(GOOD, no_new_privileges=False), "no new privileges"),
        (replace(GOOD, seccomp=0), "system calls are filtered"),
        (with_mount("/", "overlay"), "the root is read-only"),
        (with_mount("/tmp", "tmpfs"), "its /tmp has a size"),
        (with_mount("/models"), "nothing else can be written"),
        (with_mount("/var/run/docker.sock"), "nothing else can be written"),
        (with_mount("/run/other"), "nothing else can be written"),
        (replace(GOOD, interfaces=("eth0", "lo")), "no network"),
        (replace(GOOD, shares=frozenset({"net"})), "no network"),
        (replace(GOOD, shares=frozenset({"pid"})), "namespaces of its own"),
    ],
)
def test_each_way_out_fails_its_own_rule_and_no_other(seen, rule):
    found = verdicts(of_replica(seen))
    assert [name for name, verdict in found.items() if verdict is not Verdict.PASS] == [rule]
    assert found[rule] is Verdict.FAIL


def test_what_could_not_be_seen_is_no_pass():
    blind = ReplicaSeen("a-r1-x", egress=False)
    assert set(verdicts(of_replica(blind)).values()) == {Verdict.CANNOT}


def test_declared_egress_is_kept_to():
    seen = replace(GOOD, egress=True, interfaces=("eth0", "lo"), shares=frozenset({"net"}))
    assert set(verdicts(of_replica(seen)).values()) == {Verdict.PASS}


def test_root_without_capabilities_outside_is_said_and_not_passed():
    (finding,) = [one for one in of_replica(replace(GOOD, outside=0)) if one.verdict is not Verdict.PASS]
    assert finding.verdict is Verdict.CANNOT
    assert "/var/lib/corten" in finding.hint


def test_an_image_is_asked_for_its_user_its_secrets_and_its_papers():
    assert set(verdicts(of_image(IMAGE)).values()) == {Verdict.PASS}
    bare = ImageSeen("4f0c", "", ("/bin/sh", "-c"), {"DB_PASSWORD": "x", "TOKEN_FILE": "/run/secrets/t"}, frozenset())
    found = {finding.rule: finding for finding in of_image(bare)}
    assert found.pop("signed").verdict is Verdict.CANNOT
    assert {finding.verdict for finding in found.values()} == {Verdict.FAIL}
    assert found["no secret in its environment"].seen == "DB_PASSWORD"


def test_an_engine_without_a_sandbox_or_with_open_doors_fails():
    told = {"sandbox": "bubblewrap 0.8.0", "system calls": "filtered by seccomp", "limits": "memory and cpu"}
    assert set(verdicts(of_engine(EngineSeen("embedded", told, {"/run/daemon.sock": 0o600}))).values()) == {
        Verdict.PASS
    }
    plain = EngineSeen(
        "embedded", {"sandbox": "none (plain process)", "limits": "none for cpu"}, {"/state/keys/a": 0o644}
    )
    found = verdicts(of_engine(plain))
    assert found.pop("memory, processors and processes are limited") is Verdict.CANNOT
    assert set(found.values()) == {Verdict.FAIL}


SECRETIVE = replace(
    GOOD,
    mounts=(*GOOD.mounts, MountSeen("/run/secrets", "tmpfs", writable=False)),
    given=("KEY",),
    secrets={"KEY": 0o400},
)
FILES = "secrets are files in memory, readable by it alone"


def test_who_has_no_secrets_is_not_judged_by_them():
    assert FILES not in verdicts(of_replica(GOOD))


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (SECRETIVE, Verdict.PASS),
        (replace(SECRETIVE, secrets={"KEY": 0o444}), Verdict.FAIL),
        (replace(SECRETIVE, secrets={}), Verdict.FAIL),
        (replace(SECRETIVE, secrets=None), Verdict.CANNOT),
        (replace(SECRETIVE, mounts=GOOD.mounts), Verdict.FAIL),
        (replace(SECRETIVE, mounts=(MountSeen("/run/secrets", "ext4", writable=False),)), Verdict.FAIL),
        (replace(SECRETIVE, mounts=(MountSeen("/run/secrets", "tmpfs", writable=True),)), Verdict.FAIL),
    ],
)
def test_secrets_have_to_be_in_memory_and_its_own(seen, verdict):
    assert verdicts(of_replica(seen))[FILES] is verdict
