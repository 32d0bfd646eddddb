"""Freezing whole trees of processes: real ones, by each way this machine has."""

import os
import subprocess
import sys
import time

import pytest

from corten.core.process import descendants
from corten.engine.freezer import Freezer, find_cgroups

COUNT = """
import subprocess, sys, time
if len(sys.argv) < 3:
    subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[1], "child"])
while True:
    print(end=".", flush=True)
    time.sleep(0.005)
"""


def usable():
    """Each kind of cgroup this machine lets us make, and signals. Several processes collect these tests at once."""
    kinds = [[]]
    for each in find_cgroups():
        probe = each.base / f"corten-probe-{os.getpid()}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError:
            continue
        kinds.append([each])
    return kinds


@pytest.fixture(
    params=usable(), ids=lambda kind: "cgroup v1" if kind and kind[0].first else "cgroup v2" if kind else "signals"
)
def freezer(request):
    return Freezer(request.param)


@pytest.fixture
def counting(tmp_path):
    """A process and its child, both writing to one file all the time."""
    out = tmp_path / "out"
    with out.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-c", COUNT, COUNT], stdout=stream)
    deadline_s = time.monotonic() + 10
    while len(descendants(process.pid)) < 2 or out.stat().st_size < 10:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    yield process, out
    for each in descendants(process.pid):
        each.kill()
    process.wait(10)


def grows(out):
    before = out.stat().st_size
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        if out.stat().st_size > before:
            return True
        time.sleep(0.01)
    return False


def test_a_frozen_tree_stands_still_and_goes_on_as_it_was(freezer, counting):
    process, out = counting

    def tree():
        return descendants(process.pid)

    try:
        for _ in range(3):
            freezer.freeze("test-r1-freezer", tree)
            before = out.stat().st_size
            time.sleep(0.05)
            assert out.stat().st_size == before
            assert process.poll() is None
            freezer.thaw("test-r1-freezer", tree)
            assert grows(out)
        freezer.thaw("test-r1-freezer", tree)
    finally:
        freezer.thaw("test-r1-freezer", tree)
        for each in tree():
            each.kill()
        process.wait(10)
        freezer.forget("test-r1-freezer")
    assert not any((each.base / "corten-test-r1-freezer").exists() for each in find_cgroups())


def test_where_cgroups_are_is_read_from_proc(tmp_path):
    v1, v2 = tmp_path / "freezer", tmp_path / "unified"
    for each in (v1 / "a", v2 / "b"):
        each.mkdir(parents=True)
    (tmp_path / "mounts").write_text(
        f"cgroup {v1} cgroup rw,relatime,freezer 0 0\ncgroup2 {v2} cgroup2 rw 0 0\nproc /proc proc rw 0 0\n"
    )
    (tmp_path / "cgroup").write_text("6:freezer:/a\n0::/b\n")
    assert [(each.base, each.first) for each in find_cgroups(tmp_path)] == [(v2 / "b", False), (v1 / "a", True)]
    assert find_cgroups(tmp_path / "nothing") == []
