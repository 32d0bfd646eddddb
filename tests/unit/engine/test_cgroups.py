"""Cgroups of both versions, in folders that stand for the kernel's."""

import os
from pathlib import Path

import pytest

from corten.core.resources import Resources
from corten.engine.cgroups import Cgroups, Hierarchy, Usage, find_hierarchies, make_room
from corten.engine.freezer import find_cgroups

MIB = 1 << 20
ALL = frozenset({"memory", "pids", "cpu"})


def hierarchy(tmp_path, *controllers, unified):
    base = tmp_path / "-".join(controllers)
    base.mkdir()
    return Hierarchy(base, frozenset(controllers), unified=unified)


def written(folder):
    return {path.name: path.read_text() for path in Path(folder).iterdir()}


def test_version_1_has_a_folder_for_each_hierarchy(tmp_path):
    groups = Cgroups([hierarchy(tmp_path, name, unified=False) for name in ("memory", "pids", "cpu")])
    folders = groups.folders("m-r1-abc")
    assert [Path(folder).name for folder in folders] == ["corten-m-r1-abc"] * 3
    groups.make(folders, Resources(64 * MIB, 1.5), 40)
    memory, pids, cpu = map(written, folders)
    assert memory == {"memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": str(64 * MIB)}
    assert pids == {"pids.max": "40"}
    assert cpu == {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"}


def test_version_2_has_one_folder_and_ends_a_replica_as_a_whole(tmp_path):
    groups = Cgroups([hierarchy(tmp_path, *ALL, unified=True)])
    (folder,) = groups.folders("m-r1-abc")
    groups.make([folder], Resources(64 * MIB, 0.25), 40)
    assert written(folder) == {
        "memory.max": str(64 * MIB),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "cpu.max": "25000 100000",
        "pids.max": "40",
    }


def test_without_limits_memory_is_counted_and_processes_are_bounded(tmp_path):
    groups = Cgroups([hierarchy(tmp_path, *ALL, unified=True)])
    (folder,) = groups.folders("m-r1-abc")
    groups.make([folder], Resources(), 40)
    assert written(folder) == {"memory.oom.group": "1", "pids.max": "40"}
    assert groups.lacking(Resources()) == ()


def test_what_cannot_be_limited_is_named_only_where_it_is_wanted(tmp_path):
    groups = Cgroups([hierarchy(tmp_path, "pids", unified=False)])
    assert groups.lacking(Resources(64 * MIB, 1)) == ("memory", "cpu")
    assert groups.lacking(Resources(cpus=1)) == ("cpu",)
    assert Cgroups([]).lacking(Resources(64 * MIB)) == ("memory",)


def test_nothing_is_made_in_folders_of_somebody_else(tmp_path):
    groups = Cgroups([hierarchy(tmp_path, "memory", unified=False)])
    groups.make([str(tmp_path / "elsewhere" / "corten-x")], Resources(64 * MIB), 40)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "files",
    [
        {
            "memory.limit_in_bytes": "67108864",
            "memory.max_usage_in_bytes": "66060288",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        },
        {"memory.max": "67108864", "memory.peak": "66060288", "memory.events": "low 0\noom 3\noom_kill 2\n"},
    ],
)
def test_what_was_used_is_read_of_both_versions(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    usage = Cgroups([]).usage([str(tmp_path)])
    assert usage == Usage(peak_bytes=63 * MIB, limit_bytes=64 * MIB, killed=2)
    assert usage.reason == "out of memory: limit 64 MiB, peak 63 MiB"


def test_no_limit_is_none_in_both_versions(tmp_path):
    (tmp_path / "memory.max").write_text("max\n")
    assert Cgroups([]).usage([str(tmp_path)]).limit_bytes == 0
    (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert Cgroups([]).usage([str(tmp_path)]).limit_bytes == 0


def test_a_kill_that_was_not_for_memory_is_told_apart():
    assert Usage(peak_bytes=100 * MIB).reason == "killed by signal 9, by somebody (its memory peaked at 100 MiB)"
    assert Usage().reason == ""
    assert "the machine's ran out" in Usage(peak_bytes=100 * MIB, killed=1).reason


def test_they_are_found_below_the_own_one_of_each_hierarchy(tmp_path):
    for base in ("memory/own", "unified"):
        (tmp_path / base).mkdir(parents=True)
    (tmp_path / "unified" / "cgroup.controllers").write_text("hugetlb pids\n")
    (tmp_path / "unified" / "cgroup.subtree_control").write_text("pids\n")
    (tmp_path / "mounts").write_text(
        f"cgroup {tmp_path}/memory cgroup rw,relatime,memory 0 0\n"
        f"cgroup {tmp_path}/gone cgroup rw,relatime,cpu 0 0\n"
        f"cgroup2 {tmp_path}/unified cgroup2 rw 0 0\n"
        "proc /proc proc rw 0 0\n"
    )
    (tmp_path / "cgroup").write_text("4:memory:/own\n3:freezer:/\n1:cpu:/\n0::/\n")
    found = find_hierarchies(tmp_path)
    assert found == (
        Hierarchy(tmp_path / "memory" / "own", frozenset({"memory"}), unified=False),
        Hierarchy(tmp_path / "unified", frozenset({"pids"}), unified=True),
    )


def test_a_system_without_cgroups_has_none(tmp_path):
    assert find_hierarchies(tmp_path / "nowhere") == ()


def test_a_daemon_that_made_room_makes_replicas_cgroups_beside_itself(tmp_path):
    own = tmp_path / "root" / "corten.service"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("memory pids\n")
    (own / "cgroup.subtree_control").write_text("memory pids\n")
    (tmp_path / "mounts").write_text(f"cgroup2 {tmp_path}/root cgroup2 rw 0 0\n")
    (tmp_path / "cgroup").write_text("0::/corten.service\n")
    make_room(tmp_path)
    assert (own / "daemon" / "cgroup.procs").read_text() == str(os.getpid())
    (tmp_path / "cgroup").write_text("0::/corten.service/daemon\n")
    (found,) = find_hierarchies(tmp_path)
    assert found.base == own
    assert [each.base for each in find_cgroups(tmp_path)] == [own]


def test_in_the_root_cgroup_no_room_is_needed(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "mounts").write_text(f"cgroup2 {tmp_path}/root cgroup2 rw 0 0\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    make_room(tmp_path)
    assert list((tmp_path / "root").iterdir()) == []
